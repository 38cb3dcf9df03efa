"""SeparableConv1D and SeparableConv2D: depthwise, then pointwise."""

import functools

from keras import layers

from gradaudit.rules.layers.depthwise_conv import cases_1d, cases_2d
from gradaudit.rules.layers.families.spatial import activated, channels_last
from gradaudit.rules.primitives.convolution import convolution, depthwise
from gradaudit.rules.primitives.windows import Windows
from gradaudit.rules.registry import rule

_WEIGHTS = ("depthwise_kernel", "pointwise_kernel", "bias")


@rule(
    layers.SeparableConv1D,
    cases=cases_1d(functools.partial(layers.SeparableConv1D, 4)),
    source="keras/src/layers/convolutional/separable_conv1d.py",
    weights=_WEIGHTS,
    ends_with_activation=True,
)
@rule(
    layers.SeparableConv2D,
    cases=cases_2d(functools.partial(layers.SeparableConv2D, 4)),
    source="keras/src/layers/convolutional/separable_conv2d.py",
    weights=_WEIGHTS,
    ends_with_activation=True,
)
def separable_conv(call, x):
    """Apply y = f(z), z = h pointwise + bias, h = the depthwise convolution of x.

    Shapes: x (N, *cells, C), depthwise (*size, C, m), pointwise (1, ..., C m, O), bias (O,),
            h (N, *count, C m), y (N, *count, O).
    VJP:    dz = f'(z) dy; dh and dpointwise from dz, then dx and ddepthwise from dh, by the VJPs
            of the two convolutions.
    Kinks:  those of the activation.
    """
    layer, x = call.layer, channels_last(call.layer, x)
    kernel, pointwise = call.weights["depthwise_kernel"], call.weights["pointwise_kernel"]
    size = kernel.shape[:-2]
    windows = Windows.over(x.shape[1:-1], size, layer.strides, layer.padding, layer.dilation_rate)
    h, depthwise_vjp = depthwise(x, kernel, windows)
    ones = (1,) * (x.ndim - 2)
    z, z_vjp = convolution(h, pointwise, Windows.over(h.shape[1:-1], ones, ones))

    def vjp(dz):
        dh, dpointwise = z_vjp(dz)
        dx, ddepthwise = depthwise_vjp(dh)
        return dx, {"depthwise_kernel": ddepthwise, "pointwise_kernel": dpointwise}

    return activated(call, z, vjp)
