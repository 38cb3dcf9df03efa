"""Gradients at exact ties, where each op of a composition chooses for itself.

At a tie every op takes the derivative of one of its pieces. Of one op that is a subgradient. Of
several it need not be: log(eᵃ + eᵇ), as max(a, b) + log(1 + exp(−|a − b|)), has the gradient
(1/2, 1/2) at a = b, where max gives (1, 0) and |·| gives 0. (S. Kakade and J. Lee, Provably correct
automatic subdifferentiation for qualified programs, 2018.) And the branch that an equality takes on
a single point says nothing of the function beside that point.

So gradients are taken beside the tie, to both sides along random directions (gradient sampling:
J. Burke, A. Lewis and M. Overton, A robust gradient sampling algorithm for nonsmooth, nonconvex
optimization, 2005). Where the function is continuous and all of them agree, it has that derivative
at the tie, too, and any other is wrong. Where they do not agree it is a kink, and stays what it
was; so it does where the function jumps.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Rounded, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import plus
from gradaudit.records import Passed, Provenance
from gradaudit.rules.primitives.constants import constant
from gradaudit.tracing.graph import Op

_EQUALITIES = ("Equal", "NotEqual")
_OF_TWO = (*_EQUALITIES, "Greater", "GreaterEqual", "Less", "LessEqual", "Maximum", "Minimum")
_AT = {"Relu6": [0.0, 6.0], **{key: [0.0] for key in ("Abs", "Sign", "Relu", "LeakyRelu", "Selu")}}

STEPS = (2.0**-26, 2.0**-13)
"""Steps beside a tie over a tensor's size. Rounding spoils quotients of the smaller one, such as
(exp(x) − 1) / x at 0; curvature spoils the larger one."""
DIRECTIONS = 8
"""Two kinks that are as large pass for none along one direction in two: in 1 of 256 along all."""
AGREEMENT = 2.0**-10
"""Gradients beside the tie agree where they differ by less than this part of what is corrected:
curvature makes a few steps of it. Independent kinks of n terms of a sum, of which each direction
turns on about half, differ by 4/√n of it: below that only for more than 10⁷ of them."""
NOISE = 2.0**-20
"""A correction is larger than this part of the gradient. The mean of both sides errs by the square
of the step."""


class Tie(NamedTuple):
    """An exact tie in an op; place: index of the first element that ties."""

    op: Op
    place: tuple[int, ...]


def tie_of(op: Op, given: Sequence[Any]) -> Tie | None:
    """Return the tie of an op that chooses by its operands, where some are exactly equal."""
    if op.kind in _OF_TWO:
        sides = [(given[0], given[1])]
    elif op.kind == "ClipByValue":
        sides = [(given[0], bound) for bound in given[1:]]
    else:
        sides = [(given[0], bound) for bound in _AT.get(op.kind, ())]
    for a, b in sides:
        equal = np.argwhere(numbers(a) == numbers(b))
        if len(equal):
            return Tie(op, tuple(equal[0].tolist()))
    return None


def contradict(ties: Sequence[Tie]) -> bool:
    """Return whether ties may add up to no subgradient: one of an equality, or of several ops."""
    return of_equality_in(ties) or len({tie.op for tie in ties}) > 1


def of_equality_in(ties: Sequence[Tie]) -> bool:
    """Return whether one of the ties is that of an equality."""
    return any(tie.op.kind in _EQUALITIES for tie in ties)


class Moved:
    """The variables of a step, moved; the `Step` of a graph that runs again beside a tie.

    held: their values as the graph first read them. size: the step, over each variable's size.
    """

    def __init__(self, held: Mapping[str, Any], directions: "Directions", size: float) -> None:
        self._held, self._directions, self._size = held, directions, size
        self._assigned: dict[str, Any] = {}

    def read(self, variable: Any, dtype: str) -> Any:
        """Return a variable's value, moved if a gradient moves the variable."""
        if variable.path in self._assigned:
            return self._assigned[variable.path]
        value = numbers(self._held[variable.path])
        if value.dtype.kind != "f":
            return value
        value = np.asarray(value, np.float64)
        return self._directions.moved(variable.path, value, self._size * variable.trainable)

    def assign(self, variable: Any, value: Any) -> None:
        """Note a variable's new value, for reads after it."""
        self._assigned[variable.path] = value


class Reads:
    """A step whose variables are remembered as they were first read."""

    def __init__(self, step: Any) -> None:
        self._step, self.held = step, dict[str, Any]()

    def read(self, variable: Any, dtype: str) -> Any:
        """Return a variable's present value in the step."""
        value = self._step.read(variable, dtype)
        self.held.setdefault(variable.path, value)
        return value

    def assign(self, variable: Any, value: Any) -> None:
        """Note a variable's new value."""
        self._step.assign(variable, value)


class Directions:
    """A random direction of each tensor by name, as large as the tensor in each element."""

    def __init__(self, seed: int) -> None:
        self._rng, self._drawn = np.random.default_rng(seed), dict[Any, np.ndarray]()

    def moved(self, name: Any, value: np.ndarray, size: float) -> np.ndarray:
        """Return a float64 array of value's shape, a step of `size` away."""
        if size == 0 or not value.size:
            return value
        if name not in self._drawn:
            scale = np.sqrt(np.mean(np.square(value))) or 1.0
            signs = self._rng.choice([-1.0, 1.0], value.shape)
            self._drawn[name] = scale * signs * self._rng.uniform(0.5, 1.0, value.shape)
        return value + size * self._drawn[name]


Key = int | str
"""Number of an input, or path of a variable."""


class Sample(NamedTuple):
    """The outputs of a graph beside a tie, and its cotangents, in float64."""

    outputs: Sequence[np.ndarray]
    cotangents: Mapping[Key, np.ndarray]


Beside = Callable[[Directions, float], Sample]
"""Returns the sample that is a step of some size away along directions."""


class Settled(NamedTuple):
    """What ties make of one cotangent; arrays of its shape.

    shift: what is to be added. known: where the derivative was found. kink: by how much gradients
    beside the tie differ from the cotangent where no derivative was found.
    """

    shift: np.ndarray
    known: np.ndarray
    kink: np.ndarray


def settle(beside: Beside) -> dict[Key, Settled]:
    """Return what gradients beside a tie say of cotangents, of each for which they say something.

    Each correction is the mean of gradients at opposite sides: it errs by the step's square.
    """
    with np.errstate(all="ignore"):
        outputs, at = beside(Directions(0), 0.0)
    found = {
        key: Settled(np.zeros(x.shape), np.zeros(x.shape, bool), np.zeros(x.shape))
        for key, x in at.items()
    }
    for step in STEPS:
        samples: list[Mapping[Key, np.ndarray]] = []
        judged: dict[Key, Settled] = {}
        for seed in range(DIRECTIONS):
            directions = Directions(seed)
            with np.errstate(all="ignore"):
                both = [beside(directions, side * step) for side in (1, -1)]
            if not all(_continuous(outputs, each.outputs, step) for each in both):
                judged = {}
                break
            samples += [each.cotangents for each in both]
            judged = {key: _judged(at[key], [each[key] for each in samples]) for key in at}
            if not any((j.known & ~found[key].known).any() for key, j in judged.items()):
                break
        for key, new in judged.items():
            old = found[key]
            found[key] = Settled(
                np.where(old.known, old.shift, new.shift),
                old.known | new.known,
                np.where(old.known | new.known, 0.0, np.maximum(old.kink, new.kink)),
            )
    return {key: s for key, s in found.items() if s.known.any() or s.kink.any()}


def _continuous(at: Sequence[np.ndarray], beside: Sequence[np.ndarray], step: float) -> bool:
    """Return whether outputs moved by far less than a jump does, √step of their size.

    A slope moves them by the step, that of a square root by √step of a size below 1. Outputs that
    are no floats, such as masks, do not move at all.
    """
    return len(at) == len(beside) and all(map(functools.partial(_near, step), at, beside))


def _near(step: float, y: np.ndarray, z: np.ndarray) -> bool:
    if y.shape != z.shape or y.dtype.kind != "f":
        return np.array_equal(y, z)
    size = max(1.0, np.abs(y).max(initial=0.0))
    return bool(np.abs(z - y).max(initial=0.0) <= np.sqrt(step) * size)


def _judged(at: np.ndarray, beside: Sequence[np.ndarray]) -> Settled:
    with np.errstate(all="ignore"):
        low, high = np.min(beside, axis=0), np.max(beside, axis=0)
        shift = np.mean(beside, axis=0) - at
        size = np.max(np.abs([low, high, at]), axis=0)
        is_off = np.isfinite(shift) & (np.abs(shift) > NOISE * size)
        known = is_off & (high - low <= AGREEMENT * np.abs(shift))
        jump = np.maximum(high - at, at - low)
        is_kink = np.isfinite(jump) & ~known & (jump > NOISE * size)
    return Settled(np.where(known, shift, 0.0), known, np.where(is_kink, jump, 0.0))


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
    """Return the provenance of cotangents that were corrected: one for each line with such ties."""
    lines: dict[Any, list[Tie]] = {}
    for tie in ties:
        lines.setdefault(tie.op.place, []).append(tie)
    groups = [group for group in lines.values() if contradict(group)] or [list(ties)]
    return frozenset(map(_named, groups))


def _named(ties: Sequence[Tie]) -> Provenance:
    first = ties[0]
    kinds = " and ".join(dict.fromkeys(tie.op.kind for tie in ties))
    where = f"where {kinds} {'meet' if ' and ' in kinds else 'meets'} equal values"
    if first.place:
        where += f", as at {list(first.place)}"
    functions = {tie.op.function_of_library for tie in ties}
    named = functions.pop() if len(functions) == 1 else ""
    return first.op.provenance(Passed.MISLED, where, named)


def sampling(
    run: Callable[[Directions, float], tuple[Sequence[Any], Sequence[Any], Mapping[str, Any]]],
    shapes: Mapping[Key, tuple[int, ...]],
) -> Beside:
    """Return what takes the cotangents of a graph beside a tie, from a run of the graph.

    run: returns the outputs, and the cotangents of inputs and of variables. shapes: of the
    cotangents in question.

    Where the graph does not run beside the tie, all is NaN, and nothing agrees: a tensor may have
    another shape there, as tf.boolean_mask makes one of what ties.
    """

    def beside(directions: Directions, size: float) -> Sample:
        unknown = {key: np.full(shape, np.nan) for key, shape in shapes.items()}
        try:
            ys, of_inputs, of_variables = run(directions, size)
        except (UnsupportedModelError, ValueError, IndexError):
            return Sample([np.full((), np.nan)], unknown)
        made: Iterator[tuple[Key, Any]] = iter([*enumerate(of_inputs), *of_variables.items()])
        floats = {key: numbers(x) for key, x in made if x is not None and key in shapes}
        known = {key: x for key, x in floats.items() if x.shape == shapes[key]}
        return Sample([numbers(y) for y in ys], unknown | known)

    return beside
