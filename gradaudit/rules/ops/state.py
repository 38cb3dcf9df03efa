"""Variables, functions in functions, and where a gradient ends."""

import numpy as np

from gradaudit.rules.ops.table import op


@op("ReadVariableOp", always=True)
def read_variable(node, variable):
    """Read a Keras variable; its cotangent is collected by its path."""
    value = node.run.step.read(variable, variable.dtype)

    def vjp(dy):
        node.run.collect(variable.path, dy)

    return value, vjp


@op("AssignVariableOp", always=True)
def assign_variable(node, variable, value):
    node.run.step.assign(variable, value)
    return (), None


@op("AssignAddVariableOp", always=True)
def assign_add_variable(node, variable, value):
    node.run.step.assign(variable, node.run.step.read(variable, variable.dtype) + value)
    return (), None


@op("AssignSubVariableOp", always=True)
def assign_sub_variable(node, variable, value):
    node.run.step.assign(variable, node.run.step.read(variable, variable.dtype) - value)
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


@op("ShapeN")
def shape_n(node, *xs):
    return tuple(np.array(x.shape, node.op.dtypes[0].as_numpy_dtype) for x in xs), None


@op("Rank")
def rank(node, x):
    return np.array(x.ndim, np.int32), None


@op("Size")
def size(node, x):
    return np.array(x.size, node.op.dtypes[0].as_numpy_dtype), None
