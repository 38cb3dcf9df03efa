"""What regularizers add to the loss of a step."""

from collections.abc import Iterable
from typing import Any

from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.operations import Operations, Vjp
from gradaudit.rules import RegularizerCall, rule_for


def activity_penalties(
    step: Operations, layer: Any, outputs: Iterable[Tensor], epsilon: float
) -> list[Tensor]:
    """Return the penalties on one call of a layer, each divided by the size of the batch."""
    if layer.activity_regularizer is None:
        return []
    found = []
    for y in outputs:
        penalty = step.apply(y, _penalty(step, layer.activity_regularizer, y, epsilon), y.dtype)
        if y.value.ndim:
            size = step.arithmetic.array(max(y.value.shape[0], 1), y.dtype)
            mean = (penalty.value / size, lambda dy, size=size: dy / size)
            penalty = step.apply(penalty, mean, y.dtype)
        found.append(penalty)
    return found


def weight_penalties(step: Operations, variables: Iterable[Any], epsilon: float) -> list[Tensor]:
    """Return the penalties on the regularized ones among some trainable Keras variables."""
    found = []
    for variable in variables:
        if variable.regularizer is not None:
            weight = Tensor(step.read(variable, variable.dtype), variable.dtype)
            value, vjp = _penalty(step, variable.regularizer, weight, epsilon)
            found.append(step.of_variable(variable, value, vjp))
    return found


def _penalty(step: Operations, regularizer: Any, w: Tensor, epsilon: float) -> tuple[Array, Vjp]:
    call = RegularizerCall(regularizer, w.dtype, step.arithmetic, epsilon)
    return rule_for(regularizer).function(call, w.value)
