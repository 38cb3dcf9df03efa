"""The tape: the operations of one run in their order, and the way back through them.

It takes what a rule returns, `(y, vjp)`, and therefore stands among the rules, below the two rooms
that chain such pairs: `reference.walk` along a graph of Keras, `tracing.interpreter` along a graph
of TensorFlow. Rejected: one tape in each of the two, which must agree on provenance and did not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gradaudit.numerics import Decision
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Provenance

Provenances = frozenset[Provenance]


@dataclass(eq=False)
class Primal:
    """A value of a run, and the cotangent that comes back to it.

    value: an array, or what else the run computes with.
    cotangent: dloss / dvalue, of the value's shape; None until some arrives.
    passed: provenance of the cotangent.
    """

    value: Any
    cotangent: Any = field(default=None, kw_only=True)
    passed: Provenances = field(default=frozenset(), kw_only=True)

    def add(self, cotangent: Any, passed: Provenances = frozenset()) -> None:
        """Add a part of the cotangent, with its provenance."""
        self.cotangent = cotangent if self.cotangent is None else self.cotangent + cotangent
        self.passed |= passed


class Sum:
    """The sum of terms whose rounding errors are independent, one added after the other."""

    def __init__(self) -> None:
        self._sum: Any = None

    def add(self, term: Array) -> None:
        """Add the next term."""
        self._sum = term if self._sum is None else self._sum + term

    def total(self) -> Array:
        """Return the sum."""
        return self._sum


class _Sum(Protocol):
    """`Sum`, or `numerics.SumOfSteps`."""

    def add(self, term: Array) -> None: ...

    def total(self) -> Any: ...


@dataclass
class Gradients:
    """The cotangents of the variables of a run, by path, each with its provenance.

    new_sum: makes the sum of a variable's terms: `Sum`, or `SumOfSteps` where a variable may be
        read in each step of a loop.
    passing: provenance of the cotangent that is being carried back. A VJP that runs others within
        leaves here what the cotangents passed on their way through them.
    provenance: of what was added, by path.
    """

    new_sum: Callable[[], _Sum] = Sum
    passing: Provenances = frozenset()
    provenance: dict[str, Provenances] = field(default_factory=dict)
    _sums: dict[str, _Sum] = field(default_factory=dict)

    def add(self, path: str, term: Array, passed: Provenances = frozenset()) -> None:
        """Add a part of a variable's cotangent.

        passed: its provenance besides `passing`.
        """
        self._sums.setdefault(path, self.new_sum()).add(term)
        known = self.provenance.get(path, frozenset())
        self.provenance[path] = known | self.passing | passed

    def totals(self) -> dict[str, Array]:
        """Return the cotangents by path."""
        return {path: terms.total() for path, terms in self._sums.items()}


def zeros_like(value: Any) -> Any:
    """Return zeros of a value's shape and kind; None of a comparison, which has no cotangent."""
    return None if isinstance(value, Decision) else np.zeros_like(value)


@dataclass(frozen=True)
class _Operation:
    inputs: Sequence[Primal | None]
    outputs: Sequence[Primal]
    vjp: Callable[..., Sequence[Any]]
    passed: Provenances


@dataclass
class Tape:
    """The operations of one graph, in the order in which they ran.

    gradients: where VJPs add the cotangents of variables. A function, a branch or a round of a
        loop has a tape of its own and shares these.
    zeros: makes the cotangent of an output that received none, from its value.
    """

    gradients: Gradients
    zeros: Callable[[Any], Any] = zeros_like
    _operations: list[_Operation] = field(default_factory=list)

    def record(
        self,
        inputs: Sequence[Primal | None],
        outputs: Sequence[Primal],
        vjp: Callable[..., Sequence[Any]],
        passed: Provenances = frozenset(),
    ) -> None:
        """Record an operation.

        inputs: None for one to which no gradient goes. vjp: takes a cotangent for each output and
        returns one for each input, or None. passed: what a cotangent passes in the operation.
        """
        self._operations.append(_Operation(tuple(inputs), tuple(outputs), vjp, passed))

    def backward(self) -> None:
        """Carry the cotangents back, from the last operation to the first.

        Operations to whose outputs no cotangent came are skipped. The tape is used up on the way,
        so that arrays are freed: it goes back once.
        """
        before = self.gradients.passing
        while self._operations:
            each = self._operations.pop()
            if all(y.cotangent is None for y in each.outputs):
                continue
            passed = (y.passed for y in each.outputs)
            self.gradients.passing = before.union(each.passed, *passed)
            dxs = each.vjp(*map(self._cotangent, each.outputs))
            for x, dx in zip(each.inputs, dxs, strict=True):
                if x is not None and dx is not None:
                    x.add(dx, self.gradients.passing)
        self.gradients.passing = before

    def _cotangent(self, y: Primal) -> Any:
        return self.zeros(y.value) if y.cotangent is None else y.cotangent
