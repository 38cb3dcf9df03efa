"""SeparableConv1D and SeparableConv2D: depthwise, then pointwise."""

import functools

from keras import layers

from gradaudit.rules.layers.channels import channels_last
from gradaudit.rules.layers.depthwise_conv import cases_1d, cases_2d, depthwise
from gradaudit.rules.primitives.convolution import convolution, finish
from gradaudit.rules.primitives.windows import Windows
from gradaudit.rules.registry import rule

_WEIGHTS = ("depthwise_kernel", "pointwise_kernel", "bias")


@rule(
    layers.SeparableConv1D,
    cases=cases_1d(functools.partial(layers.SeparableConv1D, 4)),
    source="keras/src/layers/convolutional/separable_conv1d.py",
    weights=_WEIGHTS,
)
@rule(
    layers.SeparableConv2D,
    cases=cases_2d(functools.partial(layers.SeparableConv2D, 4)),
    source="keras/src/layers/convolutional/separable_conv2d.py",
    weights=_WEIGHTS,
)
def separable_conv(call, x):
    """Apply y = f(z), z = h pointwise + bias, h = the depthwise convolution of x.

    Shapes: x (N, *cells, C), depthwise (*size, C, m), pointwise (1, ..., C m, O), bias (O,),
            h (N, *count, C m), y (N, *count, O).
    VJP:    dz = f'(z) dy; dh and dpointwise from dz, then dx and ddepthwise from dh, by the VJPs
            of the two convolutions.
    Kinks:  those of the activation.
    """
    x, pointwise = channels_last(call.layer, x), call.weights["pointwise_kernel"]
    h, depthwise_vjp = depthwise(call.layer, x, call.weights["depthwise_kernel"])
    ones = (1,) * (x.ndim - 2)
    z, z_vjp = convolution(h, pointwise, Windows.over(h.shape[1:-1], ones, ones))

    def vjp(dz):
        dh, dpointwise = z_vjp(dz)
        dx, ddepthwise = depthwise_vjp(dh)
        return dx, {"depthwise_kernel": ddepthwise, "pointwise_kernel": dpointwise}

    return finish(call, z, vjp)
