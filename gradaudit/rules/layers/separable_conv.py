"""SeparableConv1D and SeparableConv2D: depthwise, then pointwise."""

from keras import layers

from gradaudit.rules.layers.channels import FIRST, channels_last
from gradaudit.rules.layers.convolution import convolution, finish
from gradaudit.rules.layers.depthwise_conv import depthwise
from gradaudit.rules.layers.patches import Windows
from gradaudit.rules.registry import Case, rule

_Conv1D, _Conv2D = layers.SeparableConv1D, layers.SeparableConv2D
_WEIGHTS = ("depthwise_kernel", "pointwise_kernel", "bias")


@rule(
    _Conv1D,
    cases=[
        Case("valid", lambda: _Conv1D(4, 3), (2, 5, 3)),
        Case("same strides", lambda: _Conv1D(4, 3, 2, "same"), (2, 6, 3)),
        Case("multiplier", lambda: _Conv1D(4, 2, depth_multiplier=2), (2, 5, 3)),
        Case("dilation", lambda: _Conv1D(4, 3, dilation_rate=2), (2, 6, 3)),
        Case("strides and dilation", lambda: _Conv1D(4, 2, 2, dilation_rate=3), (2, 7, 3)),
        Case("relu", lambda: _Conv1D(4, 2, activation="relu", use_bias=False), (2, 5, 3)),
        Case("channels first", lambda: _Conv1D(4, 2, 2, **FIRST), (2, 2, 7)),
    ],
    source="keras/src/layers/convolutional/separable_conv1d.py",
    weights=_WEIGHTS,
)
@rule(
    _Conv2D,
    cases=[
        Case("valid", lambda: _Conv2D(4, (3, 2)), (2, 4, 3, 3)),
        Case("same strides", lambda: _Conv2D(4, 3, 2, "same"), (2, 6, 5, 3)),
        Case("multiplier", lambda: _Conv2D(4, 2, depth_multiplier=2), (2, 3, 4, 3)),
        Case("dilation", lambda: _Conv2D(4, 2, padding="same", dilation_rate=2), (2, 4, 5, 3)),
        Case("strides and dilation", lambda: _Conv2D(4, 2, 2, dilation_rate=(2, 1)), (2, 5, 4, 3)),
        Case("tanh", lambda: _Conv2D(4, 2, activation="tanh", use_bias=False), (2, 3, 4, 3)),
        Case("channels first", lambda: _Conv2D(4, 2, depth_multiplier=2, **FIRST), (2, 3, 4, 6)),
    ],
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
