"""`Rounded`: an array that carries the rounding error of the computation that made it.

First order, independent roundings, errors added in quadrature. σ is the standard deviation of an
error, u the unit roundoff of the precision in which the framework does an operation. Rounding to
the nearest is off by anything up to half a unit in the last place, h(y) = u 2^⌊log₂|y|⌋, so one
rounding has the variance r(y) = h(y)²/3:

    y = a + b       σ² = σa² + σb² + r(y)
    y = a b         σ² = (b σa)² + (a σb)² + r(y)
    y = f(a)        σ² = (f'(a) σa)² + c² r(y)           c: the accuracy of f, |error| ≤ c h(y)
    y = Σᵢ aᵢ       σ² = Σ mᵢ σᵢ² + m u² Σ sₖ²/3 + r(y)    sₖ: the partial sums
    y = A B         as a sum of products, each of which rounds once more

The sum's middle term is that of n additions one after the other: a rounding of the partial sum sₖ
has variance u² sₖ²/3. In an order that has nothing to do with the terms' sizes the mean of sₖ² is
(k/n)² y² + k (n − k)/n² Σ aᵢ², that of a random walk from 0 to y (a Brownian bridge), and
Σ sₖ² = n y²/3 + n Σ aᵢ²/6. But each element walks a way of its own: P(Σ sₖ² > v times its mean)
falls off as exp(−π² v/12), so errors over the mean σ fall off exponentially, not as a Gaussian's
do, and among 10⁶ elements the largest would be near 8 σ. (Rows that are sorted by their class walk
even farther, up to Σ |aᵢ|/2 where y is 0.) So Σ sₖ² is found for each element from the partial sums
at a few places, in the orders in which TensorFlow's kernels add: one term after the other, the same
begun again half way, or even and odd terms in two accumulators; the largest counts, and the random
walk's where that is larger. Pairwise and other blocked summation stay below.

mᵢ says how often the term aᵢ stands in the sum; m is the mean of mᵢ, with 0 for terms that are 0.
As long as sₖ stays in one binade, adding a rounds off the part of a below the last place of sₖ,
each time the same: so equal terms are off by mᵢ times one error and not √mᵢ times, and the errors
that they bring are equal, too. For distinct terms m is 1. The products of an element of A B are
not looked through: they repeat at most as often as the factors in the row of A do, and as those in
the column of B, and the smaller variance counts.

In half precisions r(y) = h(y)²: with 8 or 11 bits, rows that are alike round alike, and constants
and kernels are off in the same way for all rows.

At a kink the framework may take either branch. An element that depends on such choices carries in
`kink` the sum of the differences, in size, that the other branches would make. An overflow of the
audited precision is a kink whose difference is infinite.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics.carrier import Carrier, Shaped
from gradaudit.numerics.elementary import (
    ELEMENTARY,
    POWER_ULPS,
    RECIPROCAL_ULPS,
    RSQRT_ULPS,
)
from gradaudit.numerics.precision import Precision, binade

DOUBT = 8.0
"""A comparison is doubtful where the two sides differ by at most this many σ."""

SHORT = 16
"""Terms of a sum from which on their order is looked at."""

UNBROKEN = 300
"""Terms that kernels add without a break: longer sums of products may begin again half way."""

IN_TURN = 48
"""Last columns of a product that kernels may sum by two accumulators in turn: three vectors."""

CACHED = 2**15
"""Elements of a matrix product that are summed together: their partial sums stay in the cache."""

Part = np.ndarray | None  # None: zero everywhere


def _plus(*parts: Part) -> Part:
    present = [part for part in parts if part is not None]
    return sum(present[1:], present[0]) if present else None


def _times(part: Part, factor: np.ndarray | float) -> Part:
    """Scale a variance; where it is zero it stays zero, whatever the factor."""
    return None if part is None else np.where(part == 0, 0.0, part * factor)


def _power_of_two(number: Any) -> bool:
    return isinstance(number, (int, float)) and abs(math.frexp(number)[0]) == 0.5


class Rounded(Carrier):
    """A float64 array with the variance of its rounding error.

    value: float64 array.
    variance: variance of the rounding error, of value's shape, or None for exact.
    kink: what the other branches of doubtful comparisons could change, or None.
    precision: the framework's precision that the value is held in.
    """

    __slots__ = ("kink", "precision", "variance")

    def __init__(self, value: ArrayLike, variance: Part, kink: Part, precision: Precision) -> None:
        self.value = np.asarray(value, np.float64)
        self.variance = None if variance is None else np.broadcast_to(variance, self.shape)
        self.kink = None if kink is None else np.broadcast_to(kink, self.shape)
        self.precision = precision

    @classmethod
    def stored(cls, value: ArrayLike, precision: Precision) -> "Rounded":
        """Return what a variable or constant of `precision` holds when set to `value`.

        Numbers that the precision can hold are exact, as are infinities; another number is off by
        what is lost.
        """
        value = np.asarray(value, np.float64)
        with np.errstate(invalid="ignore"):
            lost = np.where(np.isinf(value), 0.0, value - precision.nearest(value))
        lost *= lost
        return cls(value, lost if lost.any() else None, None, precision)

    def cast(self, precision: Precision) -> "Rounded":
        """Return the array after a cast: exact to a wider precision, one rounding to a narrower.

        An exact array becomes what the narrower precision holds in its place, exactly: weights and
        inputs are cast once for all rows of a batch, and that error does not average out.
        """
        narrower = precision.roundoff > self.precision.roundoff
        if not narrower and precision.largest >= self.precision.largest:
            return Rounded(self.value, self.variance, self.kink, precision)
        if self.variance is None and self.kink is None:
            return _rounded(precision.nearest(self.value), None, None, precision, ulps=0.0)
        return _rounded(self.value, self.variance, self.kink, precision, ulps=float(narrower))

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation of the rounding error, kinks aside; the shape of value."""
        return np.zeros(self.shape) if self.variance is None else np.sqrt(self.variance)

    @property
    def doubt(self) -> np.ndarray:
        """Half-width of the interval in which the framework's value must be expected."""
        doubt = DOUBT * self.sigma + (0.0 if self.kink is None else self.kink)
        return np.where(np.isnan(doubt), np.inf, doubt)

    def __repr__(self) -> str:
        return f"Rounded({self.value!r}, sigma={self.sigma!r}, precision={self.precision.name})"

    def __bool__(self) -> bool:
        raise UnsupportedFunctionError(
            "the truth value of a Rounded array was asked for, which drops its rounding error. "
            "Compare and choose with np.where(a > b, ...)."
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise UnsupportedFunctionError(
            "a Rounded array was asked to become a bare array, which drops its rounding error. "
            "Use NumPy functions that Rounded knows, or take .value where that is meant."
        )

    def __getitem__(self, key: Any) -> "Rounded":
        return _structural(lambda part: part[key], self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            what = f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            options = f" with {', '.join(kwargs)}=" if kwargs else ""
            raise UnsupportedFunctionError(
                f"{what}{options} was called on a Rounded array. Rules are pure NumPy without "
                "in-place operations: write y = a + b for a += b, and np.sum for np.add.reduce."
            )
        if ufunc in _UFUNCS:
            return _UFUNCS[ufunc](*inputs)
        if ufunc in ELEMENTARY:
            return _elementary(ufunc, *inputs)
        raise _unsupported(f"the ufunc {ufunc.__name__}")

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in _FUNCTIONS:
            raise _unsupported(f"numpy.{function.__name__}")
        return _FUNCTIONS[function](*args, **kwargs)


def exact(array: Any) -> Any:
    """Return an array of any arithmetic without its rounding error.

    For a term whose error cannot matter, or stands elsewhere: what is stationary in m is computed
    from exact(m); and as x s − m s is off by (x − m) times the error of s, and not by x and by m
    times it, its error is that of x exact(s) − m exact(s) + (x − m) (s − exact(s)).
    """
    return (
        Rounded(array.value, None, None, array.precision) if isinstance(array, Rounded) else array
    )


def estimated(array: Any, error: np.ndarray, kink: Part = None) -> Any:
    """Return an array of any arithmetic whose numbers are known to within an error, if it tells.

    kink: what other branches would change, where numbers were found at a kink.
    """
    if not isinstance(array, Rounded):
        return array
    kink = _plus(array.kink, kink if kink is not None and kink.any() else None)
    return Rounded(array.value, _plus(error**2, array.variance), kink, array.precision)


class Decision(Shaped):
    """The outcome of a comparison of Rounded arrays, and where rounding could turn it.

    value: bool array. doubtful: bool array of the same shape. precision: that of the operands.
    """

    __slots__ = ("doubtful", "precision")

    def __init__(self, value: np.ndarray, doubtful: np.ndarray, precision: Precision) -> None:
        self.value, self.doubtful, self.precision = value, doubtful, precision

    def __and__(self, other: "Decision | np.ndarray") -> "Decision":
        value, doubtful = getattr(other, "value", other), getattr(other, "doubtful", False)
        # Doubt on one side does not matter where the other side is surely false.
        undecided = (self.doubtful & (value | doubtful)) | (doubtful & (self.value | self.doubtful))
        return Decision(self.value & value, undecided, self.precision)

    def __or__(self, other: "Decision | np.ndarray") -> "Decision":
        return ~(~self & ~other)

    def __invert__(self) -> "Decision":
        return Decision(~self.value, self.doubtful, self.precision)

    def __bool__(self) -> bool:
        raise UnsupportedFunctionError(
            "a comparison of Rounded arrays was used as a truth value, which drops the doubt that "
            "rounding casts on it. Choose with np.where(a > b, ...)."
        )

    __array_ufunc__ = None

    def __getitem__(self, key: Any) -> "Decision":
        return self._moved(lambda part: part[key])

    def _moved(self, move: Callable) -> "Decision":
        return Decision(move(self.value), move(self.doubtful), self.precision)

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.where:
            return _where(*args, **kwargs)
        if function in _MOVING and args and args[0] is self:
            return self._moved(lambda part: function(part, *args[1:], **kwargs))
        raise _unsupported(f"numpy.{function.__name__} of a comparison")


def _unsupported(what: str) -> UnsupportedFunctionError:
    return UnsupportedFunctionError(
        f"{what} was called on a Rounded array, and no rounding rule is known for it. "
        "Write the rule with another NumPy function, or add one in gradaudit/numerics/rounded.py."
    )


def _rounded(
    value: np.ndarray,
    variance: Part,
    kink: Part,
    precision: Precision,
    ulps: float | np.ndarray = 1.0,
) -> Rounded:
    """Return a result that was rounded once to `precision`, with `ulps` u accuracy."""
    value = np.asarray(value)
    is_large = value.size and 2 * max(np.max(value), -np.min(value)) > precision.largest
    if np.any(ulps):
        own = binade(value)  # in place from here on: it is as large as the largest weight
        own *= own
        halves = precision.roundoff > 2.0**-24
        own *= precision.variance(ulps * precision.roundoff) / (1 if halves else 3)
        own += precision.smallest**2 * (value != 0)
        if is_large:  # an infinity is exact: what is infinite in float64 surely is so here
            own = np.where(np.isinf(value), 0.0, own)
        if variance is not None:
            own += variance
        variance = own
    if is_large:
        margin = 0.0 if variance is None else DOUBT * np.sqrt(variance)
        may_overflow = np.isfinite(value) & (np.abs(value) + margin > precision.largest)
        kink = _plus(np.where(may_overflow, np.inf, 0.0), kink)
    return Rounded(value, variance, kink, precision)


def _operands(*inputs: Any) -> list[Rounded]:
    """Lift exact operands (Python numbers, bare arrays) to the precision of the Rounded ones."""
    precisions = {x.precision for x in inputs if isinstance(x, (Rounded, Decision))}
    if len(precisions) != 1:
        raise UnsupportedFunctionError(
            f"arrays of {' and '.join(sorted(p.name for p in precisions))} met in one operation. "
            "A framework would cast one of them first: use the arithmetic's cast."
        )
    (precision,) = precisions
    return [
        x
        if isinstance(x, Rounded)
        else Rounded.stored(x, precision)
        if isinstance(x, (int, float))
        else Rounded(x, None, None, precision)
        for x in inputs
        if not isinstance(x, Decision)
    ]


def _structural(function: Callable, *arrays: Rounded) -> Rounded:
    """Apply a function that only moves elements to each part."""
    precision = arrays[0].precision

    def apply(parts: list[Part]) -> Part:
        if all(part is None for part in parts):
            return None
        filled = [np.zeros(a.shape) if p is None else p for a, p in zip(arrays, parts, strict=True)]
        return function(*filled)

    value = function(*[a.value for a in arrays])
    return Rounded(
        value, apply([a.variance for a in arrays]), apply([a.kink for a in arrays]), precision
    )


def _elementary(ufunc: np.ufunc, a: Rounded) -> Rounded:
    y = ufunc(a.value)
    slope = ELEMENTARY[ufunc].derivative(a.value, y)
    known, precision = ELEMENTARY[ufunc], a.precision
    ulps = known.accuracy(a.value, precision.roundoff > 2.0**-24)
    kink = _times(a.kink, np.abs(slope))
    if known.inside is not None:
        overflows = known.inside(a.value) > precision.largest
        if overflows.any():
            kink = _plus(np.where(overflows, np.abs(y), 0.0), kink)
    return _rounded(y, _times(a.variance, slope**2), kink, precision, ulps)


def _add(x: Any, y: Any, sign: float = 1.0) -> Rounded:
    a, b = _operands(x, y)
    return _rounded(
        a.value + sign * b.value, _plus(a.variance, b.variance), _plus(a.kink, b.kink), a.precision
    )


def _multiply(x: Any, y: Any) -> Rounded:
    a, b = _operands(x, y)
    return _rounded(
        a.value * b.value,
        _plus(_times(a.variance, b.value**2), _times(b.variance, a.value**2)),
        _plus(_times(a.kink, np.abs(b.value)), _times(b.kink, np.abs(a.value))),
        a.precision,
        ulps=float(not (_power_of_two(x) or _power_of_two(y))),
    )


def _divide(x: Any, y: Any) -> Rounded:
    a, b = _operands(x, y)
    quotient = a.value / b.value
    by_a, by_b = np.abs(1 / b.value), np.abs(quotient / b.value)
    return _rounded(
        quotient,
        _plus(_times(a.variance, by_a**2), _times(b.variance, by_b**2)),
        _plus(_times(a.kink, by_a), _times(b.kink, by_b)),
        a.precision,
        ulps=_reciprocal_ulps(a.precision) if _is(x, 1) else float(not _power_of_two(y)),
    )


def _is(operand: Any, number: float) -> bool:
    return isinstance(operand, (int, float)) and operand == number


def _reciprocal_ulps(precision: Precision) -> float:
    """Return the accuracy of 1 / x: kernels of half precisions take it in float32, and round."""
    return RECIPROCAL_ULPS if precision.roundoff <= 2.0**-24 else 1.0


def _power_ulps(power: Any, precision: Precision) -> float:
    if _is(power, -0.5):
        return RSQRT_ULPS
    return max(_reciprocal_ulps(precision), POWER_ULPS) if _is(power, -1) else POWER_ULPS


def _raise(x: Any, y: Any) -> Rounded:
    a, b = _operands(x, y)
    power = a.value**b.value
    by_a = np.abs(b.value * a.value ** (b.value - 1))
    by_b = None if b.variance is None else (power * np.log(a.value)) ** 2
    return _rounded(
        power,
        _plus(_times(a.variance, by_a**2), None if by_b is None else _times(b.variance, by_b)),
        _times(a.kink, by_a),
        a.precision,
        ulps=_power_ulps(y, a.precision),
    )


def _select(x: Any, y: Any, choose: np.ufunc, compare: np.ufunc) -> Rounded:
    """Maximum or minimum: continuous, so where either may win the larger variance counts."""
    a, b = _operands(x, y)
    decision = _compare(compare)(a, b)

    def part(p: Part, q: Part) -> Part:
        if p is None and q is None:
            return None
        p = np.zeros(a.shape) if p is None else p
        q = np.zeros(b.shape) if q is None else q
        return np.where(decision.doubtful, np.maximum(p, q), np.where(decision.value, p, q))

    value = choose(a.value, b.value)
    return Rounded(value, part(a.variance, b.variance), part(a.kink, b.kink), a.precision)


def _compare(ufunc: np.ufunc) -> Callable[[Any, Any], Decision]:
    def compare(x: Any, y: Any) -> Decision:
        a, b = _operands(x, y)
        doubt = np.hypot(a.doubt, b.doubt)
        doubtful = (doubt > 0) & ~(np.abs(a.value - b.value) > doubt)
        return Decision(ufunc(a.value, b.value), doubtful, a.precision)

    return compare


def _sign(a: Rounded) -> Rounded:
    decision = _compare(np.greater)(a, 0.0)
    kink = np.where(decision.doubtful, 2.0, 0.0) if decision.doubtful.any() else None
    return Rounded(np.sign(a.value), None, kink, a.precision)


def _repeating(terms: np.ndarray) -> bool:
    """Return whether terms of some sum repeat, to judge by a sample; zeros do not count.

    terms: those of each sum lie along the last axis.
    """
    n = terms.shape[-1]
    sums = terms.reshape(-1, n)
    with np.errstate(all="ignore"):
        sample = sums[:: len(sums) // 16 + 1, :: n // 65536 + 1].astype(np.float32)
    sample.sort()
    if not np.any((sample[:, 1:] == sample[:, :-1]) & (sample[:, 1:] != 0)):
        return False
    return bool(np.any(np.sum((_runs(sample) - 1.25) * (sample != 0), axis=-1) > 0))


def _repeats(terms: np.ndarray) -> np.ndarray:
    """Return how often each term stands among those of its sum, which lie along the last axis.

    Terms are equal that are so in float32: a float64 product may give equal rows results that
    differ in the last bit.
    """
    with np.errstate(all="ignore"):
        keys = terms.astype(np.float32, order="C").reshape(-1, terms.shape[-1])
    order = np.argsort(keys, axis=-1)
    repeats = np.empty(keys.shape)
    np.put_along_axis(repeats, order, _runs(np.take_along_axis(keys, order, -1)), -1)
    return repeats.reshape(terms.shape)


def _runs(ordered: np.ndarray) -> np.ndarray:
    """Return for each element of ordered rows the number of its row's elements equal to it."""
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    lengths = np.diff(np.flatnonzero(first), append=first.size)
    return np.repeat(lengths, lengths).reshape(ordered.shape)


def _in_order(
    block: Callable[[int, int, np.ndarray], Any], n: int, value: np.ndarray
) -> np.ndarray:
    """Put the sums of n terms into value, and return Σ sₖ² in the order of the terms.

    By the trapezoidal rule over blocks: that is right in the mean where the order within a block is
    random. block: puts the sums of the terms from one to another into an array of value's shape.
    """
    count = 2 * min(max(n // 256, 2), 8)
    block(0, n // count, value)
    squares, part = value**2, np.empty(value.shape)
    middle = again = None  # of a sum that begins again in the middle
    for i in range(1, count):
        block(n * i // count, n * (i + 1) // count, part)
        value += part
        if again is not None:
            np.subtract(value, middle, out=part)
            np.multiply(part, part, out=part)
            again += part if i + 1 < count else part / 2
        np.multiply(value, value, out=part)
        if n > UNBROKEN and i + 1 == count // 2:
            middle, again = value.copy(), squares + part / 2
        squares += part if i + 1 < count else part / 2
    if again is not None:
        np.copyto(squares, again, where=again > squares)  # what is not a number is left
    squares *= n / count
    return squares


def _in_order_of_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a @ b and Σ sₖ² in the order of its terms."""
    n, columns = a.shape[-1], b.shape[-1]
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], columns)
    a = a.reshape(-1, n) if b.ndim == 2 else a
    value = np.empty(shape if b.ndim > 2 else (len(a), columns))
    squares = np.empty(value.shape)
    step = len(value) if b.ndim > 2 else CACHED // max(columns, 1) + 1
    for i in range(0, len(value), step):
        rows = slice(i, i + step) if b.ndim == 2 else slice(None)

        def block(start: int, end: int, out: np.ndarray, rows: slice = rows) -> None:
            np.matmul(a[rows][..., start:end], b[..., start:end, :], out=out)

        squares[rows] = _in_order(block, n, value[rows])
    return value.reshape(shape), squares.reshape(shape)


def _product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Part]:
    """Return a @ b and Σ sₖ² in the order of its terms, or None where these are few.

    With e the partial sum of the even terms and o that of the odd ones, s = e + o and d = e - o,
    two accumulators in turn make Σ (eₖ² + oₖ²) over half as many k, which is Σ (sₖ² + dₖ²) / 4.
    """
    n = a.shape[-1]
    if n < SHORT:
        return a @ b, None
    value, squares = _in_order_of_product(a, b)
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    last = squares[..., -IN_TURN:]
    in_turn = _in_order_of_product(a, b[..., -IN_TURN:] * signs[:, None])[1]
    in_turn += last
    in_turn /= 4
    np.copyto(last, in_turn, where=in_turn > last)
    return value, squares


def _matmul(x: Any, y: Any) -> Rounded:
    a, b = _operands(x, y)
    if a.ndim == 1 or b.ndim == 1:
        wide = _matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        return wide.reshape((a.value @ b.value).shape)
    p, n = a.precision, a.shape[-1]
    value, squares = _product(a.value, b.value)
    aa, bb = a.value**2, b.value**2
    per_product = 2 * p.variance(p.product_roundoff)
    if n > 1:
        per_product += (1 / 3 + n / 18) * p.variance(p.matmul_roundoff)
    factor = _plus(b.variance, per_product * bb if per_product else None)
    columns = np.swapaxes(b.value, -1, -2)
    if n > 1 and _repeating(columns) and _repeating(a.value):
        repeats_a, repeats_b = _repeats(a.value), np.swapaxes(_repeats(columns), -1, -2)
        by_a, by_b = (aa * repeats_a) @ factor, aa @ (factor * repeats_b)
        if a.variance is not None:
            by_a += (a.variance * repeats_a) @ bb
            by_b += a.variance @ (bb * repeats_b)
        variance = np.minimum(by_a, by_b)
        count = np.minimum(
            np.sum(repeats_a * (a.value != 0), axis=-1, keepdims=True),
            np.sum(repeats_b * (b.value != 0), axis=-2, keepdims=True),
        )
    else:
        variance = None if factor is None else aa @ factor
        if a.variance is not None:
            from_a = a.variance @ bb
            if variance is not None:
                from_a += variance
            variance = from_a
        count = n
    if n > 1:
        per_addition = p.variance(p.matmul_roundoff) * count  # m n u²
        from_sum = value**2  # in place from here on
        from_sum *= per_addition / 9
        variance += from_sum
        if squares is not None:
            squares *= per_addition / (3 * n)
            np.copyto(variance, squares, where=squares > variance)
    kink = _plus(
        None if a.kink is None else a.kink @ np.abs(b.value),
        None if b.kink is None else np.abs(a.value) @ b.kink,
    )
    return _rounded(value, variance, kink, p)


def _sum(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    return _total(a, axis, keepdims, a.precision.accumulator(a.shape, axis))


def _total(a: Rounded, axis: Any, keepdims: bool, roundoff: float) -> Rounded:
    """Return the sum by an accumulator of unit roundoff `roundoff`."""

    def total(part: np.ndarray) -> np.ndarray:
        return np.sum(part, axis=axis, keepdims=keepdims)

    value = total(a.value)
    n = a.size // max(value.size, 1)
    p = a.precision
    variance, kink = a.variance, None if a.kink is None else total(a.kink)
    if n <= 1:
        return Rounded(value, None if variance is None else total(variance), kink, p)
    axes = range(a.ndim) if axis is None else np.atleast_1d(axis)

    def columns(part: np.ndarray) -> np.ndarray:
        return np.moveaxis(part, axes, range(len(axes))).reshape(n, -1)

    terms, count = columns(a.value), n
    if _repeating(terms.T):
        repeats = _repeats(terms.T).T
        count = np.sum(repeats * (terms != 0), axis=0).reshape(value.shape)
        if variance is not None:
            variance = np.sum(columns(variance) * repeats, axis=0).reshape(value.shape)
    elif variance is not None:
        variance = total(variance)
    squares = n * (value**2 / 3 + total(a.value**2) / 6)
    if n >= SHORT:
        here = _in_order(
            lambda start, end, out: np.sum(terms[start:end], axis=0, out=out),
            n,
            np.empty(terms.shape[1:]),
        )
        here = here.reshape(value.shape)
        squares = np.where(here > squares, here, squares)
    own = p.variance(roundoff) * count / (3 * n) * squares
    if (largest := float(np.max(np.abs(a.value)))) * n > p.largest:
        # A partial sum may overflow where the whole does not.
        kink = _plus(np.where(total(np.abs(a.value)) > p.largest, np.inf, 0.0), kink)
    if n * roundoff >= 1:
        # A term below half a unit of the partial sum is lost: a sum stands still where all are.
        lost = np.abs(value) * roundoff > largest
        kink = _plus(np.where(lost, np.abs(value), 0.0), kink)
    return _rounded(value, _plus(own, variance), kink, p)


def _mean(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    total = _total(a, axis, keepdims, a.precision.sum_roundoff)
    return _divide(total, a.size // max(total.size, 1))


def _max(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    """Of all elements that may be the largest, the variance that is largest counts."""
    value = np.max(a.value, axis=axis, keepdims=keepdims)
    if a.variance is None and a.kink is None:
        return Rounded(value, None, None, a.precision)
    doubt = np.where(np.isfinite(a.value), a.doubt, 0.0)
    surely = np.max(a.value - doubt, axis=axis, keepdims=True)
    contends = a.value + doubt >= surely

    def part(p: Part) -> Part:
        if p is None:
            return None
        return np.max(np.where(contends, p, 0.0), axis=axis, keepdims=keepdims)

    return Rounded(value, part(a.variance), part(a.kink), a.precision)


def _min(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    return -_max(-a, axis, keepdims)


def _cumsum(a: Rounded, axis: int) -> Rounded:
    value = np.cumsum(a.value, axis)
    partial = a.precision.variance(a.precision.sum_roundoff) * np.cumsum(value**2, axis)
    variance = None if a.variance is None else np.cumsum(a.variance, axis)
    kink = None if a.kink is None else np.cumsum(a.kink, axis)
    return _rounded(value, _plus(partial, variance), kink, a.precision, ulps=0.0)


def _sort(a: Rounded, axis: int = -1) -> Rounded:
    order = np.argsort(a.value, axis)
    return _structural(lambda part: np.take_along_axis(part, order, axis), a)


def _where(condition: Decision | np.ndarray, x: Any, y: Any) -> Rounded:
    doubted = isinstance(condition, Decision)
    a, b = _operands(condition, x, y) if doubted else _operands(x, y)
    outcome = condition.value if doubted else condition
    chosen = _structural(lambda p, q: np.where(outcome, p, q), a, b)
    for branch in (a, b):
        # Some kernels multiply by 0 or 1 instead, and 0 times an overflow is not a number.
        if branch.kink is not None and not np.isfinite(branch.kink).all():
            lost = np.where(np.isfinite(branch.kink), 0.0, np.inf)
            chosen.kink = np.broadcast_to(_plus(lost, chosen.kink), chosen.shape)
    if doubted and condition.doubtful.any():
        other = np.where(condition.doubtful, np.abs(a.value - b.value), 0.0)
        chosen.kink = np.broadcast_to(_plus(other, chosen.kink), chosen.shape)
    return chosen


def _clip(a: Rounded, low: Any, high: Any) -> Rounded:
    return np.minimum(np.maximum(a, low), high)


_UFUNCS: dict[np.ufunc, Callable] = {
    np.add: _add,
    np.subtract: lambda x, y: _add(x, y, -1.0),
    np.multiply: _multiply,
    np.true_divide: _divide,
    np.power: _raise,
    np.matmul: _matmul,
    np.maximum: lambda x, y: _select(x, y, np.maximum, np.greater),
    np.minimum: lambda x, y: _select(x, y, np.minimum, np.less),
    np.negative: lambda a: Rounded(-a.value, a.variance, a.kink, a.precision),
    np.absolute: lambda a: Rounded(np.abs(a.value), a.variance, a.kink, a.precision),
    np.sign: _sign,
    **{
        ufunc: _compare(ufunc)
        for ufunc in (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)
    },
}

_MOVING = (
    np.reshape,
    np.transpose,
    np.swapaxes,
    np.expand_dims,
    np.squeeze,
    np.broadcast_to,
    np.take_along_axis,
    np.flip,
    np.moveaxis,
    np.pad,
    np.repeat,
    np.roll,
    np.take,
    np.tile,
    np.lib.stride_tricks.sliding_window_view,
)
"""Functions that only move elements, or repeat some."""

_FUNCTIONS: dict[Callable, Callable] = {
    np.sum: _sum,
    np.mean: _mean,
    np.max: _max,
    np.min: _min,
    np.cumsum: _cumsum,
    np.sort: _sort,
    np.where: _where,
    np.clip: _clip,
    np.concatenate: lambda arrays, axis=0: _structural(
        lambda *parts: np.concatenate(parts, axis), *_operands(*arrays)
    ),
    np.stack: lambda arrays, axis=0: _structural(
        lambda *parts: np.stack(parts, axis), *_operands(*arrays)
    ),
    np.zeros_like: lambda a: Rounded(np.zeros(a.shape), None, None, a.precision),
    np.ones_like: lambda a: Rounded(np.ones(a.shape), None, None, a.precision),
    **{
        function: lambda a, *args, function=function, **kwargs: _structural(
            lambda part: function(part, *args, **kwargs), a
        )
        for function in _MOVING
    },
}


def handles(function: Callable) -> Callable[[Callable], Callable]:
    """Register the decorated function as what a NumPy function does with Rounded arrays."""

    def register(rule: Callable) -> Callable:
        _FUNCTIONS[function] = rule
        return rule

    return register
