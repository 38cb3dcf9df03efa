"""MultiHeadAttention."""

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

_SELF, _CROSS = ((2, 3, 5), (2, 3, 5)), ((2, 3, 4), (2, 5, 4))
_KEYS = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], bool)
_PAIRS = np.array(np.resize([1, 0, 1, 1, 0, 1, 0], (2, 3, 5)), bool)
_PAIRS[1, 2] = False  # a query that sees nothing


def _case(name, shape, training=True, arguments=None, **options):
    def apply(layer, *tensors, **given):
        return layer(*tensors, **given)

    build = functools.partial(layers.MultiHeadAttention, 2, 3, **options)
    return Case(
        name, build, shape, training=training, arguments=arguments or {}, apply=apply,
        vanishing=("key/bias",),
    )  # fmt: skip


def _masks(call, x, mask):
    options = keras_compat.multi_head_options(call.layer)
    return output_masks(call, x, mask, options.window, len(options.axes))


@rule(
    layers.MultiHeadAttention,
    cases=[
        _case("self", _SELF),
        _case("cross", _CROSS),
        _case("key", (*_CROSS, (2, 5, 2)), value_dim=2, output_shape=(2, 3)),
        _case("no bias", _CROSS, use_bias=False),
        _case("gate", _CROSS, use_gate=True, value_dim=2),
        _case("pairs", _CROSS, arguments={"attention_mask": _PAIRS.astype("int32")}),
        _case("a mask for each head", _CROSS, arguments={"attention_mask": _PAIRS[:, None]}),
        _case("keys", _CROSS, arguments={"value_mask": _KEYS, "key_mask": ~_KEYS[::-1]}),
        _case("causal", _SELF, arguments={"use_causal_mask": True}),
        _case("window", _CROSS, sliding_window=2, arguments={"use_causal_mask": True}),
        _case("dropout", _CROSS, dropout=0.4, seed=3, arguments={"attention_mask": _PAIRS}),
        _case("causal dropout", _SELF, dropout=0.4, arguments={"use_causal_mask": True}),
        _case("inference", _CROSS, dropout=0.4, training=False, use_gate=True),
        _case("scores", _SELF, dropout=0.4, arguments={"return_attention_scores": True}),
        _case(
            "second axis",
            ((2, 3, 3, 2), (2, 3, 3, 2)),
            attention_axes=2,
            arguments={"use_causal_mask": True},
        ),
        _case("two axes", ((2, 2, 2, 3), (2, 1, 3, 3))),
    ],
    source="keras/src/layers/attention/multi_head_attention.py",
    takes_masks=True,
    mask=_masks,
    output_logits=scores_keep_logits,
)
def multi_head_attention(call, x):
    """Apply y = output(softmax(query(q) key(k)ᵀ / √H) value(v)), head by head.

    query, key, value and output are EinsumDense; the weights are masked, and dropped out.

    Shapes: q (N, T, ..., I), v and k (N, S, ..., J), in heads (N, T, ..., heads, H), weights
            (N, heads, T, S); y (N, T, ..., O), and the weights where they are asked for.
    VJP:    with W the weights: dW = dmixed valueᵀ; dvalue = Wᵀ dmixed; dscores = W (dW − Σₛ W dW);
            dquery = dscores key / √H; dkey = dscoresᵀ query / √H; then those of the projections.
            Σₛ dscores = 0, so the gradient of key's bias is 0, and only rounding is seen of it.
    Kinks:  none.
    """
    options = keras_compat.multi_head_options(call.layer)
    mask = keys_shown(call, x, options.window)
    mask = None if mask is None else mask.astype(bool)
    equations = options.scores, options.combine

    def attention(*heads):
        return dot_product_attention(call, equations, options.scale, heads, mask, options.rate)

    return attend_by_heads(call, x, attention)
