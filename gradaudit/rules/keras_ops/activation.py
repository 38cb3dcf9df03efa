"""The activations that are operations of keras.ops, too, by the rules of keras.activations."""

import functools
import inspect

from keras import activations

from gradaudit.errors import RuleDefinitionError
from gradaudit.keras_compat import activation_operations as own
from gradaudit.keras_compat import nn_operations as nn
from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.context import apply_activation
from gradaudit.rules.registry import Case, find_rule, rule

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
    operations.Tanh: activations.tanh,
    operations.Exp: activations.exponential,
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


def _register(operation, f):
    def activation(call, x):
        y, vjp = apply_activation(functools.partial(f, **_options(call.layer)), x, call.misleads)
        return y, lambda dy: (vjp(dy), {})

    known = find_rule(f)
    if known is None:
        raise RuleDefinitionError(
            f"{operation.__name__} binds to the activation {f.__name__}, which has no rule. Write "
            "one in gradaudit/rules/activations."
        )
    activation.__name__ = operation.__name__
    activation.__doc__ = (
        f"{inspect.getdoc(known.function)}\n\nBy the rule of {f.__name__}: x is z.\n\n"
        "Gaps: axis=None, which takes all elements of the batch together."
    )
    options = _CASES.get(operation, {})
    kinks = {kink for case in known.cases for kink in case.kinks}
    case = Case(
        "options" if options else "default",
        functools.partial(operation, **options),
        (3, 4),
        tuple(sorted(kinks)),
    )
    source = f"{operation.__module__.replace('.', '/')}.py"
    keeps = operation in (nn.Softmax, nn.Sigmoid)
    rule(
        operation,
        cases=[case],
        source=source,
        gaps=_whole,
        output_logits=(lambda operation, place: "input") if keeps else None,
    )(activation)


for _operation, _activation in _ACTIVATIONS.items():
    _register(_operation, _activation)
