"""Conv1DTranspose, Conv2DTranspose and Conv3DTranspose: a convolution's VJP as a layer."""

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, activated, channels_last
from gradaudit.rules.primitives.convolution import (
    convolve,
    convolve_transposed,
    kernel_cotangent,
)
from gradaudit.rules.primitives.windows import Windows
from gradaudit.rules.registry import Case, rule

_Conv1D, _Conv2D, _Conv3D = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)


@rule(
    _Conv1D,
    cases=[
        Case("valid", lambda: _Conv1D(3, 3), (2, 5, 2)),
        Case("same", lambda: _Conv1D(3, 4, 2, "same"), (2, 5, 2)),
        Case("strides over the kernel", lambda: _Conv1D(3, 2, 3), (2, 4, 2)),
        Case("dilation", lambda: _Conv1D(3, 3, dilation_rate=2), (2, 5, 2), compiled=True),
        Case("output padding", lambda: _Conv1D(3, 3, 2, output_padding=1), (2, 4, 2)),
        Case("relu", lambda: _Conv1D(3, 2, activation="relu", use_bias=False), (2, 4, 2)),
        Case("channels first", lambda: _Conv1D(3, 3, 2, **FIRST), (2, 2, 4), compiled=True),
    ],
    source="keras/src/layers/convolutional/conv1d_transpose.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
@rule(
    _Conv2D,
    cases=[
        Case("valid", lambda: _Conv2D(3, (3, 2)), (2, 3, 4, 2)),
        Case("same", lambda: _Conv2D(3, (3, 4), (2, 3), "same"), (2, 3, 4, 2)),
        Case("strides over the kernel", lambda: _Conv2D(3, 1, 2), (2, 3, 4, 2)),
        Case("dilation", lambda: _Conv2D(3, 2, dilation_rate=(2, 1)), (2, 3, 4, 2), compiled=True),
        Case("output padding", lambda: _Conv2D(3, 2, 3, output_padding=(1, 0)), (2, 3, 2, 2)),
        Case(
            "same, output padding",
            lambda: _Conv2D(3, 3, 3, "same", output_padding=(0, 2)),
            (2, 3, 2, 2),
        ),
        Case("tanh", lambda: _Conv2D(3, 2, activation="tanh", use_bias=False), (2, 3, 4, 2)),
        Case("channels first", lambda: _Conv2D(3, 2, 2, **FIRST), (2, 2, 3, 4), compiled=True),
    ],
    source="keras/src/layers/convolutional/conv2d_transpose.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
@rule(
    _Conv3D,
    cases=[
        Case("valid", lambda: _Conv3D(3, (2, 1, 3)), (2, 2, 3, 2, 2)),
        Case("same", lambda: _Conv3D(3, 3, (1, 2, 2), "same"), (2, 2, 2, 3, 2)),
        Case("dilation", lambda: _Conv3D(3, 2, dilation_rate=2), (2, 2, 2, 2, 2), compiled=True),
        Case("output padding", lambda: _Conv3D(3, 2, 2, output_padding=1), (2, 2, 2, 3, 2)),
        Case("relu", lambda: _Conv3D(3, 2, activation="relu", use_bias=False), (2, 2, 3, 2, 2)),
        Case("channels first", lambda: _Conv3D(3, 2, **FIRST), (2, 2, 2, 3, 4), compiled=True),
    ],
    source="keras/src/layers/convolutional/conv3d_transpose.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
def conv_transpose(call, x):
    """Apply y = f(z), z = Σₜ placed(x, t) kernel[t]ᵀ + bias: the windows lie over z's cells.

    Shapes: x (N, *count, I), kernel (*size, O, I), bias (O,), y (N, *cells, O);
            channels first: x (N, I, *count), y (N, O, *cells).
    VJP:    dz = f'(z) dy; dx = Σₜ at(dz, t) kernel[t]; dkernel[t] = at(dz, t)ᵀ x;
            dbias = Σ dz over all axes but the channels.
    Kinks:  those of the activation.
    """
    layer, kernel, x = call.layer, call.weights["kernel"], channels_last(call.layer, x)
    cells = [_cells(layer, n, axis) for axis, n in enumerate(x.shape[1:-1])]
    windows = Windows.over(
        cells, layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate
    )

    def vjp(dz):
        return convolve(dz, kernel, windows), {"kernel": kernel_cotangent(dz, x, windows)}

    return activated(call, convolve_transposed(x, kernel, windows), vjp)


def _cells(layer, count, axis):
    """Return how many cells z has along an axis: what the windows reach, and what is added."""
    size, stride = layer.kernel_size[axis], layer.strides[axis]
    span = (size - 1) * layer.dilation_rate[axis] + 1
    added = None if layer.output_padding is None else layer.output_padding[axis]
    if layer.padding == "valid":
        return (count - 1) * stride + span + (max(stride - span, 0) if added is None else added)
    return count * stride if added is None else (count - 1) * stride + span % 2 + added
