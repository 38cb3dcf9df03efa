"""Embedding and ReversibleEmbedding."""

import functools

import numpy as np
from keras import layers

from gradaudit.numerics import scatter_add
from gradaudit.rules.registry import Case, rule


def _case(name, layer, shape=(4, 3), **options):
    return Case(name, functools.partial(layer, 5, 3, **options), shape, inputs="index")


def _reversed(name, **options):
    return Case(
        name,
        functools.partial(layers.ReversibleEmbedding, 5, 3, **options),
        (2, 4, 3),
        arguments={"reverse": True},
    )


def _mask(call, x, mask):
    if not call.layer.mask_zero or call.arguments.get("reverse"):
        return None
    return call.numbers(x) != 0


def _dtypes(layer):
    """ReversibleEmbedding multiplies by its weights as they are stored, without autocast."""
    used = {layer.compute_dtype, layer.variable_dtype, layer.reverse_dtype or layer.compute_dtype}
    return [f"several dtypes at once: {', '.join(sorted(used))}"] if len(used) > 1 else []


@rule(
    layers.Embedding,
    cases=[
        _case("rows", layers.Embedding),
        _case("numbers", layers.Embedding, (6,)),
        _case("zero is a mask", layers.Embedding, mask_zero=True),
    ],
    source="keras/src/layers/core/embedding.py",
    weights=("embeddings",),
    mask=_mask,
    integers=True,
    autocast=False,
)
def embedding(call, x):
    """Look up y = embeddings[x]; floats are truncated to integers.

    Shapes: x (N, ...) integers in [0, V), embeddings (V, D), y (N, ..., D).
    VJP:    dembeddingsₖ = Σ dy over the places with x = k, in the dtype of the weight; no dx.
    Kinks:  none.
    Gaps:   quantized and LoRA weights.
    """
    embeddings = call.weights["embeddings"]
    count, width = embeddings.shape
    indices = call.numbers(x).astype(np.int64)
    indices = np.where(indices < 0, indices + count, indices)

    def vjp(dy):
        rows = call.arithmetic.cast(dy.reshape(-1, width), call.layer.variable_dtype)
        return None, {"embeddings": scatter_add(rows, indices.reshape(-1), count)}

    return embeddings[indices], vjp


@rule(
    layers.ReversibleEmbedding,
    cases=[
        _case("rows", layers.ReversibleEmbedding),
        _case("zero is a mask", layers.ReversibleEmbedding, mask_zero=True),
        _reversed("tied"),
        _reversed("not tied", tie_weights=False),
        _reversed("soft cap", logit_soft_cap=2.0),
        _reversed("all", tie_weights=False, logit_soft_cap=3),
    ],
    source="keras/src/layers/core/reversible_embedding.py",
    weights=("embeddings", "reverse_embeddings"),
    mask=_mask,
    integers=True,
    autocast=False,
    gaps=_dtypes,
)
def reversible_embedding(call, x):
    """Look up y = embeddings[x]; in reverse, y = c tanh(z / c) or z, with z = x @ kernel.

    kernel is embeddingsᵀ where weights are tied, reverse_embeddings elsewhere; c is logit_soft_cap.

    Shapes: x (N, ...), y (N, ..., D); in reverse x (N, ..., D), y (N, ..., V).
    VJP:    Embedding's; in reverse dz = (1 − tanh²(z / c)) dy, dx = dz kernelᵀ, dkernel = Σₙ xᵀ dz.
    Kinks:  none.
    Gaps:   dtypes of weights, of the computation and of the reverse (reverse_dtype) that differ;
            quantized and LoRA weights.
    """
    if not call.arguments.get("reverse"):
        return embedding(call, x)
    tied, cap, weights = call.layer.tie_weights, call.layer.logit_soft_cap, call.weights
    kernel = weights["embeddings"].T if tied else weights["reverse_embeddings"]
    z = x @ kernel
    t = None if cap is None else np.tanh(z / cap)

    def vjp(dy):
        dz = dy if cap is None else dy * cap * (1 - np.square(t)) / cap
        rows, drows = x.reshape(-1, x.shape[-1]), dz.reshape(-1, dz.shape[-1])
        dkernel = rows.T @ drows
        cotangents = {"embeddings": dkernel.T}
        if not tied:
            cotangents = {
                "embeddings": np.zeros_like(weights["embeddings"]),
                "reverse_embeddings": dkernel,
            }
        return dz @ kernel.T, cotangents

    return z if cap is None else t * cap, vjp
