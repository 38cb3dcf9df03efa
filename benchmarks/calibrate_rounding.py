"""Measures the constants of the rounding model against TensorFlow on this machine.

    python benchmarks/calibrate_rounding.py

Prints, for each function of numerics/elementary.py, its largest error in units of half a unit in
the last place (the table's `ulps` must not be below it); the same for powers; and for sums and
matrix products of growing length, the largest error in σ of the rounding model, in graph mode and
under XLA: of distinct terms, of terms that repeat, of sorted terms, and of both. Then how float32
products are added, which the model follows: of 10⁶ elements of products, the largest error in σ
and the rms, and in which order of addition a product comes out bit for bit. Last, in which order
the gradient of a bias does.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from scipy import special

from gradaudit.numerics import PRECISIONS, Rounded
from gradaudit.numerics.elementary import ELEMENTARY, POWER_ULPS, RECIPROCAL_ULPS, RSQRT_ULPS
from gradaudit.numerics.precision import binade

FUNCTIONS = {
    np.exp: (tf.exp, (-80.0, 80.0)),
    np.expm1: (tf.math.expm1, (-10.0, 10.0)),
    np.log: (tf.math.log, (1e-7, 20.0)),
    np.log1p: (tf.math.log1p, (0.0, 1.0)),
    np.sqrt: (tf.sqrt, (1e-12, 100.0)),
    np.square: (tf.square, (-10.0, 10.0)),
    np.tanh: (tf.tanh, (-12.0, 12.0)),
    special.erf: (tf.math.erf, (-5.0, 5.0)),
    special.erfc: (tf.math.erfc, (-4.0, 9.0)),
    special.expit: (tf.sigmoid, (-30.0, 30.0)),
    np.sin: (tf.sin, (-30.0, 30.0)),
    np.cos: (tf.cos, (-30.0, 30.0)),
    np.tan: (tf.tan, (-1.5, 1.5)),
    np.arcsin: (tf.asin, (-1.0, 1.0)),
    np.arccos: (tf.acos, (-1.0, 1.0)),
    np.arctan: (tf.atan, (-30.0, 30.0)),
    np.sinh: (tf.sinh, (-30.0, 30.0)),
    np.cosh: (tf.cosh, (-30.0, 30.0)),
    np.arcsinh: (tf.asinh, (-30.0, 30.0)),
    np.arccosh: (tf.acosh, (1.0, 30.0)),
    np.arctanh: (tf.atanh, (-1.0, 1.0)),
}
LENGTHS = (1, 4, 16, 64, 256, 1024, 10_000, 100_000)
COLUMNS = (8, 32, 64)
MODES = {"graph": False, "XLA": True}


def elementary() -> None:
    """Print the largest error of each function: a grid in float32, every number in the halves."""
    for name, smallest in (("float32", 2.0**-126), ("float16", 2.0**-14), ("bfloat16", 2.0**-126)):
        precision = PRECISIONS[name]
        print(f"\n{name}\nfunction   table   " + "  ".join(f"{mode:>6}" for mode in MODES))
        for ufunc, (function, (low, high)) in FUNCTIONS.items():
            if name == "float32":
                near = np.geomspace(1e-6, high, 200_001)
                x = np.concatenate(
                    [np.linspace(low, high, 200_001), near, -near if low < 0 else near]
                )
            else:
                every = np.arange(2**16, dtype=np.uint16)
                dtype = tf.dtypes.as_dtype(name).as_numpy_dtype
                with np.errstate(invalid="ignore"):
                    x = every.view(dtype).astype(np.float64)
                x = x[(np.abs(x) > 1e-6) & (x >= low) & (x <= high)]
            given = tf.cast(x, name)
            x = np.asarray(given, np.float64)
            right = ufunc(x)
            half = precision.roundoff * 2.0 ** np.floor(
                np.log2(np.maximum(np.abs(right), smallest))
            )
            normal = (np.abs(right) > smallest) & (np.abs(right) < precision.largest / 2)
            known, row = ELEMENTARY[ufunc], []
            accuracy = known.accuracy(x, halves=name != "float32")
            table = np.max(accuracy)  # where it is not the same everywhere, errors are scaled to it
            if known.inside is not None:
                normal &= known.inside(x) < precision.largest
            for jit in MODES.values():
                y = np.asarray(tf.function(function, jit_compile=jit)(given), np.float64)
                errors = np.where(normal, np.abs(y - right) / half, 0)
                row.append(np.max(errors / accuracy) * table)
            print(f"{ufunc.__name__:<10}{table:6.1f}   " + "  ".join(f"{e:6.2f}" for e in row))


def powers() -> None:
    """Print the largest error of x^p, and of 3 / sqrt(x), which TensorFlow takes by rsqrt."""
    dense = np.geomspace(1e-3, 1e3, 400_001).astype(np.float32)
    counts = np.arange(1, 800).astype(np.float32)
    base = np.float32(0.9)
    cases = {
        "3/sqrt(x)": (lambda x: 3 * tf.ones_like(x) / tf.sqrt(x), lambda x: 3 * x**-0.5, dense),
        "x^-0.5": (lambda x: tf.pow(x, -0.5), lambda x: x**-0.5, dense),
        "1/x": (lambda x: 1 / x, lambda x: 1 / x, dense),
        "x^-1": (lambda x: tf.pow(x, -1.0), lambda x: 1 / x, dense),
        "x^0.5": (lambda x: tf.pow(x, 0.5), lambda x: x**0.5, dense),
        "x^2": (lambda x: tf.pow(x, 2.0), lambda x: x**2, dense),
        "x^-0.75": (lambda x: tf.pow(x, -0.75), lambda x: x**-0.75, dense),
        "0.9^x": (lambda x: tf.pow(base, x), lambda x: np.float64(base) ** x, counts),
    }
    print(f"\npowers, float32; table: {POWER_ULPS}, of x^-0.5 and 1/sqrt {RSQRT_ULPS}", end="")
    print(f", of 1/x {RECIPROCAL_ULPS}")
    for name, (function, right, x) in cases.items():
        wanted, row = right(x.astype(np.float64)), []
        for jit in MODES.values():
            y = np.asarray(tf.function(function, jit_compile=jit)(tf.constant(x)), np.float64)
            row.append(np.max(np.abs(y - wanted) / (2.0**-24 * binade(wanted))))
        print(f"{name:<10}" + "  ".join(f"{e:6.2f}" for e in row))


def _tf_rows(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(b, 0)


def _tf_bias(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.BiasAddGrad(out_backprop=b)


def _tf_columns(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a, 1)


def distinct(rng: np.random.Generator, n: int, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return A and B whose terms are distinct and in no order."""
    a, b = rng.standard_normal((8, n)), rng.standard_normal((n, 8))
    return (np.abs(a), np.abs(b)) if positive else (a, b)


def repeated(rng: np.random.Generator, n: int, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return A and B that repeat four rows, in no order."""
    a, b = distinct(rng, n, positive)
    rows = rng.integers(0, min(n, 4), n)
    return a[:, rows], b[rows]


def in_order(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch sorted by its gradient."""
    rows = np.argsort(b[:, 0])
    return np.abs(a[:, rows]), np.sort(b, axis=0)


BATCHES = {
    "distinct": distinct,
    "repeated": repeated,
    "sorted": lambda *drawn: in_order(*distinct(*drawn)),
    "both": lambda *drawn: in_order(*repeated(*drawn)),
}


def accumulation() -> None:
    """Print the largest error of sums and products in σ, over precisions, modes and lengths."""
    operations = {
        "A B": (tf.matmul, np.matmul),
        "Σ rows": (_tf_rows, lambda a, b: np.sum(b, axis=0)),
        "Σ bias": (_tf_bias, lambda a, b: np.sum(b, axis=0)),
        "Σ columns": (_tf_columns, lambda a, b: np.sum(a, axis=1)),
    }
    print("\nlargest error in σ                " + "".join(f"{n:>9}" for n in LENGTHS))
    for terms, draw in BATCHES.items():
        rng = np.random.default_rng(0)
        for name in ("float32", "float64", "float16", "bfloat16"):
            precision = PRECISIONS[name]
            for mode, jit in MODES.items():
                for label, (theirs, ours) in operations.items():
                    compiled = tf.function(theirs, jit_compile=jit)
                    row = []
                    for n in LENGTHS:
                        worst = 0.0
                        for positive in (False, True):
                            ta, tb = (tf.cast(drawn, name) for drawn in draw(rng, n, positive))
                            exact = [
                                Rounded(np.asarray(t, np.float64), None, None, precision)
                                for t in (ta, tb)
                            ]
                            y, right = np.asarray(compiled(ta, tb), np.float64), ours(*exact)
                            error = np.abs(y - right.value)
                            if right.kink is None:  # else it overflows, or stands still
                                error /= np.maximum(right.sigma, 1e-300)
                                worst = max(worst, float(np.max(error)))
                        row.append(worst)
                    figures = "".join(f"{value:9.2f}" for value in row)
                    print(f"{terms:<8} {name:>9} {mode:<6} {label:<9}" + figures)


def elements() -> None:
    """Print the largest error of 10⁶ elements in σ, and the rms: each has its own partial sums."""
    lengths = (18, 72, 288, 576, 1024)
    print("\nlargest error of 10⁶ elements in σ, and rms" + "".join(f"{n:>13}" for n in lengths))
    rng = np.random.default_rng(0)
    compiled = {mode: tf.function(tf.matmul, jit_compile=jit) for mode, jit in MODES.items()}
    for columns in COLUMNS:
        found = {mode: [] for mode in MODES}
        for n in lengths:
            z = {mode: [] for mode in MODES}
            for _ in range(20):
                a = rng.standard_normal((50_000 // columns, n)).astype(np.float32)
                b = rng.standard_normal((n, columns)).astype(np.float32)
                exact = [
                    Rounded(np.asarray(part, np.float64), None, None, PRECISIONS["float32"])
                    for part in (a, b)
                ]
                right = exact[0] @ exact[1]
                for mode in MODES:
                    error = np.asarray(compiled[mode](a, b), np.float64) - right.value
                    z[mode].append(np.abs(error) / right.sigma)
            for mode in MODES:
                rms = np.sqrt(np.mean(np.square(z[mode])))
                found[mode].append(f"{np.max(z[mode]):8.2f} {rms:4.2f}")
        for mode, row in found.items():
            print(f"A B of {columns:3} columns, {mode:<26}" + "".join(row))


def _added(a: np.ndarray, b: np.ndarray, block: int, accumulators: int) -> np.ndarray:
    """Return a @ b in float32 by fused multiply-adds, in turn, each block of terms from 0."""
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for start in range(0, a.shape[1], block):
        parts = [np.zeros_like(total) for _ in range(accumulators)]
        for i in range(start, min(start + block, a.shape[1])):
            product = np.outer(a[:, i].astype(np.float64), b[i].astype(np.float64))
            k = (i - start) % accumulators
            parts[k] = (parts[k] + product).astype(np.float32)
        total = total + sum(parts[1:], parts[0])
    return total


def orders() -> None:
    """Print the order of addition that most elements of a product agree with, bit for bit."""
    rng = np.random.default_rng(0)
    print("\nproduct           in order of                           elements that agree")
    for n in (72, 288, 300, 576):
        for columns in COLUMNS:
            a = rng.standard_normal((512, n)).astype(np.float32)
            b = rng.standard_normal((n, columns)).astype(np.float32)
            for mode, jit in MODES.items():
                y = np.asarray(tf.function(tf.matmul, jit_compile=jit)(a, b))[:16]
                agree, block, accumulators = max(
                    (float(np.mean(y == _added(a[:16], b, block, k))), block, k)
                    for block in {n, n // 2, min(n, 512)}
                    for k in (1, 2, 4)
                )
                how = f"blocks of {block}, {accumulators} in turn"
                print(f"512 {n} {columns:<3} {mode:<8} {how:<36} {agree:8.2f}")


def biases() -> None:
    """Print how many elements of BiasAddGrad are those of a sum in the half precision itself."""
    print("\nBiasAddGrad, one row after the other in the half precision: elements that agree")
    rng = np.random.default_rng(0)
    for name in ("float16", "bfloat16"):
        for mode, jit in MODES.items():
            compiled = tf.function(_tf_bias, jit_compile=jit)
            row = []
            for n in (16, 180, 2048):
                dy = tf.cast(rng.standard_normal((n, 32)), name).numpy()
                ours = np.add.accumulate(dy, axis=0)[-1]
                row.append(np.mean(compiled(dy, dy).numpy() == ours))
            print(f"{name:>9} {mode:<6}" + "".join(f"{share:8.2f}" for share in row))


if __name__ == "__main__":
    elementary()
    powers()
    accumulation()
    elements()
    orders()
    biases()
