"""The activations of keras.ops.nn, by the rules of keras.activations."""

import functools
import inspect

from keras import activations
from keras.src.activations import activations as own  # not exported, as what follows
from keras.src.ops import nn

from gradaudit.rules.calls import apply_activation
from gradaudit.rules.registry import Case, rule

_ACTIVATIONS = {
    nn.Relu: activations.relu,
    nn.Relu6: activations.relu6,
    nn.LeakyRelu: activations.leaky_relu,
    nn.Elu: activations.elu,
    nn.Selu: activations.selu,
    nn.Celu: activations.celu,
    nn.Gelu: activations.gelu,
    nn.Silu: activations.silu,
    nn.Sigmoid: activations.sigmoid,
    nn.HardSigmoid: activations.hard_sigmoid,
    nn.HardSilu: activations.hard_silu,
    nn.HardTanh: activations.hard_tanh,
    nn.TanhShrink: activations.tanh_shrink,
    nn.HardShrink: activations.hard_shrink,
    nn.SoftShrink: activations.soft_shrink,
    nn.SparsePlus: activations.sparse_plus,
    nn.SparseSigmoid: activations.sparse_sigmoid,
    nn.LogSigmoid: activations.log_sigmoid,
    nn.Softplus: activations.softplus,
    nn.Softsign: activations.softsign,
    nn.Squareplus: activations.squareplus,
    nn.Threshold: activations.threshold,
    nn.Softmax: activations.softmax,
    nn.LogSoftmax: activations.log_softmax,
    nn.Sparsemax: activations.sparsemax,
    nn.Glu: activations.glu,
    own.ReLU: activations.relu,
    own.Mish: activations.mish,
}
_CASES = {
    nn.Threshold: {"threshold": 0.5, "default_value": -1.0},
    nn.Gelu: {"approximate": False},
    own.ReLU: {"negative_slope": 0.1, "max_value": 1.5, "threshold": 0.5},
}


def _options(operation):
    """Return the options of an operation: the arguments of its constructor."""
    names = set(inspect.signature(type(operation).__init__).parameters)
    return {name: getattr(operation, name) for name in names - {"self", "name", "args", "kwargs"}}


def _whole(operation):
    whole = getattr(operation, "axis", -1) is None
    return ["axis=None, which takes all elements of the batch together"] if whole else []


def activation(call, x):
    """Apply y = f(x), f the activation of that name.

    Shapes: those of the activation.
    VJP:    dx = f'(x) dy.
    Kinks:  those of the activation.
    Gaps:   axis=None, which takes all elements of the batch together.
    """
    f = functools.partial(_ACTIVATIONS[type(call.layer)], **_options(call.layer))
    y, vjp = apply_activation(f, x)
    return y, lambda dy: (vjp(dy), {})


for _operation in _ACTIVATIONS:
    chosen = _CASES.get(_operation, {})
    cases = [
        Case("options" if chosen else "default", functools.partial(_operation, **chosen), (3, 4))
    ]
    source = f"{_operation.__module__.replace('.', '/')}.py"
    rule(_operation, cases=cases, source=source, gaps=_whole)(activation)
