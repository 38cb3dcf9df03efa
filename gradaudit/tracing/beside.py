"""Gradients beside an exact tie: whether the function has a derivative at the tie, and which.

They are taken to both sides along random directions (gradient sampling: J. Burke, A. Lewis and
M. Overton, A robust gradient sampling algorithm for nonsmooth, nonconvex optimization, 2005), and
with single elements moved. Where the function is continuous and all of them agree, it has that
derivative at the tie, too, and any other is wrong. Where they do not agree it is a kink, and stays
what it was; so it does where the function jumps. Rejected: differences of the function, which lose
half of the digits.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import numbers

STEPS = (2.0**-26, 2.0**-13)
"""Steps beside a tie over a tensor's size. Rounding spoils quotients of the smaller one, such as
(exp(x) − 1) / x at 0; curvature spoils the larger one."""
DIRECTIONS = 8
"""Two kinks that are as large pass for none along one direction in two: in 1 of 256 along all."""
AGREEMENT = 2.0**-10
"""Gradients beside the tie agree where they differ by less than this part of what is corrected:
curvature makes a few steps of it. Independent kinks of n terms of a sum, of which each direction
turns on about half, differ by 4/√n of it: below that only for more than 10⁷ of them."""
SINGLE = 16
"""So many elements of a tensor are moved by themselves."""
NOISE = 2.0**-20
"""A correction is larger than this part of the gradient. The mean of both sides errs by the square
of the step."""


class Moved:
    """The variables of a step, moved; the `Step` of a graph that runs again beside a tie.

    held: their values as the graph first read them. size: the step, over each variable's size.
    """

    def __init__(
        self, held: Mapping[str, Any], directions: "Directions | Single", size: float
    ) -> None:
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


class Single:
    """The direction in which one element of one tensor is moved, as far as the tensor is large."""

    def __init__(self, name: "Key", place: tuple[int, ...]) -> None:
        self._name, self._place = name, place

    def moved(self, name: Any, value: np.ndarray, size: float) -> np.ndarray:
        """Return a float64 array of value's shape, its element moved if it has the name."""
        if name != self._name:
            return value
        moved = value.copy()
        moved[self._place] += size * _scale(value)
        return moved


class Directions:
    """A random direction of each tensor by name, as large as the tensor in each element."""

    def __init__(self, seed: int) -> None:
        self._rng, self._drawn = np.random.default_rng(seed), dict[Any, np.ndarray]()

    def moved(self, name: Any, value: np.ndarray, size: float) -> np.ndarray:
        """Return a float64 array of value's shape, a step of `size` away."""
        if size == 0 or not value.size:
            return value
        if name not in self._drawn:
            signs = self._rng.choice([-1.0, 1.0], value.shape)
            self._drawn[name] = _scale(value) * signs * self._rng.uniform(0.5, 1.0, value.shape)
        return value + size * self._drawn[name]


def _scale(value: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(value)))) or 1.0


Key = int | str
"""Number of an input, or path of a variable."""


class Sample(NamedTuple):
    """The outputs of a graph beside a tie, and its cotangents, in float64."""

    outputs: Sequence[np.ndarray]
    cotangents: Mapping[Key, np.ndarray]


Beside = Callable[[Directions | Single, float], Sample]
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

    Each correction is the mean of gradients at opposite sides: it errs by the step's square. Single
    elements are moved, too: a rectifier behind others is on along nearly all directions, because
    they add up to more than its own bias.
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
        for key, each in judged.items():
            old = found[key]
            new = _confirmed(beside, key, each, at[key], step, each.known & ~old.known)
            found[key] = Settled(
                np.where(old.known, old.shift, new.shift),
                old.known | new.known,
                np.where(old.known | new.known, 0.0, np.maximum(old.kink, new.kink)),
            )
    return {key: s for key, s in found.items() if s.known.any() or s.kink.any()}


def _confirmed(
    beside: Beside, key: Key, settled: Settled, at: np.ndarray, step: float, new: np.ndarray
) -> Settled:
    """Return what was settled of a cotangent where moves of a single element agree, else a kink.

    new: the elements in question. Of more than SINGLE some are tried, for all of them.
    """
    places = [tuple(place) for place in np.argwhere(new)]
    if not places:
        return settled
    tried = [places[i] for i in np.linspace(0, len(places) - 1, SINGLE).astype(int)]
    refused = [
        place
        for place in (places if len(places) <= SINGLE else tried)
        if not _agrees(beside, key, place, settled, at, step)
    ]
    if not refused:
        return settled
    wrong = new.copy()
    if len(places) <= SINGLE:
        wrong[...] = False
        wrong[tuple(np.transpose(refused))] = True
    return Settled(
        np.where(wrong, 0.0, settled.shift),
        settled.known & ~wrong,
        np.where(wrong, np.abs(settled.shift), settled.kink),
    )


def _agrees(
    beside: Beside,
    key: Key,
    place: tuple[int, ...],
    settled: Settled,
    at: np.ndarray,
    step: float,
) -> bool:
    shift = settled.shift[place]
    with np.errstate(all="ignore"):
        found = [beside(Single(key, place), side * step).cotangents[key][place] for side in (1, -1)]
    return all(np.abs(each - at[place] - shift) <= AGREEMENT * np.abs(shift) for each in found)


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


def sampling(
    run: Callable[
        [Directions | Single, float], tuple[Sequence[Any], Sequence[Any], Mapping[str, Any]]
    ],
    shapes: Mapping[Key, tuple[int, ...]],
) -> Beside:
    """Return what takes the cotangents of a graph beside a tie, from a run of the graph.

    run: returns the outputs, and the cotangents of inputs and of variables. shapes: of the
    cotangents in question.

    Where the graph does not run beside the tie, all is NaN, and nothing agrees: a tensor may have
    another shape there, as tf.boolean_mask makes one of what ties.
    """

    def beside(directions: Directions | Single, size: float) -> Sample:
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
