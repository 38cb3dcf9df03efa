"""DepthwiseConv1D and DepthwiseConv2D: a convolution with one group for each channel."""

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, activated, channels_last
from gradaudit.rules.primitives.convolution import depthwise
from gradaudit.rules.primitives.windows import Windows
from gradaudit.rules.registry import Case, rule


def cases_1d(conv):
    """Return cases of a depthwise or separable convolution; conv is given what follows filters."""
    return [
        Case("valid", lambda: conv(3), (2, 5, 3)),
        Case("same strides", lambda: conv(3, 2, "same"), (2, 6, 3)),
        Case("multiplier", lambda: conv(2, depth_multiplier=2), (2, 5, 3)),
        Case("dilation", lambda: conv(3, dilation_rate=2), (2, 6, 3)),
        Case("strides and dilation", lambda: conv(2, 2, dilation_rate=3), (2, 7, 3)),
        Case("same strides and dilation", lambda: conv(2, 2, "same", dilation_rate=3), (2, 7, 3)),
        Case("relu", lambda: conv(2, activation="relu", use_bias=False), (2, 5, 3)),
        Case("channels first", lambda: conv(2, 2, depth_multiplier=2, **FIRST), (2, 2, 7)),
    ]


def cases_2d(conv):
    """Return cases in two dimensions: see cases_1d.

    With channels first no other axis has their number: Keras adds a bias along the last axis then.
    """
    return [
        Case("valid", lambda: conv((3, 2)), (2, 5, 4, 3)),
        Case("same strides", lambda: conv(3, 2, "same"), (2, 6, 5, 3)),
        Case("multiplier", lambda: conv(2, depth_multiplier=2), (2, 3, 4, 3)),
        Case("dilation", lambda: conv(2, padding="same", dilation_rate=2), (2, 4, 5, 3)),
        Case("strides and dilation", lambda: conv(2, 2, dilation_rate=(2, 1)), (2, 5, 4, 3)),
        Case("tanh", lambda: conv(2, activation="tanh", use_bias=False), (2, 3, 4, 3)),
        Case("channels first", lambda: conv(2, depth_multiplier=2, **FIRST), (2, 3, 4, 6)),
    ]


@rule(
    layers.DepthwiseConv1D,
    cases=cases_1d(layers.DepthwiseConv1D),
    source="keras/src/layers/convolutional/depthwise_conv1d.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
@rule(
    layers.DepthwiseConv2D,
    cases=cases_2d(layers.DepthwiseConv2D),
    source="keras/src/layers/convolutional/depthwise_conv2d.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
def depthwise_conv(call, x):
    """Apply y = f(z), z[…, c m + j] = Σₜ at(x, t)[…, c] kernel[t, c, j] + bias.

    Shapes: x (N, *cells, C), kernel (*size, C, m), bias (C m,), y (N, *count, C m).
    VJP:    that of a convolution of C groups, whose kernel is (*size, 1, C m).
    Kinks:  those of the activation.
    """
    layer, kernel, x = call.layer, call.weights["kernel"], channels_last(call.layer, x)
    size = kernel.shape[:-2]
    windows = Windows.over(x.shape[1:-1], size, layer.strides, layer.padding, layer.dilation_rate)
    z, vjp = depthwise(x, kernel, windows)

    def linear_vjp(dz):
        dx, dkernel = vjp(dz)
        return dx, {"kernel": dkernel}

    return activated(call, z, linear_vjp)
