"""Finds the op that makes the first number of a run that is not finite."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np

from gradaudit.numerics import Rounded
from gradaudit.rules.tape import Primal
from gradaudit.tracing.evaluate import makes_nan_of_zero
from gradaudit.tracing.graph import Op
from gradaudit.tracing.tf_ops.tensor_list import TensorList
from gradaudit.tracing.values import Value, bare, kind_of
from gradaudit.tracing.watch import OpWatch

_DOMAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys(("Sqrt", "Rsqrt", "Log"), lambda x: x > 0),
    "Log1p": lambda x: x > -1,
    **dict.fromkeys(("Asin", "Acos", "Atanh"), lambda x: np.abs(x) < 1),
    "Acosh": lambda x: x > 1,
    **dict.fromkeys(("RealDiv", "Div", "Reciprocal", "Inv"), lambda x: x != 0),
}
"""Where the last operand of an op must lie for the op and its slope to be finite."""

_CALLS = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "Case")
_ADDING = ("Add", "AddV2", "Maximum")


@dataclass(frozen=True)
class Found:
    """An op that makes a number that is not finite, from numbers that are.

    index: of the number in what the op made. words: what happened, without the place.
    """

    op: Op
    shape: tuple[int, ...]
    index: tuple[int, ...]
    words: str


@dataclass(eq=False)
class _Event:
    """An op whose output is not finite.

    place: among all ops of the run. since: that of the op before it in the same function.
    """

    op: Op
    inputs: Sequence[Primal]
    outputs: Sequence[Primal]
    place: int
    since: int


@dataclass
class Origins(OpWatch):
    """A watch that notes where a run stops being finite.

    on_the_way_back: the first op whose VJP makes a number that is not finite of cotangents that
        are. singular: the first op on the way back whose slope is not finite where its cotangent is
        0: the chain rule gives 0 there, and TensorFlow's gradient of the op 0 · ∞ = NaN.
    doubtful: the first op that may overflow, or leave its domain, within the rounding errors of a
        run in the arithmetic `Rounding`.
    vanished: ops that add a constant which the precision holds as 0.
    jit: whether XLA compiles the step.
    """

    jit: bool = False
    on_the_way_back: Found | None = None
    singular: Found | None = None
    doubtful: Found | None = None
    vanished: list[Op] = field(default_factory=list)
    _events: list[_Event] = field(default_factory=list)
    _producers: dict[int, _Event] = field(default_factory=dict)
    _before: list[int] = field(default_factory=list)  # the last place, in each nested function
    _place: int = 0

    @contextmanager
    def function(self) -> Iterator[None]:
        """Count places of a function by themselves."""
        self._before.append(self._place)
        yield
        self._before.pop()

    def made(
        self, op: Op, inputs: Sequence[Primal], outputs: Sequence[Primal], wanted: bool
    ) -> None:
        """Note an op whose output is not finite, or may not be."""
        self._place += 1
        since, self._before[-1] = self._before[-1], self._place
        if not all(_is_finite(y.value) for y in outputs):
            event = _Event(op, inputs, outputs, self._place, since)
            self._events.append(event)
            self._producers.update((id(y), event) for y in outputs)
        elif self.doubtful is None:
            self.doubtful = _doubtful(op, [x.value for x in inputs], [y.value for y in outputs])
        if op.kind in _ADDING and op.dtypes[0].size == 2 and _adds_zero(op, inputs):
            self.vanished.append(op)

    def carried(
        self,
        op: Op,
        inputs: Sequence[Primal],
        dys: Sequence[Value],
        dxs: Sequence[Value],
        vjp: Callable,
    ) -> None:
        """Note an op whose VJP makes what is not finite, or would for another cotangent."""
        if self.on_the_way_back is not None or not all(map(_is_finite, dys)):
            return
        xs = [x.value for x in inputs]
        if not all(map(_is_finite, dxs)):
            self.on_the_way_back = _on_the_way_back(op, xs, dxs)
        elif self.singular is None and op.kind not in _CALLS:
            self.singular = _singular(op, xs, dys, vjp, self.jit)

    def of(self, value: Value) -> Found | None:
        """Return the op that makes what is not finite in a value of the run."""
        event = next(
            (e for e in reversed(self._events) if any(y.value is value for y in e.outputs)), None
        )
        return None if event is None else _made(self._root(event))

    @property
    def broken(self) -> int:
        """How many ops on the way forward make what is not finite."""
        return len(self._events)

    def first(self) -> Found | None:
        """Return the first op of all that makes what is not finite, on the way forward."""
        return _made(self._root(self._events[0])) if self._events else None

    def _root(self, event: _Event) -> _Event:
        """Return the first op from which what is not finite reaches an event.

        An infinity that a constant brings, as the −∞ of a mask, is meant; NaN made of it is not.
        """
        roots = self._roots(event, {})
        first = min(roots, key=lambda each: each.place) if roots else event
        return self._within(first) if first.op.kind in _CALLS else first

    def _roots(self, event: _Event, known: dict[int, set[_Event]]) -> set[_Event]:
        waiting = [event]
        while waiting:
            each = waiting[-1]
            bad = [x for x in each.inputs if not _is_finite(x.value)]
            parents = [self._producers[id(x)] for x in bad if id(x) in self._producers]
            missing = [parent for parent in parents if parent.place not in known]
            if missing:
                waiting += missing
                continue
            found = {root for parent in parents for root in known[parent.place]}
            is_meant = bool(bad) and not any(
                np.isnan(a).any() for y in each.outputs for a in _floats(y.value)
            )
            known[waiting.pop().place] = found or (set() if is_meant else {each})
        return known[event.place]

    def _within(self, call: _Event) -> _Event:
        """Return the first op within a called function that makes what is not finite."""
        for each in self._events:
            is_within = call.since < each.place < call.place and each.op.kind not in _CALLS
            if is_within and all(_is_finite(x.value) for x in each.inputs):
                return each
        return call


def _floats(value: Value) -> list[np.ndarray]:
    """Return the bare floats of a value."""
    if isinstance(value, TensorList):
        return [part for item in value if item is not None for part in _floats(item)]
    if value is None or isinstance(value, keras.Variable):
        return []
    array = np.asarray(bare(value))
    return [array] if array.dtype.kind in "fc" else []


def _is_finite(value: Value) -> bool:
    return all(np.isfinite(array).all() for array in _floats(value))


def _made(event: _Event) -> Found:
    """Return what an op made that is not finite, and of what."""
    y = next(a for y in event.outputs for a in _floats(y.value) if not np.isfinite(a).all())
    xs = [x.value for x in event.inputs]
    bad = ~np.isfinite(y)
    operands = [_broadcast(x, y.shape) for x in xs]
    fresh = bad & np.all([np.isfinite(x) for x in operands if x is not None] or [bad], axis=0)
    index = _first(fresh if fresh.any() else bad)
    what = kind_of(y[index])
    words = f"{event.op.kind}{_arguments(xs, y.shape, index)} is {what}"
    if what == "infinite":
        words += f" in {event.op.dtypes[0].name}"
    return Found(event.op, y.shape, index, words)


def _on_the_way_back(op: Op, xs: Sequence[Value], dxs: Sequence[Value]) -> Found:
    dx = next(a for dx in dxs for a in _floats(dx) if not np.isfinite(a).all())
    index = _first(~np.isfinite(dx))
    return Found(op, dx.shape, index, _slope(op, xs, dx, index))


def _singular(
    op: Op, xs: Sequence[Value], dys: Sequence[Value], vjp: Callable, jit: bool
) -> Found | None:
    """Return where the slope of an op is not finite, and its cotangent is 0.

    Only where TensorFlow's gradient of the op then makes NaN, as far as that is known.
    """
    if len(dys) != 1 or len(_floats(dys[0])) != 1 or np.iscomplexobj(bare(dys[0])):
        return None
    dy = dys[0]
    if bare(dy).all():
        return None
    for dx in vjp(dy * 0.0 + 1.0):
        for slope in _floats(dx):
            if not np.isfinite(slope).all():
                # XLA fuses and rounds an op by itself otherwise than in a whole step.
                if not jit and not makes_nan_of_zero(op.operation, [bare(x) for x in xs]):
                    return None
                index = _first(~np.isfinite(slope))
                words = f"{_slope(op, xs, slope, index)}, and 0 times that is NaN"
                return Found(op, slope.shape, index, words)
    return None


def _slope(op: Op, xs: Sequence[Value], slope: np.ndarray, index: tuple[int, ...]) -> str:
    at = _arguments(xs, slope.shape, index)
    return f"the derivative of {op.kind}{at} is {kind_of(slope[index])}"


def _doubtful(op: Op, xs: Sequence[Value], ys: Sequence[Value]) -> Found | None:
    """Return where rounding errors may let an op overflow, or leave its domain."""
    for y in ys:
        if _overflows(y):
            if any(map(_overflows, xs)):
                return None
            index = _first(~np.isfinite(y.kink))
            words = f"{op.kind}{_arguments(xs, y.shape, index)} may overflow in {y.precision.name}"
            return Found(op, y.shape, index, words)
    inside, x = _DOMAINS.get(op.kind), xs[-1] if xs else None
    if inside is None or not isinstance(x, Rounded):
        return None
    outside = (x.doubt > 0) & ~(inside(x.value - x.doubt) & inside(x.value + x.doubt))
    outside |= (x.doubt > 0) & (np.sign(x.value - x.doubt) * np.sign(x.value + x.doubt) < 0)
    if not outside.any():
        return None
    index = _first(outside)
    words = (
        f"the operand of {op.kind} is {x.value[index]:.3g} with a rounding error of up to "
        f"{x.doubt[index]:.1g}, and may be outside its domain"
    )
    return Found(op, x.shape, index, words)


def _overflows(value: Value) -> bool:
    is_kinked = isinstance(value, Rounded) and value.kink is not None
    return is_kinked and not np.isfinite(value.kink).all()


def _adds_zero(op: Op, inputs: Sequence[Primal]) -> bool:
    """Return whether an op adds a scalar constant that is 0."""
    pairs = zip(op.numbers, inputs, strict=True)
    return any(is_number and not bare(x.value).any() for is_number, x in pairs)


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _broadcast(value: Value, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the floats of an operand at each element of a result; None where it has none."""
    found = _floats(value)
    if len(found) != 1 or isinstance(value, TensorList):
        return None
    try:
        return np.broadcast_to(found[0], shape)
    except ValueError:
        return None


def _arguments(xs: Sequence[Value], shape: tuple[int, ...], index: tuple[int, ...]) -> str:
    """Return the operands of an elementwise op at an element, as `(1, 0)`; "" of other ops."""
    floats = [x for x in xs if _floats(x)]
    operands = [_broadcast(x, shape) for x in floats]
    if not operands or any(operand is None for operand in operands):
        sizes = [np.max(np.abs(a), initial=0.0) for x in floats for a in _floats(x)]
        return f" of values up to {max(sizes):.3g}" if sizes else ""
    return f"({', '.join(f'{operand[index]:.6g}' for operand in operands if operand is not None)})"


def in_words(found: Found, layers: Collection[str], rows: int) -> str:
    """Return what happened, in which layer, at which line, and in which row of the batch.

    layers: names of the model's layers. rows: of the batch.
    """
    words = f"{found.words}, in {found.op.located(layers)}"
    if found.index:
        rest = list(found.index[1:])
        at = f", at {rest} in it" if any(size > 1 for size in found.shape[1:]) else ""
        of_batch = found.shape[0] == rows
        words += f"; row {found.index[0]}{at}" if of_batch else f"; at {list(found.index)}"
    return words
