"""Rounding rules of comparisons and of what chooses between elements. A choice itself is exact.

    a > b              doubtful where |a − b| ≤ √(doubt(a)² + doubt(b)²); doubt = DOUBT σ + kink
    where(c, a, b)     σ² = σ² of the chosen element; kink = |a − b| more where c is doubtful
    maximum, minimum   continuous: where doubtful, the larger variance of the two, and no new kink
    max, min           the largest variance of all elements that may be the largest (smallest)
    sign(a)            kink = 2 where a > 0 is doubtful
    sort               the variance of the element that the float64 order puts there
    floor, round, ...  exact; kink = the distance of the results at both ends of the doubt

Comparisons and steps take the numbers as the framework's precision holds them: x that is 0.5 in
float32 rounds to 0, although float64 has 0.500000007. Shapes are those of NumPy. An exact tie of
exact operands is not doubtful.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gradaudit.numerics.decision import Decision
from gradaudit.numerics.dispatch import handles
from gradaudit.numerics.rounded import Part, Rounded, of_parts, operands

_ORDERS = (np.greater, np.greater_equal, np.less, np.less_equal)


def _compare(ufunc: np.ufunc, x: Any, y: Any) -> Decision:
    a, b = operands(x, y)
    if a.precision.bound:
        outcome = np.asarray(ufunc(a.value, b.value))
        return Decision(outcome, np.broadcast_to(np.False_, outcome.shape), a.precision)
    doubt = np.hypot(a.doubt, b.doubt)
    doubtful = (doubt > 0) & ~(np.abs(a.value - b.value) > doubt)
    outcome = np.asarray(ufunc(a.value, b.value))  # of scalars it is none
    if doubtful.any():
        held = (
            a.precision.nearest(np.broadcast_to(part.value, outcome.shape)[doubtful])
            for part in (a, b)
        )
        outcome[doubtful] = ufunc(*held)
    ties = a.precision.ties
    if ties is not None and ties.turned and ufunc in _ORDERS:
        outcome = outcome ^ (a.value == b.value)
    if ties is not None and ties.draw is not None:
        outcome, doubtful = outcome ^ (doubtful & ties.turns(a.value, b.value)), doubtful & False
    return Decision(outcome, doubtful, a.precision)


for _ufunc in (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal):
    handles(_ufunc)(partial(_compare, _ufunc))


@handles(np.where)
def _where(condition: Decision | np.ndarray, x: Any, y: Any) -> Rounded:
    if isinstance(condition, Decision):
        a, b = operands(condition, x, y)
        outcome, doubtful = condition.value, condition.doubtful
    else:
        a, b = operands(x, y)
        outcome, doubtful = condition, np.zeros((), bool)

    def choose(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.where(outcome, p, q)

    chosen = of_parts(choose, a, b)
    for branch in (a, b):
        # Some kernels multiply by 0 or 1 instead, and 0 times an overflow is NaN.
        if branch.kink is not None and not np.isfinite(branch.kink).all():
            chosen = chosen.with_kink(np.where(np.isfinite(branch.kink), 0.0, np.inf))
    if doubtful.any():
        chosen = chosen.with_kink(np.where(doubtful, np.abs(a.value - b.value), 0.0))
    return chosen


@handles(np.maximum)
def _maximum(x: Any, y: Any) -> Rounded:
    return _select(x, y, np.maximum, np.greater)


@handles(np.minimum)
def _minimum(x: Any, y: Any) -> Rounded:
    return _select(x, y, np.minimum, np.less)


def _select(x: Any, y: Any, choose: np.ufunc, compare: np.ufunc) -> Rounded:
    a, b = operands(x, y)
    decision = _compare(compare, a, b)

    def part(p: Part, q: Part) -> Part:
        if p is None and q is None:
            return None
        of_a = np.zeros(a.shape) if p is None else p
        of_b = np.zeros(b.shape) if q is None else q
        chosen = np.where(decision.value, of_a, of_b)
        return np.where(decision.doubtful, np.maximum(of_a, of_b), chosen)

    value = choose(a.value, b.value)
    return Rounded(value, part(a.variance, b.variance), part(a.kink, b.kink), a.precision)


@handles(np.clip)
def _clip(a: Rounded, low: Any, high: Any) -> Rounded:
    return _minimum(_maximum(a, low), high)


@handles(np.sign)
def _sign(a: Rounded) -> Rounded:
    is_positive = _compare(np.greater, a, 0.0)
    kink = np.where(is_positive.doubtful, 2.0, 0.0) if is_positive.doubtful.any() else None
    sign, ties = np.sign(a.value), a.precision.ties
    if ties is not None and ties.turned:
        sign = np.where(sign == 0, 1.0, sign)
    if ties is not None and ties.draw is not None:
        sign = np.where(is_positive.value == (a.value > 0), sign, -sign)
    return Rounded(sign, None, kink, a.precision)


def _step(function: Callable[[np.ndarray], np.ndarray], a: Rounded) -> Rounded:
    if a.precision.bound:
        return Rounded(function(a.precision.nearest(a.value)), None, None, a.precision)
    value, doubt = function(a.precision.nearest(a.value)), a.doubt
    low, high = function(a.value - doubt), function(a.value + doubt)
    kink = np.where(doubt > 0, np.abs(high - low), 0.0)
    ties = a.precision.ties
    if ties is not None and ties.draw is not None:
        other = np.where(value == low, high, low)
        return Rounded(
            np.where((kink > 0) & ties.turns(a.value, doubt), other, value), None, None, a.precision
        )
    return Rounded(value, None, kink if kink.any() else None, a.precision)


for _function in (np.floor, np.ceil, np.rint, np.round):
    handles(_function)(partial(_step, _function))


@handles(np.max)
def _max(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    value = np.max(a.value, axis=axis, keepdims=keepdims)
    if a.variance is None and a.kink is None:
        return Rounded(value, None, None, a.precision)
    if a.precision.bound:
        contends = a.value == np.max(a.value, axis=axis, keepdims=True)
    else:
        doubt = np.where(np.isfinite(a.value), a.doubt, 0.0)
        surely = np.max(a.value - doubt, axis=axis, keepdims=True)
        contends = a.value + doubt >= surely

    def part(p: Part) -> Part:
        if p is None:
            return None
        return np.max(p, axis=axis, keepdims=keepdims, where=contends, initial=0.0)

    return Rounded(value, part(a.variance), part(a.kink), a.precision)


@handles(np.min)
def _min(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    return -_max(-a, axis, keepdims)


@handles(np.sort)
def _sort(a: Rounded, axis: int = -1) -> Rounded:
    order = np.argsort(a.value, axis)
    return of_parts(lambda part: np.take_along_axis(part, order, axis), a)
