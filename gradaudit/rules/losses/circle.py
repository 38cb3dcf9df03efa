"""Circle loss of embeddings and their classes."""

import numpy as np
from keras import activations, losses

from gradaudit.numerics import PRECISIONS, chained_through
from gradaudit.rules.context import apply_activation
from gradaudit.rules.primitives.log_softmax import log_sum_exp
from gradaudit.rules.registry import Case, rule


def _case(name, shape=(6, 3), kinks=(), **options):
    return Case(name, lambda: losses.Circle(**options), shape, kinks, targets="integer")


def _positive(call, y_true, loss):
    return ~(call.numbers(loss) <= PRECISIONS[call.dtype].smallest)  # NaN counts


@rule(
    losses.circle,
    cases=[
        _case("gamma", gamma=1.5),
        _case("margin", gamma=2.0, margin=0.25, reduction="sum"),
        _case("with itself", gamma=1.0, remove_diagonal=False),
        _case("pairs without a partner", (4, 3), gamma=1.0),
        _case("mean", gamma=1.0, reduction="mean_with_sample_weight"),
        _case("no distance", (6, 4), (0.5,), gamma=1.0),
        _case("both at 0", (6, 2), (0.5,), gamma=1.0, margin=-0.5),
    ],
    source="keras/src/losses/losses.py",
    options=("gamma", "margin", "remove_diagonal"),
    mask=_positive,
)
def circle(call, y_true, y_pred):
    """Apply ℓᵢ = log(1 + Σⱼ exp a Σₖ exp b), j the others of i's class, k those of other classes.

    With the cosine distance d = max(1 − yᵢ · yⱼ, 0), γ and the margin m:
    a = −γ max(m + d, 0) (m − d), b = γ max(1 + m − d, 0) (1 − m − d). ℓᵢ = 0, and counts for
    nothing, where i has no j or no k. Losses that are 0 are masked.

    Shapes: y_true (N,) or (N, 1), y_pred (N, D), ℓ (N,).
    VJP:    da = σ dℓ exp a / Σ exp a, likewise db, with σ = 1 − exp(−ℓ);
            dd = −γ ([m + d ≥ 0] (m − d) − max(m + d, 0)) da
            − γ ([1 + m − d ≥ 0] (1 − m − d) + max(1 + m − d, 0)) db, 0 where yᵢ · yⱼ > 1;
            dy_pred = −(dd + ddᵀ) y.
    Kinks:  d = 0 and the two max at 0, where the slope counts.
    Gaps:   ref_labels and ref_embeddings.
    """
    gamma, m = call.options.get("gamma", 80), call.options.get("margin", 0.4)
    classes = np.asarray(y_true).astype(np.int32).reshape(-1, 1)
    same = classes == classes.T
    others = ~same
    if call.options.get("remove_diagonal", True):
        same = same & ~np.eye(len(classes), dtype=bool)
    known = same.any(axis=1) & others.any(axis=1)

    distance = 1.0 - y_pred @ y_pred.T
    d = np.maximum(distance, 0.0)
    near, far = m + d, (1 + m) - d
    to_near, to_far = m - d, (1 - m) - d
    below = -3e4 if call.dtype == "float16" else -1e30  # nothing is left of its exponential
    none = ~np.expand_dims(known, -1)  # whose sums do not count: any will do

    def total(x, among):
        return log_sum_exp(np.where(among | none, x, below), -1)

    p, p_part = total(-gamma * np.maximum(near, 0.0) * to_near, same)
    n, n_part = total(gamma * np.maximum(far, 0.0) * to_far, others)
    soft, soft_vjp = apply_activation(activations.softplus, (p + n)[..., 0])

    def vjp(dloss):
        dsum = np.expand_dims(soft_vjp(np.where(known, dloss, 0.0)), -1)
        da, db = -gamma * p_part * dsum, gamma * n_part * dsum
        dnear = chained_through(near, da, np.where(near >= 0.0, da * to_near, 0.0))
        dfar = chained_through(far, db, np.where(far >= 0.0, db * to_far, 0.0))
        dd = dnear - da * np.maximum(near, 0.0) - dfar - db * np.maximum(far, 0.0)
        ds = chained_through(distance, dd, np.where(distance >= 0.0, -dd, 0.0))
        return ds @ y_pred + ds.T @ y_pred

    return np.where(known, soft, 0.0), vjp
