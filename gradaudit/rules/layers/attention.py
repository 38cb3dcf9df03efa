"""Attention."""

import functools

import numpy as np
from keras import activations, layers

from gradaudit.rules.context import apply_activation
from gradaudit.rules.layers.families.attention import attend, query_mask, scores_keep_logits
from gradaudit.rules.primitives.attention import pair_sums
from gradaudit.rules.primitives.contraction import contract
from gradaudit.rules.registry import Case, rule

_CROSS = ((2, 3, 4), (2, 5, 4))
_WITH_KEY = (*_CROSS, (2, 5, 4))
_QUERIES = np.array([[1, 1, 0], [0, 1, 1]], bool)
_MASKS = [_QUERIES, np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], bool)]


def _case(name, shape=_CROSS, training=True, arguments=None, **options):
    build = functools.partial(layers.Attention, **options)
    return Case(name, build, shape, arguments=arguments or {}, training=training)


@rule(
    layers.Attention,
    cases=[
        _case("dot"),
        _case("scaled dot", _WITH_KEY, use_scale=True),
        _case("concat", score_mode="concat"),
        _case("scaled concat", _WITH_KEY, score_mode="concat", use_scale=True),
        _case("masks", arguments={"mask": _MASKS}),
        _case("mask of queries", arguments={"mask": [_QUERIES, None], "use_causal_mask": True}),
        _case("causal", arguments={"mask": _MASKS, "use_causal_mask": True}),
        _case("dropout", dropout=0.4, seed=3, arguments={"use_causal_mask": True}),
        _case("inference", dropout=0.4, training=False),
        _case("scores", dropout=0.4, arguments={"return_attention_scores": True}),
        _case("4-D", ((2, 2, 3, 4), (2, 2, 2, 4))),
    ],
    source="keras/src/layers/attention/attention.py",
    weights=("scale", "concat_score_weight"),
    mask=query_mask,
    output_logits=scores_keep_logits,
)
def attention(call, x):
    """Apply y = softmax(scores) v, with scores = scale q kᵀ or weight Σ tanh(scale (q + k)).

    Shapes: q (N, ..., T, I), v (N, ..., S, J), k (N, ..., S, I), v itself where it is not given;
            scale and weight (); scores (N, ..., T, S); y (N, ..., T, J), and softmax(scores) where
            it is asked for.
    VJP:    dq = scale dscores k; dk = scale dscoresᵀ q; dscale = Σ dscores q kᵀ. Or, with t the
            tanh: dz = weight (1 − t²) dscores; dq and dk are the sums of scale dz over keys and
            over queries; dscale = Σ (q + k) dz; dweight = Σ t dscores.
    Kinks:  none.
    """
    scores = _dots if call.layer.score_mode == "dot" else _sums_of_tanh
    return attend(call, x, *scores(call, x[0], x[-1]))


def _dots(call, query, key):
    dots, dots_vjp = contract("...td,...sd->...ts", query, key)
    scale = call.weights.get("scale")
    if scale is None:
        return dots, lambda dscores: (dots_vjp(dscores), {})
    return dots * scale, lambda dscores: (
        dots_vjp(dscores * scale),
        {"scale": (dscores * dots).sum()},
    )


def _sums_of_tanh(call, query, key):
    scale, weight = call.weights.get("scale"), call.weights["concat_score_weight"]
    sums, sums_vjp = pair_sums(query, key)
    t, tanh_vjp = apply_activation(activations.tanh, sums if scale is None else sums * scale)
    raw = t.sum(axis=-1)

    def vjp(dscores):
        cotangents = {"concat_score_weight": (dscores * raw).sum()}
        dz = tanh_vjp((dscores * weight)[..., None])
        if scale is None:
            return sums_vjp(dz), cotangents
        return sums_vjp(dz * scale), {**cotangents, "scale": (dz * sums).sum()}

    return raw * weight, vjp
