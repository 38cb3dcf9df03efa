"""`Rounded`: an array that carries the rounding error of the computation that produced it.

The rounding model: first order, independent roundings, errors added in quadrature. σ is the
standard deviation of an error, u the unit roundoff of the precision in which the framework performs
an operation. Rounding to nearest errs by at most half a unit in the last place (ulp),
h(y) = u 2^⌊log₂|y|⌋, uniformly, so one rounding has the variance r(y) = h(y)²/3:

    y = a + b       σ² = σa² + σb² + r(y)                          elementwise.py
    y = a b         σ² = (b σa)² + (a σb)² + r(y)                  elementwise.py
    y = f(a)        σ² = (f'(a) σa)² + c² r(y)                     elementwise.py, elementary.py
    y = Σᵢ aᵢ       σ² = Σ mᵢ σᵢ² + m u² Σ sₖ²/3 + r(y)            sums.py, partial_sums.py
    y = A B         a sum of products, each rounded once more     products.py

c is the accuracy of f, |error| ≤ c h(y); sₖ are the partial sums; mᵢ and m are multiplicities.

Sums. The middle term belongs to n sequential additions: rounding the partial sum sₖ has the
variance u² sₖ²/3. Where the order of the terms is independent of their sizes, the partial sums are
a random walk from 0 to y (a Brownian bridge): the mean of sₖ² is (k/n)² y² + k (n − k)/n² Σ aᵢ²,
and Σ sₖ² = n y²/3 + n Σ aᵢ²/6. This mean alone is too small for many elements: each element has its
own walk, and P(Σ sₖ² > v times its mean) falls off as exp(−π² v/12). Errors divided by the mean σ
would then have exponential tails instead of Gaussian ones, and the largest of 10⁶ elements would be
near 8 σ. (Rows sorted by class walk even farther, up to Σ |aᵢ|/2 where y is 0.) So Σ sₖ² is
computed for each element from its partial sums at a few positions, in the orders in which
TensorFlow's kernels add: sequentially; sequentially with a restart half way; even and odd terms in
two accumulators. The largest of these and of the random walk counts. Pairwise and other blocked
summation err less.

Equal terms. mᵢ is the multiplicity of the term aᵢ among the terms of its sum; m is the mean of mᵢ,
with 0 for terms that are 0. While sₖ stays in one binade, adding a rounds off the part of a below
the last place of sₖ, the same part each time. So equal terms err by mᵢ times one error and not √mᵢ
times, and the errors that they carry are equal too. For distinct terms m is 1. The products of an
element of A B are not searched for equal ones: they repeat at most as often as the factors in the
row of A, and as those in the column of B; the smaller of the two variances counts. Runs of equal
rows of B, and terms in them that are alike to less than the last place of their sum: products.py.

Other errors that are shared. Elements that depend on one rounding do not err independently, and
the model has no term for that. Runs of the rules in float32 measure it: reference/kappa.py.

Half precisions. r(y) = h(y)²: with 8 or 11 bits, equal rows round alike, and constants and kernels
err in the same way for all rows.

Kinks. At a kink the framework may take either branch. `kink` of an element is the sum of the
absolute differences that the other branches would make. An overflow of the audited precision is a
kink with an infinite difference.

Source for one rounding: N. Higham, Accuracy and Stability of Numerical Algorithms (2002), ch. 2.
`benchmarks/calibrate_rounding.py` and the tests compare the model with TensorFlow's kernels.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics.carrier import Carrier
from gradaudit.numerics.decision import Decision
from gradaudit.numerics.dispatch import RULES, unsupported
from gradaudit.numerics.precision import Precision, binade

DOUBT = 8.0
"""A comparison is doubtful where the two sides differ by at most this many σ."""

LARGEST_SINGLE = 2.0**50
"""In a lower bound of σ larger numbers count as this one: their squares overflow float32."""

Part = np.ndarray | None
"""A variance or a kink; None means zero everywhere."""


class Rounded(Carrier):
    """A float64 array with the variance of its rounding error.

    value: float64 array.
    variance: variance of the rounding error, of value's shape, or None for exact.
    kink: largest change that other branches of doubtful comparisons could make, of value's shape,
        or None for no such change.
    precision: the framework's precision that the value is held in.
    """

    __slots__ = ("_single", "kink", "precision", "variance")

    carries = "rounding error"

    def __init__(
        self, value: ArrayLike, variance: ArrayLike | None, kink: Part, precision: Precision
    ) -> None:
        self.value = np.asarray(value, np.float64)
        self.variance: Part = None if variance is None else _of_shape(variance, self.value.shape)
        self.kink: Part = None if kink is None else _of_shape(kink, self.value.shape)
        self.precision = precision
        self._single: np.ndarray | None = None

    @property
    def squares(self) -> np.ndarray:
        """The squares of the values, as precise as variances are."""
        if not self.precision.bound:
            return self.value**2
        if self._single is None:
            single = _single(self.value)
            self._single = np.multiply(single, single, out=single)
        return self._single

    @classmethod
    def stored(cls, value: ArrayLike, precision: Precision) -> "Rounded":
        """Return what a variable or constant of `precision` holds when set to `value`.

        Error: σ = |value − nearest(value)|, so numbers that the precision can hold are exact, and
        infinities too.
        """
        value = np.asarray(value, np.float64)
        if precision.bound:
            return cls(value, None, None, precision)
        with np.errstate(invalid="ignore"):
            lost = np.where(np.isinf(value), 0.0, value - precision.nearest(value))
        lost *= lost
        return cls(value, lost if lost.any() else None, None, precision)

    def cast(self, precision: Precision) -> "Rounded":
        """Return the array after a cast: exact to a wider precision, one rounding to a narrower.

        An exact array becomes what the narrower precision holds, with no error: weights and inputs
        are cast once for all rows of a batch, and that error does not average out.
        """
        narrower = precision.roundoff > self.precision.roundoff
        if not narrower and precision.largest >= self.precision.largest:
            return Rounded(self.value, self.variance, self.kink, precision)
        if self.variance is None and self.kink is None:
            return round_once(precision.nearest(self.value), None, None, precision, ulps=0.0)
        return round_once(self.value, self.variance, self.kink, precision, ulps=float(narrower))

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation of the rounding error, without kinks; the shape of value."""
        if self.variance is None:
            return np.zeros(self.shape)
        if self.precision.bound:
            return np.sqrt(self.variance, dtype=np.float64) * self.precision.roundoff
        return np.sqrt(self.variance)

    @property
    def doubt(self) -> np.ndarray:
        """Half-width of the interval that holds the framework's value: DOUBT σ + kink."""
        doubt = DOUBT * self.sigma + (0.0 if self.kink is None else self.kink)
        return np.where(np.isnan(doubt), np.inf, doubt)

    def with_kink(self, kink: np.ndarray) -> "Rounded":
        """Return the array with `kink` added to its own; `kink` broadcasts to the array's shape."""
        return Rounded(self.value, self.variance, plus(kink, self.kink), self.precision)

    def __repr__(self) -> str:
        return f"Rounded({self.value!r}, sigma={self.sigma!r}, precision={self.precision.name})"

    def __bool__(self) -> bool:
        raise UnsupportedFunctionError(
            "a Rounded array was used as a truth value, which drops its rounding error. "
            "Compare and choose with np.where(a > b, ...)."
        )

    def __getitem__(self, key: Any) -> "Rounded":
        return of_parts(lambda part: part[key], self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            what = f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            options = f" with {', '.join(kwargs)}=" if kwargs else ""
            raise UnsupportedFunctionError(
                f"{what}{options} was called on a Rounded array. Rules are pure NumPy without "
                "in-place operations: write y = a + b for a += b, and np.sum for np.add.reduce."
            )
        if ufunc not in RULES:
            raise unsupported(f"the ufunc {ufunc.__name__}")
        return RULES[ufunc](*inputs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        if function not in RULES:
            raise unsupported(f"numpy.{function.__name__}")
        return RULES[function](*args, **kwargs)


def _of_shape(part: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(part, np.ndarray) and part.shape == shape:
        return part  # at once: broadcast_to takes as long as a small sum
    return np.broadcast_to(part, shape)


def exact(array: Any) -> Any:
    """Return an array of any arithmetic without its rounding error; the shape stays.

    For a term whose error cannot matter or is counted elsewhere. Where the result is stationary in
    m, it is computed from exact(m). In x s − m s an error of s is multiplied by x − m, and not by x
    and by m separately: the expression with that error is
    x exact(s) − m exact(s) + (x − m) (s − exact(s)).
    """
    return (
        Rounded(array.value, None, None, array.precision) if isinstance(array, Rounded) else array
    )


def estimated(array: Any, error: np.ndarray, kink: Part = None) -> Any:
    """Return an array that was estimated to within `error`: σ² = σ(array)² + error².

    An array of an arithmetic without errors is returned as it is.
    kink: largest change that other branches would make, where the estimate is next to a kink.
    Both have a shape that broadcasts to that of the array.
    """
    if not isinstance(array, Rounded) or array.precision.bound:
        return array
    kink = plus(array.kink, kink if kink is not None and kink.any() else None)
    return Rounded(array.value, plus(error**2, array.variance), kink, array.precision)


@overload
def plus(a: np.ndarray, b: Part) -> np.ndarray: ...
@overload
def plus(a: Part, b: Part) -> Part: ...
def plus(a: Part, b: Part) -> Part:
    """Return the sum of two variances, or of two kinks; shapes broadcast."""
    return b if a is None else a if b is None else a + b


def squared(factor: np.ndarray, of: Rounded) -> np.ndarray:
    """Return factor² in an array of its own, as precise as the variances of an array are."""
    if not of.precision.bound:
        return factor**2
    single = _single(factor)
    single *= single
    return single


def _single(value: np.ndarray) -> np.ndarray:
    """Return values in float32, at most LARGEST_SINGLE in size, in an array of their own."""
    single = np.array(value, np.float32)
    return np.clip(single, -LARGEST_SINGLE, LARGEST_SINGLE, out=single)


def times(part: Part, factor: np.ndarray | float) -> Part:
    """Return a variance or kink times `factor`: zero where it is zero, whatever the factor."""
    if part is None:
        return None
    made = part * factor
    if not np.isnan(np.max(made, initial=0.0)):  # as mostly
        return made
    return np.where(part == 0, 0.0, made)


def round_once(
    value: np.ndarray,
    variance: Part,
    kink: Part,
    precision: Precision,
    ulps: float | np.ndarray = 1.0,
) -> Rounded:
    """Return a result that the framework rounded once: σ² = variance + ulps² r(value).

    ulps: the accuracy c of the operation in units of h(value); 0 for an exact operation.
    Underflow adds smallest², and possible overflow of the precision an infinite kink.
    """
    value = np.asarray(value)
    if precision.bound:
        return _rounded_at_least(value, variance, precision, ulps)
    is_large = value.size and 2 * max(np.max(value), -np.min(value)) > precision.largest
    if np.any(ulps):
        own = binade(value)  # in place from here on: it may be as large as the largest weight
        own *= own
        own *= precision.variance(ulps * precision.roundoff) / (1 if precision.is_half else 3)
        own += precision.smallest**2 * (value != 0)
        if is_large:  # an infinity of float64 is an infinity in the framework: exact
            own = np.where(np.isinf(value), 0.0, own)
        if variance is not None:
            own += variance
        variance = own
    if is_large:
        margin = 0.0 if variance is None else DOUBT * np.sqrt(variance)
        may_overflow = np.isfinite(value) & (np.abs(value) + margin > precision.largest)
        kink = plus(np.where(may_overflow, np.inf, 0.0), kink)
    return Rounded(value, variance, kink, precision)


def _rounded_at_least(
    value: np.ndarray, variance: Part, precision: Precision, ulps: float | np.ndarray
) -> Rounded:
    """Return what `round_once` does, with float32 variances in units of u², and no kinks."""
    if ulps if isinstance(ulps, float) else np.any(ulps):
        own = _single(binade(value))
        own *= own
        own *= np.float32(1 / 3) if np.isscalar(ulps) and ulps == 1 else np.square(ulps) / 3
        if variance is not None:
            own += variance
        variance = own
    return Rounded(value, variance, None, precision)


@functools.lru_cache(1024)
def _constant(number: float, sign: float, precision: Precision) -> Rounded:
    """Return what the precision stores for a number; sign: its own, which 0 has, too."""
    return Rounded.stored(number, precision)


def operands(*inputs: Any) -> list[Rounded]:
    """Lift Python numbers and bare arrays to the precision of the Rounded arrays beside them.

    A Python number becomes what the precision stores; a bare array is exact. Decisions give their
    precision and are left out of the list. Raises UnsupportedFunctionError for two precisions.
    """
    if all(type(x) is Rounded and x.precision is inputs[0].precision for x in inputs):
        return list(inputs)
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
        else _constant(x, math.copysign(1.0, x), precision)
        if isinstance(x, (int, float))
        else Rounded(x, None, None, precision)
        for x in inputs
        if not isinstance(x, Decision)
    ]


def of_parts(function: Callable[..., np.ndarray], *arrays: Rounded) -> Rounded:
    """Apply a function that only moves or chooses elements to values, variances and kinks alike."""

    def apply(parts: list[Part]) -> Part:
        if all(part is None for part in parts):
            return None
        dtype = next(part.dtype for part in parts if part is not None)
        filled = [
            np.zeros(a.shape, dtype) if p is None else p for a, p in zip(arrays, parts, strict=True)
        ]
        return function(*filled)

    return Rounded(
        function(*[a.value for a in arrays]),
        apply([a.variance for a in arrays]),
        apply([a.kink for a in arrays]),
        arrays[0].precision,
    )
