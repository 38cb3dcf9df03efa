"""Complex numbers as pairs of arrays, and Fourier transforms.

A cotangent is a pair, too: that of the real part and that of the imaginary part. A linear function
with real factors acts on each part by itself. Of other functions only products are derived.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.tracing.tf_ops.table import op


class Complex:
    """re + i im; NumPy's linear functions act on each part."""

    def __init__(self, re: Array, im: Array) -> None:
        self.re, self.im = re, im

    @property
    def shape(self) -> tuple[int, ...]:
        return self.re.shape

    @property
    def ndim(self) -> int:
        return self.re.ndim

    @property
    def size(self) -> int:
        return self.re.size

    def __len__(self) -> int:
        return len(self.re)

    def __getitem__(self, key: Any) -> "Complex":
        return Complex(self.re[key], self.im[key])

    def __add__(self, other: "Complex") -> "Complex":
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: "Complex") -> "Complex":
        return Complex(self.re - other.re, self.im - other.im)

    def __neg__(self) -> "Complex":
        return Complex(-self.re, -self.im)

    def __mul__(self, other: "Complex") -> "Complex":
        return Complex(
            self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re
        )

    def __truediv__(self, other: Any) -> "Complex":
        if isinstance(other, Complex):
            raise UnsupportedFunctionError("a quotient of complex numbers")
        return Complex(self.re / other, self.im / other)

    @property
    def conjugate(self) -> "Complex":
        return Complex(self.re, -self.im)

    def reshape(self, *shape: Any) -> "Complex":
        return Complex(self.re.reshape(*shape), self.im.reshape(*shape))

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Complex":
        return Complex(*(x.sum(axis=axis, keepdims=keepdims) for x in (self.re, self.im)))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        raise UnsupportedFunctionError(f"numpy.{ufunc.__name__} of complex numbers")

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in _LINEAR:
            raise UnsupportedFunctionError(f"numpy.{function.__name__} of complex numbers")
        parts = [function(*_part(args, name), **kwargs) for name in ("re", "im")]
        return Complex(*parts)


_LINEAR = {
    np.broadcast_to, np.concatenate, np.expand_dims, np.flip, np.mean, np.moveaxis, np.pad,
    np.reshape, np.roll, np.squeeze, np.stack, np.sum, np.swapaxes, np.take, np.tile,
    np.transpose, np.zeros_like,
}  # fmt: skip
"""Functions that do to a complex number what they do to its parts."""

OF_COMPLEX = frozenset(
    "Add AddN AddV2 BroadcastTo Case Cast Complex ComplexAbs ConcatV2 Conj ExpandDims FFT FFT2D "
    "FFT3D GatherNd GatherV2 IFFT IFFT2D IFFT3D IRFFT Identity IdentityN If Imag Mean Mul Neg Pack "
    "Pad PartitionedCall PreventGradient RFFT Rank Real Reshape ReverseV2 Roll Select SelectV2 "
    "Shape ShapeN Size Slice Split SplitV Squeeze StatefulPartitionedCall StatelessCase "
    "StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum Tile Transpose Unpack While "
    "ZerosLike".split()
)
"""Types of ops whose entries take complex numbers."""


def _part(given: Any, name: str) -> Any:
    if isinstance(given, Complex):
        return getattr(given, name)
    if isinstance(given, (list, tuple)):
        return type(given)(_part(each, name) for each in given)
    return given


def multiplied(a: Complex, b: Complex) -> tuple[Complex, Callable]:
    """Return y = a b, and its VJP: da = dy times the conjugate of b, db alike."""

    def vjp(dy: Any) -> tuple[Any, Any]:
        da, db = dy * b.conjugate, dy * a.conjugate
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)

    return a * b, vjp


@op("Complex")
def make_complex(node, re, im):
    """Compute z = re + i im; dre = dz.re, dim = dz.im."""
    return Complex(re, im), lambda dz: (dz.re, dz.im)


@op("Real")
def real(node, z):
    """Compute y = the real part of z; dz.re = dy, dz.im = 0."""
    return z.re, lambda dy: Complex(dy, np.zeros_like(dy))


@op("Imag")
def imaginary(node, z):
    """Compute y = the imaginary part of z; dz.re = 0, dz.im = dy."""
    return z.im, lambda dy: Complex(np.zeros_like(dy), dy)


@op("Conj")
def conjugate(node, z):
    """Compute y = re − i im; dz = the conjugate of dy."""
    return z.conjugate, lambda dz: dz.conjugate


@op("ComplexAbs")
def absolute(node, z):
    """Compute y = √(re² + im²); dre = re dy / y, dim = im dy / y, and 0 at 0."""
    y = np.sqrt(np.square(z.re) + np.square(z.im))
    is_zero = node.numbers(y) == 0

    def vjp(dy):
        d = np.where(is_zero, 0.0, dy / np.where(is_zero, 1.0, y))
        return Complex(z.re * d, z.im * d)

    return y, vjp


def _transformed(node, z, sign):
    """Return Σⱼ zⱼ exp(sign 2πi jk / n) along the last axis.

    Even lengths are halved: J. Cooley and J. Tukey, An algorithm for the machine calculation of
    complex Fourier series, 1965.
    """
    n = z.shape[-1]
    if n == 1:
        return z
    if n % 2:
        angle = sign * 2 * np.pi / n * (np.outer(np.arange(n), np.arange(n)) % n)
        cos, sin = (_constants(node, part) for part in (np.cos(angle), np.sin(angle)))
        return Complex(z.re @ cos - z.im @ sin, z.re @ sin + z.im @ cos)
    even, odd = (_transformed(node, z[..., start::2], sign) for start in (0, 1))
    angle = sign * 2 * np.pi / n * np.arange(n // 2)
    cos, sin = (_constants(node, part) for part in (np.cos(angle), np.sin(angle)))
    turned = Complex(odd.re * cos - odd.im * sin, odd.re * sin + odd.im * cos)
    return np.concatenate([even + turned, even - turned], -1)


def _constants(node, value):
    complex_first = next(t.dtype for t in node.op.operation.inputs if not t.dtype.is_integer)
    return node.run.arithmetic.array(value, complex_first.real_dtype.name)


def _along(node, z, axes, sign):
    for axis in axes:
        z = np.moveaxis(_transformed(node, np.moveaxis(z, axis, -1), sign), -1, axis)
    return z


@op("FFT", "FFT2D", "FFT3D", "IFFT", "IFFT2D", "IFFT3D")
def fourier(node, z):
    """Compute yₖ = Σⱼ zⱼ exp(∓2πi jk / n) along the last axes, divided by n if inverse.

    VJP: dzⱼ = Σₖ dyₖ exp(±2πi jk / n), divided by n if inverse.
    """
    kind = node.op.kind
    axes = range(-int(kind[-2]), 0) if kind.endswith("D") else (-1,)
    sign, n = -1, 1
    if kind.startswith("I"):
        sign, n = 1, int(np.prod([z.shape[axis] for axis in axes]))

    def transform(z, sign):
        y = _along(node, z, axes, sign)
        return y if n == 1 else Complex(y.re / n, y.im / n)

    return transform(z, sign), lambda dy: transform(dy, -sign)


@op("RFFT")
def real_fourier(node, x, length):
    """Compute yₖ = Σⱼ xⱼ exp(−2πi jk / n) for k ≤ n / 2; x is cut, or padded with zeros, to n.

    VJP: dxⱼ = the real part of Σₖ dyₖ exp(2πi jk / n).
    """
    n, kept = int(length[0]), min(int(length[0]), x.shape[-1])
    short = _filled(x[..., :kept], n)
    y = _transformed(node, Complex(short, np.zeros_like(short)), -1)

    def vjp(dy):
        dx = _transformed(node, _filled(dy, n), 1).re
        return _filled(dx[..., :kept], x.shape[-1]), None

    return y[..., : n // 2 + 1], vjp


@op("IRFFT")
def inverse_real_fourier(node, z, length):
    """Compute yⱼ = 1/n Σₖ wₖ (reₖ cos(2π jk / n) − imₖ sin(2π jk / n)), k ≤ n / 2.

    w is 1 for k = 0 and n / 2, 2 elsewhere. VJP: dzₖ = wₖ / n Σⱼ dyⱼ exp(−2πi jk / n).
    """
    n = int(length[0])
    kept = min(n // 2 + 1, z.shape[-1])
    ends = (np.arange(kept) == 0) | (2 * np.arange(kept) == n)
    weights = _constants(node, np.where(ends, 1.0, 2.0))

    def weighed(z):
        return Complex(z.re * weights, z.im * weights)

    y = _transformed(node, _filled(weighed(z[..., :kept]), n), 1).re / n

    def vjp(dy):
        dz = weighed(_transformed(node, Complex(dy / n, np.zeros_like(dy)), -1)[..., :kept])
        return _filled(dz, z.shape[-1]), None

    return y, vjp


def _filled(x, n):
    if x.shape[-1] == n:
        return x
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])])
