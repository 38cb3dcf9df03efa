"""Convolutions and pooling: by the windows of the derived rules."""

import numpy as np

from gradaudit.numerics import chained
from gradaudit.rules.primitives.convolution import (
    convolution,
    convolve,
    convolve_transposed,
    depthwise,
    grouped_kernel,
    kernel_cotangent,
)
from gradaudit.rules.primitives.pooling import average_pool, largest, max_pool
from gradaudit.rules.primitives.windows import Windows
from gradaudit.tracing.node import Node
from gradaudit.tracing.tf_ops.table import op


def _is_first(node):
    return node.attribute("data_format").startswith(b"NC")


def _last(node, x):
    return np.moveaxis(x, 1, -1) if _is_first(node) else x


def _back(node, y):
    return np.moveaxis(y, -1, 1) if _is_first(node) else y


def _spatial(node, name):
    """Return an attribute with a number for each axis, of the spatial ones."""
    numbers = tuple(node.op.attributes.get(name) or [1] * 5)
    return numbers[2:] if _is_first(node) else numbers[1:-1]


def _cells(node, shape):
    """Return how many cells an input has, whose shape is an input of the op."""
    return tuple((shape[2:] if _is_first(node) else shape[1:-1]).tolist())


def _windows(node, cells, size):
    strides, dilation = _spatial(node, "strides"), _spatial(node, "dilations")[: len(cells)]
    padding = node.attribute("padding").decode().lower()
    if padding != "explicit":
        return Windows.over(cells, size, strides, padding, dilation)
    edges = np.reshape(node.attribute("explicit_paddings"), (-1, 2))
    edges = edges[2:] if _is_first(node) else edges[1:-1]
    wide = [n + b + e for n, (b, e) in zip(cells, edges.tolist(), strict=True)]
    count = Windows.over(wide, size, strides, "valid", dilation).count
    before, after = edges.T.tolist()
    return Windows(tuple(cells), count, tuple(size), strides, dilation, tuple(before), tuple(after))


@op("Conv2D", "Conv3D")
def conv(node, x, kernel):
    """Compute y = Σₜ at(x, t) kernel[t], t the taps of a window.

    VJP: dx = Σₜ placed(dy, t) kernel[t]ᵀ, dkernel[t] = at(x, t)ᵀ dy.
    """
    x = _last(node, x)
    windows = _windows(node, x.shape[1:-1], kernel.shape[:-2])
    y, vjp = convolution(x, kernel, windows, x.shape[-1] // kernel.shape[-2])

    def back(dy):
        dx, dkernel = vjp(_last(node, dy))
        return _back(node, dx), dkernel

    return _back(node, y), back


@op("DepthwiseConv2dNative")
def depthwise_conv(node, x, kernel):
    """Compute y = Σₜ at(x, t) kernel[t] of each channel alone; dx, dkernel = as those of Conv2D."""
    x = _last(node, x)
    windows = _windows(node, x.shape[1:-1], kernel.shape[:-2])
    y, vjp = depthwise(x, kernel, windows)

    def back(dy):
        dx, dkernel = vjp(_last(node, dy))
        return _back(node, dx), dkernel

    return _back(node, y), back


@op("Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput")
def conv_transpose(node, shape, kernel, dy):
    """Compute dx = Σₜ placed(dy, t) kernel[t]ᵀ, a transposed convolution.

    VJP, with c the cotangent of dx: dkernel[t] = at(c, t)ᵀ dy, ddy = Σₜ at(c, t) kernel[t].
    """
    windows, rows = _windows(node, _cells(node, shape), kernel.shape[:-2]), _last(node, dy)
    channels = int(shape[1 if _is_first(node) else -1])
    grouped, groups = _grouped(node, kernel), _groups(node, kernel.shape, channels)

    def vjp(dx):
        dx = _last(node, dx)
        dkernel = kernel_cotangent(dx, rows, windows, groups).reshape(kernel.shape)
        return None, dkernel, _back(node, convolve(dx, grouped, windows, groups))

    return _back(node, convolve_transposed(rows, grouped, windows, groups)), vjp


@op("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", "DepthwiseConv2dNativeBackpropFilter")
def kernel_gradient(node, x, shape, dy):
    """Compute dkernel[t] = at(x, t)ᵀ dy, the gradient of a convolution by its kernel.

    VJP, with c the cotangent of dkernel: dx = Σₜ placed(dy, t) c[t]ᵀ, ddy = Σₜ at(x, t) c[t].
    """
    shape, x, rows = tuple(shape.tolist()), _last(node, x), _last(node, dy)
    windows, groups = _windows(node, x.shape[1:-1], shape[:-2]), _groups(node, shape, x.shape[-1])
    y = kernel_cotangent(x, rows, windows, groups).reshape(shape)

    def vjp(dkernel):
        grouped = _grouped(node, dkernel)
        dx = convolve_transposed(rows, grouped, windows, groups)
        return _back(node, dx), None, _back(node, convolve(x, grouped, windows, groups))

    return y, vjp


def _grouped(node, kernel):
    """Return the kernel of a depthwise convolution as that of one in groups of one channel."""
    return grouped_kernel(kernel) if node.op.kind.startswith("Depthwise") else kernel


def _groups(node, kernel_shape, channels):
    return channels // (1 if node.op.kind.startswith("Depthwise") else kernel_shape[-2])


_MAX = "Compute y = max x of each window; dx = Σ dy of the windows whose largest cell it is."
_AVERAGE = "Compute y = Σ x / n of each window, n its cells; dx = Σ dy / n over the windows."
_FORMULAS = {"MaxPool": _MAX, "MaxPool3D": _MAX, "AvgPool": _AVERAGE, "AvgPool3D": _AVERAGE}


def _pooling(kind, pool):
    @op(kind)
    def apply(node, x):
        x = _last(node, x)
        windows = _windows(node, x.shape[1:-1], _spatial(node, "ksize"))
        y, vjp = pool(node, x, windows)
        return _back(node, y), lambda dy: _back(node, vjp(_last(node, dy)))

    apply.__doc__ = _FORMULAS[kind]


def _largest(node, x, windows):
    return max_pool(x, windows)


def _average(node, x, windows):
    return average_pool(x, windows, node.array(windows.filled))


for _kind, _pool in {
    "MaxPool": _largest,
    "MaxPool3D": _largest,
    "AvgPool": _average,
    "AvgPool3D": _average,
}.items():
    _pooling(_kind, _pool)


def tied_windows(pooling, x):
    """Return in which windows of an op several cells are the largest, in the shape of y."""
    node = Node(pooling, run=None)
    x = _last(node, x)
    windows = _windows(node, x.shape[1:-1], _spatial(node, "ksize"))
    cells = np.stack(
        [np.where(windows.inside(tap), windows.at(x)(tap), -np.inf) for tap in windows.taps]
    )
    return _back(node, (cells == cells.max(axis=0)).sum(axis=0) > 1)


@op("MaxPoolGrad", "MaxPool3DGrad")
def max_pool_gradient(node, x, _, g):
    """Compute y = Σ g of the windows whose largest cell it is; dg = dy at that cell."""
    x = _last(node, x)
    windows = _windows(node, x.shape[1:-1], _spatial(node, "ksize"))
    _, put, taken = largest(x, windows)
    y = _back(node, put(_last(node, g)))
    return y, lambda dy: (None, None, _back(node, taken(_last(node, dy))))


@op("AvgPoolGrad", "AvgPool3DGrad")
def average_pool_gradient(node, shape, g):
    """Compute y = Σ g / n over the windows that see a cell, n the cells of each; dg = Σ dy / n."""
    windows = _windows(node, _cells(node, shape), _spatial(node, "ksize"))
    zeros = node.array(np.zeros((g.shape[0], *windows.cells, _last(node, g).shape[-1])))
    _, put = _average(node, zeros, windows)

    def vjp(dy):
        return None, _back(node, _average(node, _last(node, dy), windows)[0])

    return _back(node, put(_last(node, g))), vjp


@op("ExtractImagePatches")
def extract_patches(node, x):
    """Compute yₜ = at(x, t), the taps of each window as channels; dx = Σₜ placed(dyₜ, t)."""
    strides, rates = (tuple(node.attribute(name)[1:-1]) for name in ("strides", "rates"))
    padding, size = node.attribute("padding").decode().lower(), node.attribute("ksizes")[1:-1]
    windows = Windows.over(x.shape[1:-1], size, strides, padding, rates)
    at, channels = windows.at(x), x.shape[-1]

    def vjp(dy):
        parts = [
            windows.placed(dy[..., i * channels : (i + 1) * channels])(tap)
            for i, tap in enumerate(windows.taps)
        ]
        return np.stack(parts).sum(axis=0)

    return np.concatenate([at(tap) for tap in windows.taps], -1), vjp


@op("LRN")
def local_response_normalization(node, x):
    """Compute y = x / s^β, s = bias + α Σ x² over the channels at most a radius away.

    VJP: dx = dy / s^β − 2 α β x Σ dy x / s^(β + 1), over the same channels.
    """
    radius, beta = node.attribute("depth_radius"), node.attribute("beta")
    alpha = node.attribute("alpha")
    near = np.abs(np.subtract.outer(np.arange(x.shape[-1]), np.arange(x.shape[-1]))) <= radius
    near = node.array(near.astype(float))
    s = node.attribute("bias") + alpha * (np.square(x) @ near)
    power = s**-beta

    def vjp(dy):
        far = chained(dy * x, power / s) @ near
        return chained(dy, power) - (2 * alpha * beta) * x * far

    return x * power, vjp
