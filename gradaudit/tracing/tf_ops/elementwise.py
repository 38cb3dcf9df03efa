"""Ops of one tensor that treat each element by itself, and softmax.

Each binds to a function of `primitives.elementwise`, or to the rule of an activation of Keras.
"""

import functools
import inspect

from keras import activations

from gradaudit.errors import RuleDefinitionError
from gradaudit.rules.context import apply_activation
from gradaudit.rules.primitives import elementwise
from gradaudit.rules.registry import find_rule
from gradaudit.tracing.tf_ops.table import op

_FUNCTIONS = {
    "Neg": elementwise.NEGATIVE,
    "Abs": elementwise.ABSOLUTE,
    "Square": elementwise.SQUARE,
    "Sqrt": elementwise.SQUARE_ROOT,
    "Rsqrt": elementwise.INVERSE_ROOT,
    "Reciprocal": elementwise.RECIPROCAL,
    "Inv": elementwise.RECIPROCAL,
    "Expm1": elementwise.EXPM1,
    "Log": elementwise.LOG,
    "Log1p": elementwise.LOG1P,
    "Erf": elementwise.ERF,
    "Erfc": elementwise.ERFC,
    "Sin": elementwise.SIN,
    "Cos": elementwise.COS,
    "Tan": elementwise.TAN,
    "Asin": elementwise.ARCSIN,
    "Acos": elementwise.ARCCOS,
    "Atan": elementwise.ARCTAN,
    "Sinh": elementwise.SINH,
    "Cosh": elementwise.COSH,
    "Asinh": elementwise.ARCSINH,
    "Acosh": elementwise.ARCCOSH,
    "Atanh": elementwise.ARCTANH,
}
_ACTIVATIONS = {
    "Exp": activations.exponential,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Softplus": activations.softplus,
    "Softsign": activations.softsign,
    "Relu": activations.relu,
    "Relu6": activations.relu6,
    "Elu": activations.elu,
    "Selu": activations.selu,
    "Softmax": activations.softmax,
    "LogSoftmax": activations.log_softmax,
}


def _bind(kind, f):
    @op(kind)
    def apply(node, x):
        return f(x)

    apply.__doc__ = f"Compute y = {f.formula}, elementwise; dx = {f.dx}."


def _bind_activation(kind, activation):
    known = find_rule(activation)
    if known is None:
        raise RuleDefinitionError(
            f"the op {kind} binds to {activation.__name__}, which has no rule. Write one."
        )

    @op(kind)
    def apply(node, z):
        return apply_activation(activation, z)

    apply.__doc__ = inspect.getdoc(known.function)


for _kind, _function in _FUNCTIONS.items():
    _bind(_kind, _function)
for _kind, _activation in _ACTIVATIONS.items():
    _bind_activation(_kind, _activation)


@op("LeakyRelu")
def leaky_relu(node, z):
    """Compute y = z where z > 0, alpha z elsewhere; dz = dy where z > 0, alpha dy elsewhere."""
    slope = functools.partial(activations.leaky_relu, negative_slope=node.attribute("alpha"))
    return apply_activation(slope, z)
