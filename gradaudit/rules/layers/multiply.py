"""Multiply."""

import functools

import numpy as np
from keras import layers

from gradaudit.rules.layers.families.merging import (
    either,
    masked_cases,
    masks_of,
    narrowed,
    of_one_rank,
)
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.registry import Case, rule


@rule(
    layers.Multiply,
    cases=[
        Case("two", layers.Multiply, ((3, 4), (3, 4))),
        Case("four", layers.Multiply, ((3, 4),) * 4),
        Case("broadcast", layers.Multiply, ((2, 1, 4), (2, 3, 4), (2, 1, 1))),
        Case("ranks", layers.Multiply, ((2, 3, 4), (2, 4))),
        *masked_cases(layers.Multiply),
    ],
    source="keras/src/layers/merging/multiply.py",
    mask=either,
)
def multiply(call, x):
    """Apply y = x₁ x₂ ⋯, where masked elements count as 1; y is 0 where all are masked.

    Shapes: those of Add.
    VJP:    dxᵢ = dy times the others, summed over the axes along which xᵢ was broadcast; 0 where
            xᵢ is masked.
    Kinks:  none.
    """
    masks = masks_of(call, x)
    factors = [
        each if mask is None else np.where(mask, each, 1.0)
        for each, mask in zip(of_one_rank(x), masks, strict=True)
    ]
    products = factors[:1]
    for factor in factors[1:]:
        products.append(products[-1] * factor)
    y = products[-1]
    counted = (
        None if any(mask is None for mask in masks) else functools.reduce(np.logical_or, masks)
    )

    def vjp(dy):
        dproduct = dy if counted is None else np.where(counted, dy, 0.0)
        dx = []
        for product, factor in zip(products[-2::-1], factors[:0:-1], strict=True):
            dx.append(unbroadcast(dproduct * product, factor.shape))
            dproduct = unbroadcast(dproduct * factor, product.shape)
        dx = [dproduct, *reversed(dx)]
        unmasked = [
            each if mask is None else np.where(mask, each, 0.0)
            for each, mask in zip(dx, masks, strict=True)
        ]
        return narrowed(unmasked, x), {}

    return y if counted is None else np.where(counted, y, 0.0), vjp
