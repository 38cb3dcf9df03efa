"""The ops at which a choice at a kink decides, within rounding errors or at an exact tie."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradaudit.numerics import Rounded, numbers
from gradaudit.numerics.ties import Convention
from gradaudit.rules.tape import Primal
from gradaudit.tracing.graph import Op
from gradaudit.tracing.tf_ops.convolution import tied_windows
from gradaudit.tracing.ties import COMPARISONS, tie_of
from gradaudit.tracing.values import Value
from gradaudit.tracing.watch import OpWatch

_SEGMENTS = ("SegmentMax", "SegmentMin", "UnsortedSegmentMax", "UnsortedSegmentMin")
_POOLING = ("MaxPool", "MaxPool3D")
_REDUCING = ("Max", "Min")

FRAMEWORK: dict[str, str] = {
    **dict.fromkeys(("Relu", "Relu6", "Abs"), "takes the slope 0"),
    "LeakyRelu": "takes the slope alpha",
    "Selu": "takes the slope scale",
    **dict.fromkeys((*_REDUCING, *_SEGMENTS), "shares equally"),
    **dict.fromkeys((*_POOLING, "Maximum", "Minimum", "TopKV2"), "gives all to the first"),
    "ClipByValue": "takes the slope 1",
}
"""What TensorFlow does at an exact tie."""


def choices_of(op: Op) -> tuple[Convention, ...]:
    """Return the other subgradients that an op may take at exact ties."""
    if op.kind in (*_REDUCING, *_SEGMENTS):
        return Convention("first"), Convention("last")
    if op.kind in _POOLING:
        return Convention("last"), Convention("shared")
    if op.kind == "TopKV2":
        return (Convention("last"),)
    return (Convention(turned=True),)


@dataclass(eq=False)
class Place:
    """An op with the elements of it that tie, or are in doubt.

    count: how many. first: the index of one, in what the op makes, or in its input where it chooses
        between the elements of that.
    """

    op: Op
    count: int
    first: tuple[int, ...]


@dataclass
class Doubts(OpWatch):
    """A watch of a run in the arithmetic `Rounding`: the ops at which kinks begin."""

    found: list[Place] = field(default_factory=list)

    def made(
        self, op: Op, inputs: Sequence[Primal], outputs: Sequence[Primal], wanted: bool
    ) -> None:
        """Note an op that makes a kink of operands without one."""
        self._note(op, [x.value for x in inputs], [y.value for y in outputs])

    def carried(
        self,
        op: Op,
        inputs: Sequence[Primal],
        dys: Sequence[Value],
        dxs: Sequence[Value],
        vjp: Callable,
    ) -> None:
        """Note an op whose VJP makes a kink of cotangents without one."""
        self._note(op, dys, [dx for dx in dxs if dx is not None])

    def _note(self, op: Op, given: Sequence[Value], made: Sequence[Value]) -> None:
        if any(_kinks(x) is not None for x in given):
            return
        for y in made:
            kinks = _kinks(y)
            if kinks is not None and all(each.op is not op for each in self.found):
                self.found.append(_place(op, kinks > 0))


@dataclass
class ExactTies(OpWatch):
    """A watch: the ops that choose between floats that are exactly equal."""

    found: list[Place] = field(default_factory=list)

    def made(
        self, op: Op, inputs: Sequence[Primal], outputs: Sequence[Primal], wanted: bool
    ) -> None:
        """Note an op whose floats tie, where they depend on weights."""
        if not wanted or op.kind not in (*FRAMEWORK, *COMPARISONS):
            return
        values = [x.value for x in inputs]
        if np.asarray(numbers(values[0])).dtype.kind != "f":
            return
        if op.kind in _TIED:
            bare = [numbers(x) for x in (*values, *(y.value for y in outputs))]
            tied = _TIED[op.kind](op, *bare)
            self.found += [_place(op, tied)] if tied.any() else []
        elif (tie := tie_of(op, values)) is not None:
            self.found.append(Place(op, tie.elements, tie.place))


@dataclass
class Choosing(OpWatch):
    """A watch of a run in which some ops take other subgradients at exact ties."""

    choices: Mapping[Op, Convention]

    def choice(self, op: Op) -> Convention | None:
        """Return the op's own choice."""
        return self.choices.get(op)


def _of_axes(op: Op, x: np.ndarray, axes: np.ndarray, y: np.ndarray) -> np.ndarray:
    over = tuple(np.atleast_1d(axes).tolist())
    equal = x == (y if op.attributes["keep_dims"] else np.expand_dims(y, over))
    return equal & (equal.sum(axis=over, keepdims=True) > 1)


def _of_segments(op: Op, x: np.ndarray, ids: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    y, is_row = rest[-1], (ids >= 0) & (ids < len(rest[-1]))
    safe = np.where(is_row, ids, 0)
    equal = (x == y[safe]) & is_row.reshape(*ids.shape, *[1] * (x.ndim - ids.ndim))
    count = np.zeros(y.shape, int)
    np.add.at(count, safe, equal)
    return equal & (count[safe] > 1)


def _of_rows(op: Op, x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    order = np.argsort(x, axis=-1)
    ranked = np.take_along_axis(x, order, -1)
    as_next = ranked[..., 1:] == ranked[..., :-1]
    edge = [(0, 0)] * (x.ndim - 1)
    equal = np.pad(as_next, [*edge, (1, 0)]) | np.pad(as_next, [*edge, (0, 1)])
    tied = np.zeros(x.shape, bool)
    np.put_along_axis(tied, order, equal, -1)
    return tied


def _of_windows(op: Op, x: np.ndarray, _: np.ndarray) -> np.ndarray:
    return tied_windows(op, x)


_TIED: dict[str, Callable[..., np.ndarray]] = {
    **dict.fromkeys(_REDUCING, _of_axes),
    **dict.fromkeys(_SEGMENTS, _of_segments),
    **dict.fromkeys(_POOLING, _of_windows),
    "TopKV2": _of_rows,
}
"""From an op, its inputs and its outputs to a mask of what ties."""


def _kinks(value: Any) -> np.ndarray | None:
    is_kinked = isinstance(value, Rounded) and value.kink is not None and bool(value.kink.any())
    return value.kink if is_kinked else None


def _place(op: Op, mask: np.ndarray) -> Place:
    return Place(op, int(mask.sum()), tuple(np.argwhere(mask)[0].tolist()))


def in_words(places: Sequence[Place], layers: Collection[str], most: int = 3) -> str:
    """Return which ops choose, where, and how often. layers: names of the model's layers."""
    words = []
    for place in places[:most]:
        said = f"{place.op.kind} in {place.op.located(layers)}"
        if place.first:
            said += f", at {list(place.first)}"
        if place.count > 1:
            said += f" and {place.count - 1} more"
        words.append(said)
    more = [f"{len(places) - most} more ops"] if len(places) > most else []
    return "; ".join([*words, *more])


def convention_of(places: Sequence[Place]) -> str:
    """Return what the framework does at the first of some ties, in words."""
    return next(
        (f"TensorFlow {FRAMEWORK[p.op.kind]}" for p in places if p.op.kind in FRAMEWORK), ""
    )
