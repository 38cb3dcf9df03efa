"""The checks at special points: zero cotangents where slopes are infinite, NaN, and exact ties.

Each check is a function (rule, case, subjects) that returns None, or raises `CheckFailure` with the
values that are wrong. They need nothing of Keras's but the objects that the rule is given.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gradaudit.errors import CheckFailure
from gradaudit.nets.precision import floats
from gradaudit.numerics import Arithmetic, Plain, Rounded, Rounding, numbers
from gradaudit.rules import Case, Rule
from gradaudit.testing.agreement import RELATIVE, random_cotangents
from gradaudit.testing.subject import Primals, Run, Subject
from gradaudit.testing.subjects import Subjects

_DOUBLE = Plain(np.float64)
_POINTS = (0.0, 1.0, -1.0)
"""Where powers, roots, logarithms, quotients and inverse functions have their singular points."""
_SHIFTS = (-100.7, -1.3, -0.29, 0.31, 1.7, 100.3)
"""What is added to a number to see what depends on it: it passes the kinks on either side, and does
not come to be equal to a whole number, such as the value of a mask."""


def zero_cotangent_makes_zero(rule: Rule, case: Case, subjects: Subjects) -> None:
    """A cotangent of zeros comes back as zeros, also where a slope or a quotient is not finite.

    Inputs and weights are 0, 1, −1 or a kink, one by one and all together; in float64, and with
    rounding errors, which are zero, too.
    """
    with floats("float64"), np.errstate(all="ignore"):
        found = subjects.of(rule, case)
        points = [*_filled(case, found, found.inputs), *_filled(case, found, tuple(found.primals))]
        for point, primals in points:
            for arithmetic in (_DOUBLE, Rounding()):
                run = found.run(rule, arithmetic, primals)
                dy = {name: _zeros(arithmetic, y.shape) for name, y in run.y.items()}
                for name, dx in run.vjp(dy).items():
                    _require_zero(name, dx, point)


def nan_makes_nan(rule: Rule, case: Case, subjects: Subjects) -> None:
    """What depends on a number is NaN where that number is NaN: outputs and cotangents.

    A number is one of an input, a weight or a cotangent of the output. What changes when the
    number does depends on it.
    """
    with floats("float64"), np.errstate(all="ignore"):
        found = subjects.of(rule, case)
        dy = random_cotangents(found.run(rule, _DOUBLE, found.primals).y)

        def results(primals: Primals, dy: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            run = found.run(rule, _DOUBLE, primals)
            back = {f"d{name}": np.array(dx) for name, dx in run.vjp(dy).items()}
            return {name: np.array(y) for name, y in run.y.items()} | back

        def require(name: str, changed: Any, shifts: tuple[float, ...]) -> None:
            first, *others = (changed(shift) for shift in shifts)
            depends = {key: np.zeros(value.shape, bool) for key, value in first.items()}
            for other in others:
                for key, value in other.items():
                    depends[key] |= value != first[key]
            for key, value in changed(np.nan).items():
                silent = depends[key] & ~np.isnan(value)
                if silent.any():
                    place = tuple(int(i) for i in np.argwhere(silent)[0])
                    raise CheckFailure(
                        f"{key}{list(place)} is {value[place]!r} where a number of {name} is NaN "
                        "that it depends on. Expected NaN: a comparison with NaN is false, so take "
                        "the constant where it is true, as np.where(x <= 0, 0, x) does"
                    )

        for name, value in found.primals.items():
            if value.size:
                at = np.unravel_index(value.size // 2, value.shape)
                require(
                    name,
                    lambda by, name=name, at=at: results(
                        {**found.primals, name: _shifted(found.primals[name], at, by)}, dy
                    ),
                    _SHIFTS,
                )
        for name, value in dy.items():
            at = np.unravel_index(value.size // 2, value.shape)
            require(
                f"d{name}",
                lambda by, name=name, at=at: results(
                    found.primals, {**dy, name: _shifted(dy[name], at, by)}
                ),
                _SHIFTS[2:4],
            )


def tie_gives_a_subgradient(rule: Rule, case: Case, subjects: Subjects) -> None:
    """At an exact tie the VJP lies between the slopes on both sides.

    Inputs are all 0, 1 or −1, at a kink, or tied. Along a direction v an output has the slopes
    s₊ = lim (f(x + h v) − f(x)) / h and s₋ = lim (f(x) − f(x − h v)) / h. Subgradients are the
    convex hull of the limits of gradients beside x (F. Clarke, Optimization and Nonsmooth Analysis,
    1983, th. 2.5.1): g · v lies between the two where f has one kink, and else between the products
    of such gradients with v. Differences that have not converged say nothing.
    """
    with floats("float64"), np.errstate(all="ignore"):
        found = subjects.of(rule, case)
        points = [("tied numbers", found.primals)] if case.ties else []
        points += _filled(case, found, found.inputs)
        for point, primals in points:
            run = found.run(rule, _DOUBLE, primals)
            for v in _directions(primals, found.inputs):
                below, above = (_slopes(rule, found, primals, run, v, side) for side in (-1, 1))
                for key, place in _places(below, above, run.mask):
                    dy = {name: np.zeros(y.shape) for name, y in run.y.items()}
                    dy[key][place] = 1.0
                    back = run.vjp(dy)
                    terms = [back[name] * d for name, d in v.items() if name in back]
                    ours = sum(float(term.sum()) for term in terms)
                    sides = [float(slope[key].value[place]) for slope in (below, above)]
                    error = below[key].error[place] + above[key].error[place]
                    error += RELATIVE * sum(float(np.abs(term).sum()) for term in terms)
                    if not min(sides) - error <= ours <= max(sides) + error:
                        sides += _beside(rule, found, primals, v, dy)
                        error += _NEAR * max(map(abs, sides))
                    if not min(sides) - error <= ours <= max(sides) + error:
                        raise CheckFailure(
                            f"at {point} the VJP of {key}{list(place)} gives {ours!r} "
                            f"in a direction in which the slope is {sides[0]!r} before and "
                            f"{sides[1]!r} behind. Expected a subgradient, which lies between them"
                        )


_NEAR = 1e-5
"""The part by which slopes at a distance of 1e-12 differ from those at a kink at ε = 1e-7."""


def _beside(
    rule: Rule, found: Subject, primals: Primals, v: Primals, dy: Mapping[str, np.ndarray]
) -> list[float]:
    """Return g · v for the gradients at points beside the tie: above, below, and at random.

    No two numbers are moved alike, which would leave them tied.
    """
    rng = np.random.default_rng(9)
    ways = [
        {name: rng.uniform(low, high, d.shape) for name, d in v.items()}
        for low, high in ((0.5, 1.0), (-1.0, -0.5), *[(-1.0, 1.0)] * 4)
    ]
    slopes = []
    for way in ways:
        back = found.run(rule, _DOUBLE, _moved(primals, way, 1e-12)).vjp(dy)
        slopes.append(sum(float(np.vdot(back[name], d)) for name, d in v.items() if name in back))
    return slopes


class _Slope(NamedTuple):
    """One-sided derivatives of an output, and how far off they may be."""

    value: np.ndarray
    error: np.ndarray


def _slopes(
    rule: Rule, found: Subject, primals: Primals, run: Run, v: Primals, side: int
) -> dict[str, _Slope]:
    """Return (f(x + s h v) − f(x)) / (s h) of each output, extrapolated, s the side.

    Of two steps h and h/2 the error of first order cancels: D = 2 D(h/2) − D(h). What remains is
    at most the change |D − D(h/2)|, and the rounding of f and of x, 8 u (|f| + |D| max |x|) / h. Of
    several h the one with the least error counts, for each element: a kink at ε = 1e-7 needs small
    ones.
    """
    size = max((float(np.max(np.abs(primals[name]), initial=0.0)) for name in v), default=0.0)
    best: dict[str, _Slope] = {}
    for h in (1e-5, 1e-9, 1e-13):
        whole, half = (
            {
                name: (y - run.y[name]) / (side * step)
                for name, y in found.run(rule, _DOUBLE, _moved(primals, v, side * step)).y.items()
            }
            for step in (h, h / 2)
        )
        for name in whole:
            value = 2 * half[name] - whole[name]
            rounded = np.abs(run.y[name]) + np.abs(value) * size
            error = np.abs(value - half[name]) + 8 * 2.0**-53 * rounded / h
            error = np.where(np.isfinite(error), error, np.inf)
            if name in best:
                better = error < best[name].error
                value = np.where(better, value, best[name].value)
                error = np.minimum(error, best[name].error)
            best[name] = _Slope(value, error)
    return best


def _places(
    below: Mapping[str, _Slope], above: Mapping[str, _Slope], mask: np.ndarray | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield an output's name and place: where the slopes differ most, and where they are largest.

    Only where their errors are below a hundredth of them, and where a mask of the rule does not
    leave the output out: it counts as a constant, and is no kink.
    """
    for key in below:
        a, b = below[key], above[key]
        size = np.maximum(np.abs(a.value), np.abs(b.value))
        known = (a.error + b.error) < 0.01 * np.maximum(size, 1e-3)
        if mask is not None:
            known &= np.expand_dims(mask, tuple(range(mask.ndim, size.ndim)))
        if known.any():
            for measure in (np.abs(a.value - b.value), size):
                most = int(np.argmax(np.where(known, measure, -1.0)))
                yield key, tuple(int(i) for i in np.unravel_index(most, size.shape))


def _directions(primals: Primals, names: tuple[str, ...]) -> Iterator[Primals]:
    """Yield directions in which the inputs are moved: all upwards, and each number its own way."""
    rng = np.random.default_rng(8)
    yield {name: np.ones(primals[name].shape) for name in names}
    yield {name: rng.choice([-1.0, -0.5, 0.5, 1.0], primals[name].shape) for name in names}


def _moved(primals: Primals, v: Primals, h: float) -> Primals:
    return {**primals, **{name: primals[name] + h * d for name, d in v.items()}}


def _filled(case: Case, found: Subject, names: tuple[str, ...]) -> Iterator[tuple[str, Primals]]:
    """Yield the primals with those of some names filled with a point; and the point in words."""
    for point in (*_POINTS, *case.kinks):
        filled = {name: np.full(found.primals[name].shape, point) for name in names}
        yield f"inputs of {point!r}", {**found.primals, **filled}


def _zeros(arithmetic: Arithmetic, shape: tuple[int, ...]) -> Any:
    return arithmetic.array(np.zeros(shape), "float64")


def _require_zero(name: str, dx: Any, point: str) -> None:
    value, sigma = numbers(dx), np.zeros(())
    if isinstance(dx, Rounded):
        sigma = dx.sigma + (0.0 if dx.kink is None else dx.kink)
    if np.any(value != 0) or np.any(sigma != 0):
        worst = value[value != 0][0] if np.any(value != 0) else sigma[sigma != 0][0]
        what = "is" if np.any(value != 0) else "has a rounding error of"
        raise CheckFailure(
            f"d{name} {what} {worst!r} at {point}, for a cotangent of zeros. Expected zeros: no "
            "change reaches the loss. Multiply a slope that may be infinite by "
            "gradaudit.numerics.chained(dy, slope)"
        )


def _shifted(array: np.ndarray, at: tuple[int, ...], by: float) -> np.ndarray:
    changed = array.copy()
    changed[at] += by
    return changed
