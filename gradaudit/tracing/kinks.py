"""Names the ops at which a choice at a kink decides, within rounding errors or at an exact tie."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradaudit.numerics import Rounded, numbers
from gradaudit.rules.tape import Primal
from gradaudit.tracing.graph import Op
from gradaudit.tracing.ties import tie_of
from gradaudit.tracing.values import Value
from gradaudit.tracing.watch import OpWatch

FRAMEWORK: dict[str, str] = {
    **dict.fromkeys(("Relu", "Abs"), "takes the slope 0"),
    "Relu6": "takes the slope 0",
    "LeakyRelu": "takes the slope alpha",
    **dict.fromkeys(("Max", "Min", "SegmentMax", "SegmentMin"), "shares equally"),
    **dict.fromkeys(("MaxPool", "MaxPool3D", "Maximum", "Minimum"), "gives all to the first"),
    "ClipByValue": "takes the slope 1",
}
"""What TensorFlow does at an exact tie."""
_REDUCING = ("Max", "Min")
_POOLING = ("MaxPool", "MaxPool3D")


@dataclass(eq=False)
class _Place:
    """An op with the elements of it that tie, or are in doubt. first: the index of one."""

    op: Op
    count: int
    first: tuple[int, ...]


@dataclass
class Doubts(OpWatch):
    """A watch of a run in the arithmetic `Rounding`: the ops at which kinks begin."""

    found: list[_Place] = field(default_factory=list)

    def made(self, op: Op, inputs: Sequence[Primal], outputs: Sequence[Primal]) -> None:
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

    found: list[_Place] = field(default_factory=list)

    def made(self, op: Op, inputs: Sequence[Primal], outputs: Sequence[Primal]) -> None:
        """Note an op whose floats tie."""
        if op.kind not in FRAMEWORK:
            return
        values = [x.value for x in inputs]
        if np.asarray(numbers(values[0])).dtype.kind != "f":
            return
        if op.kind in _REDUCING:
            axes = tuple(np.atleast_1d(numbers(values[1])).tolist())
            x, y = numbers(values[0]), numbers(outputs[0].value)
            kept = y if op.attributes["keep_dims"] else np.expand_dims(y, axes)
            equal = x == kept
            tied = equal & (equal.sum(axis=axes, keepdims=True) > 1)
            self.found += [_place(op, tied)] if tied.any() else []
        elif op.kind in _POOLING:
            x = numbers(values[0])
            self.found += [_Place(op, 0, ())] if np.unique(x).size < x.size else []
        elif (tie := tie_of(op, values)) is not None:
            self.found.append(_Place(op, 0, tie.place))


def _kinks(value: Any) -> np.ndarray | None:
    is_kinked = isinstance(value, Rounded) and value.kink is not None and bool(value.kink.any())
    return value.kink if is_kinked else None


def _place(op: Op, mask: np.ndarray) -> _Place:
    return _Place(op, int(mask.sum()), tuple(np.argwhere(mask)[0].tolist()))


def in_words(places: Sequence[_Place], layers: Collection[str], most: int = 3) -> str:
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


def convention_of(places: Sequence[_Place]) -> str:
    """Return what the framework does at the first of some ties, in words."""
    return next(
        (f"TensorFlow {FRAMEWORK[p.op.kind]}" for p in places if p.op.kind in FRAMEWORK), ""
    )
