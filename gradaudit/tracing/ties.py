"""Exact ties of ops that choose by their operands, and what comes of them.

At a tie every op takes the derivative of one of its pieces. Of one element that is a subgradient.
Of several, in one op or in more, it need not be: log(eᵃ + eᵇ), as max(a, b) + log(1 + e⁻ᵈ) with
d = |a − b|, has the gradient (1/2, 1/2) at a = b, where max gives (1, 0) and |·| gives 0. (S.
Kakade and J. Lee, Provably correct automatic subdifferentiation for qualified programs, 2018.) And
the branch that an equality takes on a single point says nothing of the function beside that point.
`beside.py` takes gradients there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradaudit.numerics import Rounded, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import plus
from gradaudit.records import Passed, Provenance
from gradaudit.rules.primitives.constants import constant
from gradaudit.tracing.beside import Settled
from gradaudit.tracing.graph import Op

_EQUALITIES = ("Equal", "NotEqual")
COMPARISONS = ("Greater", "GreaterEqual", "Less", "LessEqual")
_OF_TWO = (*_EQUALITIES, *COMPARISONS, "Maximum", "Minimum")
_AT = {"Relu6": [0.0, 6.0], **{key: [0.0] for key in ("Abs", "Sign", "Relu", "LeakyRelu", "Selu")}}


class Tie(NamedTuple):
    """An exact tie in an op; place: index of the first element that ties; elements: how many."""

    op: Op
    place: tuple[int, ...]
    elements: int


def tie_of(op: Op, given: Sequence[Any]) -> Tie | None:
    """Return the tie of an op that chooses by its operands, where some are exactly equal."""
    if op.kind in _OF_TWO:
        sides = [(given[0], given[1])]
    elif op.kind == "ClipByValue":
        sides = [(given[0], bound) for bound in given[1:]]
    else:
        sides = [(given[0], bound) for bound in _AT.get(op.kind, ())]
    equal = [np.argwhere(numbers(a) == numbers(b)) for a, b in sides]
    count = sum(map(len, equal))
    if not count:
        return None
    first = next(places for places in equal if len(places))[0]
    return Tie(op, tuple(first.tolist()), count)


def contradict(ties: Sequence[Tie]) -> bool:
    """Return whether ties may add up to no subgradient: one of an equality, or several elements."""
    return of_equality_in(ties) or sum(tie.elements for tie in ties) > 1


def of_equality_in(ties: Sequence[Tie]) -> bool:
    """Return whether one of the ties is that of an equality."""
    return any(tie.op.kind in _EQUALITIES for tie in ties)


def corrected(cotangent: Array, settled: Settled, of_equality: bool) -> Array:
    """Return a cotangent with what was settled.

    of_equality: the function may be another one beside the tie, so that it is a kink where nothing
        was found.
    """
    if not isinstance(cotangent, Rounded):
        return cotangent + constant(settled.shift, like=cotangent)
    kink = None if cotangent.kink is None else np.where(settled.known, 0.0, cotangent.kink)
    if of_equality:
        kink = plus(settled.kink, kink)
    return Rounded(cotangent.value + settled.shift, cotangent.variance, kink, cotangent.precision)


def provenance(ties: Sequence[Tie]) -> frozenset[Provenance]:
    """Return the provenance of cotangents that were corrected: one for each line with such ties.

    Lines whose ties are of several ops, or of an equality, are named before those where one op has
    several, as every rectifier has.
    """
    lines: dict[Any, list[Tie]] = {}
    for tie in ties:
        lines.setdefault(tie.op.place, []).append(tie)
    several = [group for group in lines.values() if _of_several_ops(group)]
    likely = several or [group for group in lines.values() if contradict(group)] or [list(ties)]
    return frozenset(map(_named, likely))


def _of_several_ops(ties: Sequence[Tie]) -> bool:
    return of_equality_in(ties) or len({tie.op for tie in ties}) > 1


def _named(ties: Sequence[Tie]) -> Provenance:
    first = ties[0]
    kinds = " and ".join(dict.fromkeys(tie.op.kind for tie in ties))
    where = f"where {kinds} {'meet' if ' and ' in kinds else 'meets'} equal values"
    if first.place:
        where += f", as at {list(first.place)}"
    functions = {tie.op.function_of_library for tie in ties}
    named = functions.pop() if len(functions) == 1 else ""
    return first.op.provenance(Passed.MISLED, where, named)
