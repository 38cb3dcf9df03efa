"""AdditiveAttention."""

import functools

import numpy as np
from keras import activations, layers

from gradaudit.rules.context import apply_activation
from gradaudit.rules.layers.families.attention import attend, query_mask, scores_keep_logits
from gradaudit.rules.primitives.attention import pair_sums
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.registry import Case, rule

_CROSS = ((2, 3, 4), (2, 5, 4))
_MASKS = [np.array([[1, 1, 0], [0, 1, 1]]), np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]])]


def _case(name, shape=_CROSS, arguments=None, **options):
    build = functools.partial(layers.AdditiveAttention, **options)
    return Case(name, build, shape, arguments=arguments or {})


@rule(
    layers.AdditiveAttention,
    cases=[
        _case("default"),
        _case("no scale", (*_CROSS, (2, 5, 4)), use_scale=False),
        _case("masks", arguments={"mask": [part.astype(bool) for part in _MASKS]}),
        _case("causal dropout", dropout=0.4, arguments={"use_causal_mask": True}),
        _case("scores", arguments={"return_attention_scores": True}),
    ],
    source="keras/src/layers/attention/additive_attention.py",
    weights=("scale",),
    mask=query_mask,
    output_logits=scores_keep_logits,
)
def additive_attention(call, x):
    """Apply y = softmax(scores) v, scores = Σ scale tanh(q + k) over features.

    Shapes: q (N, T, I), v (N, S, J), k (N, S, I), v itself where it is not given; scale (I,);
            scores (N, T, S); y (N, T, J), and softmax(scores) where it is asked for.
    VJP:    with t the tanh: dscale = Σ t dscores; dz = scale (1 − t²) dscores; dq and dk are the
            sums of dz over keys and over queries.
    Kinks:  none.
    """
    sums, sums_vjp = pair_sums(x[0], x[-1])
    t, tanh_vjp = apply_activation(activations.tanh, sums)
    scale = call.weights.get("scale")

    def scores_vjp(dscores):
        dterms = dscores[..., None]
        if scale is None:
            return sums_vjp(tanh_vjp(dterms)), {}
        return sums_vjp(tanh_vjp(dterms * scale)), {"scale": unbroadcast(dterms * t, scale.shape)}

    return attend(call, x, (t if scale is None else t * scale).sum(axis=-1), scores_vjp)
