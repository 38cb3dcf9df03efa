"""Dice and Tversky losses: 1 minus a quotient of overlap and size."""

from keras import losses

from gradaudit.numerics import chained, divided
from gradaudit.rules.losses.reduction import along
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/losses/losses.py"


def _cases(loss, **options):
    def case(name, shape=(5, 3), inputs="probability", **more):
        return Case(name, lambda: loss(**options, **more), shape, (), "binary", inputs)

    return [
        case("default"),
        case("rows", axis=-1),
        case("images", (2, 3, 3, 2), axis=(1, 2, 3), reduction="sum"),
        case("columns", (4, 3, 2), axis=0),
    ]


def _one_minus(overlap, size):
    """Return 1 − a/b and its VJP: da = −dℓ / b, db = dℓ (a/b) / b."""
    quotient = overlap / size
    return 1.0 - quotient, lambda d: (divided(-d, size), chained(d, quotient / size))


@rule(losses.dice, cases=_cases(losses.Dice), source=_SOURCE)
def dice(call, y_true, y_pred):
    """Apply ℓ = 1 − a/b, a = 2 Σ t y, b = Σ t + Σ y + ε, over axes, or over all.

    Shapes: y_true and y_pred (N, ..., M), ℓ () or what the axes leave.
    VJP:    dy_pred = 2 t da + db.
    Kinks:  none; at b = 0 the loss ends.
    """
    axis = call.options.get("axis")
    t = call.array(y_true)
    overlap = 2.0 * (t * y_pred).sum(axis=axis)
    loss, quotient_vjp = _one_minus(
        overlap, t.sum(axis=axis) + y_pred.sum(axis=axis) + call.epsilon
    )

    def vjp(d):
        da, db = (along(part, axis) for part in quotient_vjp(d))
        return 2.0 * da * t + db

    return loss, vjp


@rule(
    losses.tversky,
    cases=[*_cases(losses.Tversky), *_cases(losses.Tversky, alpha=0.2, beta=0.9)[1:3]],
    source=_SOURCE,
)
def tversky(call, y_true, y_pred):
    """Apply ℓ = 1 − a/b, a = Σ t y, b = a + α Σ (1 − y) t + β Σ y (1 − t) + ε, over axes, or all.

    Keras calls Σ (1 − y) t, what y misses of t, false positives.

    Shapes: y_true and y_pred (N, ..., M), ℓ () or what the axes leave.
    VJP:    dy_pred = t (da + db) − α t db + β (1 − t) db.
    Kinks:  none; at b = 0 the loss ends.
    """
    axis = call.options.get("axis")
    alpha, beta = call.options.get("alpha", 0.5), call.options.get("beta", 0.5)
    t = call.array(y_true)
    overlap = (t * y_pred).sum(axis=axis)
    missed, wrong = ((1.0 - y_pred) * t).sum(axis=axis), (y_pred * (1.0 - t)).sum(axis=axis)
    size = overlap + missed * alpha + wrong * beta + call.epsilon
    loss, quotient_vjp = _one_minus(overlap, size)

    def vjp(d):
        da, db = quotient_vjp(d)
        both, missing, extra = (along(part, axis) for part in (da + db, db * alpha, db * beta))
        return both * t - missing * t + extra * (1.0 - t)

    return loss, vjp
