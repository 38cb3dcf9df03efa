"""Conv1D, Conv2D and Conv3D."""

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, activated, channels_last
from gradaudit.rules.primitives.convolution import convolution
from gradaudit.rules.primitives.windows import Windows
from gradaudit.rules.registry import Case, rule


@rule(
    layers.Conv1D,
    cases=[
        Case("valid", lambda: layers.Conv1D(3, 3), (2, 6, 4)),
        Case("same", lambda: layers.Conv1D(3, 4, padding="same"), (2, 7, 2)),
        Case("causal", lambda: layers.Conv1D(3, 3, padding="causal"), (2, 6, 2)),
        Case("strides", lambda: layers.Conv1D(3, 3, 2, "same"), (2, 6, 2)),
        Case("causal strides", lambda: layers.Conv1D(3, 3, 2, "causal"), (2, 6, 2)),
        Case("strides over the kernel", lambda: layers.Conv1D(3, 2, 3), (2, 9, 2)),
        Case("dilation", lambda: layers.Conv1D(3, 3, dilation_rate=2), (2, 7, 2)),
        Case(
            "causal dilation",
            lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2, **FIRST),
            (2, 2, 7),
            compiled=True,
        ),
        Case("groups", lambda: layers.Conv1D(6, 2, groups=2, use_bias=False), (2, 5, 4)),
        Case("relu", lambda: layers.Conv1D(3, 2, activation="relu"), (2, 5, 2)),
        Case(
            "channels first",
            lambda: layers.Conv1D(3, 2, 2, "same", **FIRST),
            (2, 4, 9),
            compiled=True,
        ),
        Case(
            "softmax over the last axis, channels first",
            lambda: layers.Conv1D(3, 2, activation="softmax", use_bias=False, **FIRST),
            (2, 2, 6),
            compiled=True,
        ),
    ],
    source="keras/src/layers/convolutional/conv1d.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
@rule(
    layers.Conv2D,
    cases=[
        Case("valid", lambda: layers.Conv2D(3, (3, 2)), (2, 5, 4, 2)),
        Case("same", lambda: layers.Conv2D(3, (3, 2), padding="same"), (2, 4, 5, 2)),
        Case("strides", lambda: layers.Conv2D(3, 3, (2, 3), "same"), (2, 6, 7, 2)),
        Case("strides over the kernel", lambda: layers.Conv2D(3, 1, 2), (2, 4, 5, 2)),
        Case("dilation", lambda: layers.Conv2D(3, 2, dilation_rate=(2, 1)), (2, 5, 4, 2)),
        Case(
            "same dilation",
            lambda: layers.Conv2D(3, 3, padding="same", dilation_rate=2),
            (2, 6, 5, 2),
        ),
        Case("groups", lambda: layers.Conv2D(4, 2, groups=2), (2, 4, 3, 6)),
        Case("no bias", lambda: layers.Conv2D(3, 2, use_bias=False), (2, 3, 4, 2)),
        Case("tanh", lambda: layers.Conv2D(3, 2, activation="tanh"), (2, 3, 4, 2)),
        Case(
            "channels first",
            lambda: layers.Conv2D(3, 2, 2, "same", **FIRST),
            (2, 2, 5, 9),
            compiled=True,
        ),
        Case(
            "groups, channels first",
            lambda: layers.Conv2D(4, 2, groups=2, **FIRST),
            (2, 6, 4, 3),
        ),
    ],
    source="keras/src/layers/convolutional/conv2d.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
@rule(
    layers.Conv3D,
    cases=[
        Case("valid", lambda: layers.Conv3D(2, (2, 1, 2)), (2, 3, 2, 3, 2)),
        Case("same strides", lambda: layers.Conv3D(2, 2, (1, 2, 1), "same"), (2, 3, 4, 3, 2)),
        Case("dilation", lambda: layers.Conv3D(2, 2, dilation_rate=(2, 1, 1)), (2, 4, 2, 3, 2)),
        Case("groups", lambda: layers.Conv3D(4, 2, groups=2, use_bias=False), (2, 3, 2, 3, 4)),
        Case("relu", lambda: layers.Conv3D(2, 2, activation="relu"), (2, 3, 2, 3, 2)),
        Case("channels first", lambda: layers.Conv3D(2, 2, **FIRST), (2, 3, 3, 2, 4)),
    ],
    source="keras/src/layers/convolutional/conv3d.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
def conv(call, x):
    """Apply y = f(z), z = Σₜ at(x, t) kernel[t] + bias, over the taps t of each window.

    Shapes: x (N, *cells, C), kernel (*size, C / groups, O), bias (O,), y (N, *count, O);
            channels first: x (N, C, *cells), y (N, O, *count).
    VJP:    dz = f'(z) dy; dx = Σₜ placed(dz, t) kernel[t]ᵀ; dkernel[t] = at(x, t)ᵀ dz;
            dbias = Σ dz over all axes but the channels.
    Kinks:  those of the activation.
    Gaps:   LoRA weights.
    """
    layer, kernel, x = call.layer, call.weights["kernel"], channels_last(call.layer, x)
    windows = Windows.over(
        x.shape[1:-1], layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate
    )

    z, z_vjp = convolution(x, kernel, windows, layer.groups)

    def vjp(dz):
        dx, dkernel = z_vjp(dz)
        return dx, {"kernel": dkernel}

    return activated(call, z, vjp)
