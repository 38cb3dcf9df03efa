"""EinsumDense."""

import functools

from keras import layers

from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.primitives.contraction import contract
from gradaudit.rules.registry import Case, rule


def _case(equation, output_shape, shape, name=None, **options):
    build = functools.partial(layers.EinsumDense, equation, output_shape, **options)
    return Case(name or equation, build, shape)


@rule(
    layers.EinsumDense,
    cases=[
        _case("ab,bc->ac", 3, (4, 5)),
        _case("abc,cd->abd", (None, 3), (2, 3, 4), bias_axes="d", activation="tanh"),
        _case("abc,cde->abde", (3, 2, 3), (2, 3, 4), bias_axes="de"),
        _case("abcd,cde->abe", (2, 3), (2, 2, 3, 4), bias_axes="e"),
        _case("abc,bd->adc", (3, 4), (2, 3, 4), bias_axes="d", activation="relu"),
        _case("abc,cbd->abd", (3, 2), (2, 3, 4), bias_axes="bd", name="a batch axis"),
        _case("ab,b->ab", 3, (4, 3), bias_axes="b", name="elementwise"),
        _case("abc,cd->ad", 3, (2, 3, 4), name="an axis summed over"),
        _case("ab,bc->acb", (3, 5), (4, 5), bias_axes="c", name="nothing contracted"),
        _case("...x,xy->...y", 3, (2, 3, 4, 5), bias_axes="y", activation="softmax"),
        _case("ab...,bc->ac...", 3, (2, 5, 4), bias_axes="c"),
    ],
    source="keras/src/layers/core/einsum_dense.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
def einsum_dense(call, x):
    """Apply y = f(z), z = x · kernel + bias, contracted as the layer's equation says.

    Keras 3.15 adds a bias whose only axis longer than 1 is as long as z's last axis along that
    one, even where bias_axes name another axis: this rule does not follow it.

    Shapes: those of the equation; bias has 1 along axes of z that are not in bias_axes.
    VJP:    dz = f'(z) dy; dx and dkernel are the contractions of dz with the other; dbias = Σ dz.
    Kinks:  those of the activation.
    Gaps:   quantized and LoRA weights; an equation that takes a diagonal.
    """
    kernel, bias = call.weights["kernel"], call.weights.get("bias")
    z, contraction_vjp = contract(call.layer.equation, x, kernel)
    if bias is not None:
        z = z + bias
    y, activation_vjp = call.activate(z)

    def vjp(dy):
        dz = activation_vjp(dy)
        dx, dkernel = contraction_vjp(dz)
        cotangents = {"kernel": dkernel}
        if bias is not None:
            cotangents["bias"] = unbroadcast(dz, bias.shape)
        return dx, cotangents

    return y, vjp
