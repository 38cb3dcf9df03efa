"""SpectralNormalization."""

import numpy as np
from keras import layers

from gradaudit import keras_compat
from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import exact
from gradaudit.rules.logits import leaves_logits
from gradaudit.rules.primitives.scaling import inverse_length, squares
from gradaudit.rules.registry import Case, rule

_SN = layers.SpectralNormalization
_INTEGERS = "integers as its input, to which it casts its output"


def _gaps(layer):
    whole = any("int" in node.input_tensors[0].dtype for node in keras_compat.calls(layer))
    return [_INTEGERS] * whole


@rule(
    layers.SpectralNormalization,
    cases=[
        Case("training", lambda: _SN(layers.Dense(3)), (4, 5)),
        Case("three iterations", lambda: _SN(layers.Dense(3), power_iterations=3), (4, 5)),
        Case("activation", lambda: _SN(layers.Dense(3, activation="tanh")), (2, 3, 5)),
        Case("inference", lambda: _SN(layers.Dense(3)), (4, 5), training=False),
        Case("frozen", lambda: _SN(layers.Dense(3), trainable=False), (4, 5)),
        Case("convolution", lambda: _SN(layers.Conv2D(4, 2, groups=2)), (2, 3, 4, 6)),
        Case("zeros at first", lambda: _SN(layers.Dense(2, kernel_initializer="zeros")), (4, 3)),
    ],
    source="keras/src/layers/normalization/spectral_normalization.py",
    weights=("kernel", "embeddings", "vector_u"),
    integers=True,
    gaps=_gaps,
    assigns=("kernel", "embeddings"),
    output_logits=lambda layer, place: "unknown" if leaves_logits(layer.layer) else None,
)
def spectral_normalization(call, x):
    """Apply the wrapped layer with its kernel W, as rows of outputs, divided by σ = v W uᵀ.

    In training v = u Wᵀ / |u Wᵀ| and u = v W / |v W| by turns, `power_iterations` times. u and
    W / σ are assigned to the variables, unless W is 0. In inference W is taken as it is.

    Shapes: those of the wrapped layer; W (..., O), u (1, O), v (1, product of W's other axes).
    VJP:    that of the wrapped layer at W / σ. It is what the variable of W gets: no gradient goes
            through an assignment, and the optimizer moves the variable on from W / σ.
    Kinks:  those of the wrapped layer.
    Gaps:   integers for x: Keras casts y to the dtype of x, so that what an Embedding makes of them
            is cut off to integers, through which no gradient goes.
    """
    layer, part = call.layer, call.layer.layer
    if isinstance(x, np.ndarray) and x.dtype.kind in "iu":
        raise UnsupportedModelError(f"the layer {layer.name!r} has {_INTEGERS}. Give it floats.")
    name = layer.kernel.name
    kernel, u = call.weights[name], call.weights["vector_u"]
    if call.training and np.any(call.numbers(kernel)):
        rows = kernel.reshape(-1, kernel.shape[-1])
        for _ in range(layer.power_iterations):
            v, v_length = _normalized(u @ rows.T, call.epsilon)
            u, u_length = _normalized(v @ rows, call.epsilon)
        sigma = ((v @ rows) @ u.T) * (v_length * u_length)
        call.assign(name, kernel / sigma.reshape(-1))
        u = u * u_length
    if call.training:
        call.assign("vector_u", u)
    return call.within(part, x)


def _normalized(vector, epsilon):
    """Return a vector divided by its length, or by epsilon if it is shorter, and 1.

    An error of 1 / length is the same factor of all elements: the 1 has it, and they do not.
    """
    inverse, _ = inverse_length(squares(vector, (0, 1), 1)[0], epsilon)
    return vector * exact(inverse), inverse / exact(inverse)
