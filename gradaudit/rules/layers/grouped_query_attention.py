"""GroupQueryAttention."""

import functools

import numpy as np
from keras import layers

from gradaudit import keras_compat
from gradaudit.rules.layers.families.attention import (
    attend_by_heads,
    dot_product_attention,
    keys_shown,
    output_masks,
    scores_keep_logits,
)
from gradaudit.rules.registry import Case, rule

_CROSS = ((2, 3, 4), (2, 5, 4))
_QUERIES = np.array([[1, 1, 0], [0, 1, 1]], bool)
_PAIRS = np.array(np.resize([1, 0, 1, 1, 0, 1, 0], (2, 3, 5)), bool)


def _case(name, shape=_CROSS, training=True, arguments=None, heads=(4, 2), **options):
    def apply(layer, *tensors, **given):
        return layer(*tensors, **given)

    build = functools.partial(layers.GroupQueryAttention, 3, *heads, **options)
    return Case(
        name, build, shape, training=training, arguments=arguments or {}, apply=apply,
        vanishing=("key/bias",),
    )  # fmt: skip


@rule(
    layers.GroupQueryAttention,
    cases=[
        _case("self", ((2, 3, 4), (2, 3, 4))),
        _case("key", (*_CROSS, (2, 5, 2))),
        _case("one group", heads=(2, 1), use_bias=False),
        _case("as many groups", heads=(2, 2), use_gate=True),
        _case("pairs", arguments={"attention_mask": _PAIRS}),
        _case("queries", arguments={"query_mask": _QUERIES}, sliding_window=2),
        _case("causal", arguments={"use_causal_mask": True}),
        _case("dropout", dropout=0.4, seed=3, arguments={"attention_mask": _PAIRS.astype(float)}),
        _case("causal dropout", dropout=0.4, arguments={"use_causal_mask": True}),
        _case("inference", dropout=0.4, training=False, use_gate=True),
        _case("scores", arguments={"return_attention_scores": True}),
    ],
    source="keras/src/layers/attention/grouped_query_attention.py",
    mask=lambda call, x, mask: output_masks(call, x, mask, call.layer.sliding_window, 1),
    output_logits=scores_keep_logits,
)
def grouped_query_attention(call, x):
    """Apply multi-head attention in which groups of queries' heads share a key's and a value's.

    Shapes: q (N, T, I), v and k (N, S, J), in heads (N, T, heads, H) and (N, S, groups, H), weights
            (N, heads, T, S); y (N, T, I), and the weights where they are asked for.
    VJP:    that of MultiHeadAttention; dkey and dvalue of a group are sums over its heads.
    Kinks:  none.
    """
    layer = call.layer
    mask = keys_shown(call, x, layer.sliding_window)
    equations = "bkuh,bquh->buqk", "buqk,bkuh->bquh"

    def attention(query, *groups):
        heads = query, *(np.repeat(group, layer.num_repeats, axis=2) for group in groups)
        scale, rate = keras_compat.group_query_scale(layer), layer.dropout
        y, weights, vjp = dot_product_attention(call, equations, scale, heads, mask, rate)

        def summed_vjp(dy, dweights):
            dquery, *dheads = vjp(dy, dweights)
            apart = (*groups[0].shape[:3], layer.num_repeats, layer.head_dim)
            return dquery, *(dhead.reshape(apart).sum(axis=3) for dhead in dheads)

        return y, weights, summed_vjp

    return attend_by_heads(call, x, attention)
