"""Variables, functions in functions, and where a gradient ends."""

import numpy as np
from keras import Variable

from gradaudit.tracing.tf_ops.table import op


@op("ReadVariableOp", always=True)
def read_variable(node, variable):
    """Read a Keras variable; its cotangent is collected by its path."""
    value = node.run.step.read(_owned(node, variable), variable.dtype)

    def vjp(dy):
        node.run.collect(variable.path, dy)

    return value, vjp


def _owned(node, variable):
    if not isinstance(variable, Variable):
        raise node.unsupported(
            "reads a variable that is none of the model's, whose value in the step is not known: "
            "let the layer own it, as add_weight and a SeedGenerator in its __init__ do"
        )
    return variable


@op("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", always=True)
def assign(node, variable, value):
    """Assign to a Keras variable; of others, such as those of metrics, nothing is kept."""
    if isinstance(variable, Variable):
        step, kind = node.run.step, node.op.kind
        if kind != "AssignVariableOp":
            before = step.read(variable, variable.dtype)
            value = before + value if kind == "AssignAddVariableOp" else before - value
        step.assign(variable, value)
    return (), None


@op("Identity", "EnsureShape", "CheckNumerics")
def identity(node, x):
    return x, lambda dy: dy


@op("IdentityN")
def identity_n(node, *xs):
    """Hand tensors on. A custom gradient stands here, too: the true one goes past it."""
    return xs, lambda *dys: dys


@op("StopGradient", "PreventGradient")
def stop_gradient(node, x):
    return x, None


@op("Shape")
def shape(node, x):
    return np.array(x.shape, node.op.dtypes[0].as_numpy_dtype), None


@op("VariableShape", always=True)
def variable_shape(node, variable):
    return np.array(_owned(node, variable).shape, node.op.dtypes[0].as_numpy_dtype), None


@op("ShapeN")
def shape_n(node, *xs):
    return tuple(np.array(x.shape, node.op.dtypes[0].as_numpy_dtype) for x in xs), None


@op("Rank")
def rank(node, x):
    return np.array(x.ndim, np.int32), None


@op("Size")
def size(node, x):
    return np.array(x.size, node.op.dtypes[0].as_numpy_dtype), None
