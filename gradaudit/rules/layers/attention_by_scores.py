"""What Attention and AdditiveAttention do alike, once each has its scores."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import activations

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall, apply_activation
from gradaudit.rules.layers.dot_product_attention import weighted
from gradaudit.rules.layers.dropout import dropped


def query_mask(call: LayerCall, x: tuple[Array, ...], mask: list | None) -> np.ndarray | None:
    """Return the output's mask: that of the query, the first of several."""
    return None if mask is None else mask[0]


def pair_sums(query: Array, key: Array) -> tuple[Array, Callable]:
    """Return q + k for each pair, (N, ..., T, S, I), and the VJP."""
    sums = query[..., :, None, :] + key[..., None, :, :]
    return sums, lambda dsums: (dsums.sum(axis=-2), dsums.sum(axis=-3))


def attend(
    call: LayerCall, x: tuple[Array, ...], scores: Array, scores_vjp: Callable
) -> tuple[Any, Callable]:
    """Return y = drop(softmax(scores)) v, with its first factor where it is asked for, and the VJP.

    x: query, value and, unless value serves, key. scores_vjp: dscores to ((dquery, dkey),
    cotangents). Scores that are masked are less by 10⁹, and y is 0 for a query that is masked.
    """
    of_query, of_value = (call.arguments.get("mask") or (None, None))[:2]
    shown = _visible(scores.shape, of_value, bool(call.arguments.get("use_causal_mask")))
    if shown is not None:
        # 6e4 stands for Keras's 65504, to which scores cannot be added in float16.
        far = 6e4 if call.dtype == "float16" else 1e9
        scores = np.where(shown, scores, scores - far)
    y, weights, weighted_vjp = weighted(
        "...ts,...sd->...td", scores, x[1], functools.partial(_dropped_softmax, call)
    )
    kept = None if of_query is None else of_query.astype(bool)[..., None]
    asked = bool(call.arguments.get("return_attention_scores"))

    def vjp(dy: Any) -> tuple[tuple[Array, ...], dict[str, Array]]:
        dy, dweights = dy if asked else (dy, None)
        dscores, dvalue = weighted_vjp(dy if kept is None else np.where(kept, dy, 0.0), dweights)
        (dquery, dkey), cotangents = scores_vjp(dscores)
        return (dquery, dvalue, dkey) if len(x) == 3 else (dquery, dvalue + dkey), cotangents

    y = y if kept is None else np.where(kept, y, 0.0)
    return (y, weights) if asked else y, vjp


def _dropped_softmax(call: LayerCall, scores: Array) -> tuple[Array, Callable]:
    weights, softmax_vjp = apply_activation(activations.softmax, scores)
    y, dropout_vjp = dropped(call, weights, call.layer.dropout)
    return y, lambda dy: softmax_vjp(dropout_vjp(dy)[0])


def _visible(
    scores: tuple[int, ...], of_value: np.ndarray | None, causal: bool
) -> np.ndarray | None:
    """Return which scores count, or None for all; the shape is broadcast to that of the scores."""
    if of_value is not None:
        of_value = of_value.astype(bool)
        if causal or of_value.ndim == 2:
            of_value = of_value[..., None, :]
    if not causal:
        return of_value
    before = np.arange(scores[-2])[None, :, None] >= np.arange(scores[-1])
    return before if of_value is None else of_value & before
