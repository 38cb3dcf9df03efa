"""Ops that read variables, look their rows up, and assign to them."""

import numpy as np
from keras import Variable

from gradaudit.numerics import scatter_add
from gradaudit.tracing.tf_ops.table import op


@op("ReadVariableOp", always=True)
def read_variable(node, variable):
    """Compute y = the value of a Keras variable; dvariable = dy, collected by its path.

    Raises:
        UnsupportedModelError: the variable is none of the model's.
    """
    value = node.run.step.read(_owned(node, variable), variable.dtype)

    def vjp(dy):
        node.run.collect(variable.path, dy)

    return value, vjp


@op("ResourceGather", always=True)
def resource_gather(node, variable, indices):
    """Compute yᵢ = the row of a variable that indexᵢ names; dvariable = Σᵢ dyᵢ in these rows."""
    held, read_vjp = read_variable(node, variable)

    def vjp(dy):
        rows = dy.reshape(-1, *held.shape[1:])
        return read_vjp(scatter_add(rows, indices.reshape(-1), len(held))), None

    return np.take(held, indices.reshape(-1), 0).reshape(*indices.shape, *held.shape[1:]), vjp


@op("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", always=True)
def assign(node, variable, value):
    """Compute variable = value, variable + value or variable − value. No gradient passes.

    Assignments to variables that are none of Keras's, such as those of metrics, are dropped.
    """
    if isinstance(variable, Variable):
        step, kind = node.run.step, node.op.kind
        if kind != "AssignVariableOp":
            before = step.read(variable, variable.dtype)
            value = before + value if kind == "AssignAddVariableOp" else before - value
        step.assign(variable, value)
    return (), None


@op("VariableShape", always=True)
def variable_shape(node, variable):
    """Compute y = the shape of a variable. No gradient passes."""
    return np.array(_owned(node, variable).shape, node.op.dtypes[0].as_numpy_dtype), None


def _owned(node, variable):
    if not isinstance(variable, Variable):
        raise node.unsupported(
            "reads a variable that is none of the model's, whose value in the step is not known: "
            "let the layer own it, as add_weight and a SeedGenerator in its __init__ do"
        )
    return variable
