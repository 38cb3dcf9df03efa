"""Matrix products: Matmul and Einsum."""

import functools

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.keras_ops.arithmetic import apply_to_operands
from gradaudit.rules.primitives.contraction import contract
from gradaudit.rules.primitives.matmul import matmul
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/ops/numpy.py"


def _case(name, build, *shapes, **options):
    shape = shapes if len(shapes) > 1 else shapes[0]
    return Case(name, build, shape, apply=_apply, **options)


def _apply(operation, *tensors, x1=None, x2=None):
    given = [each for each in (x1, *tensors, x2) if each is not None]
    return operation(*(np.float32(each) if isinstance(each, list) else each for each in given))


# A list is the same for all samples; an array has a part for each.
_CONSTANT = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)


@rule(
    operations.Matmul,
    cases=[
        _case("of each sample", operations.Matmul, (2, 3, 4), (2, 4, 3)),
        _case("of one and each", operations.Matmul, (2, 1, 3, 4), (2, 2, 4, 3)),
        _case("by constants", operations.Matmul, (2, 3, 4), arguments={"x2": _CONSTANT}),
        _case("of constants", operations.Matmul, (2, 3, 4), arguments={"x1": _CONSTANT}),
        _case("by a vector", operations.Matmul, (2, 3, 4), arguments={"x2": [0.5, 2.0, -1.5, 1.0]}),
        _case("of a vector", operations.Matmul, (2, 3, 4), arguments={"x1": [0.5, 2.0, -1.5]}),
    ],
    source=_SOURCE,
)
def matrix_product(call, x):
    """Apply y = a @ b, as np.matmul has it.

    Shapes: a (..., I, J), b (..., J, K), y (..., I, K); one axis less where a or b has but one.
    VJP:    da = dy bᵀ and db = aᵀ dy, summed over the axes of broadcasting.
    Kinks:  none.
    """
    return apply_to_operands(call, x, matmul)


@rule(
    operations.Einsum,
    cases=[
        _case(equation, functools.partial(operations.Einsum, equation), *shapes)
        for equation, *shapes in (
            ("abc,acd->abd", (2, 3, 4), (2, 4, 3)),
            ("ab,ab->a", (3, 4), (3, 4)),
            ("a...b,abc->a...c", (2, 3, 4), (2, 4, 3)),
        )
    ],
    source=_SOURCE,
)
def einsum(call, x):
    """Apply the contraction of two arrays that subscripts describe.

    Shapes: those of the subscripts.
    VJP:    da and db are the contractions of dy with the other.
    Kinks:  none.
    """
    if not isinstance(x, tuple) or len(x) != 2:
        raise UnsupportedModelError(
            f"the operation {call.layer.name!r} contracts other than two tensors of the model, "
            "which is not derived. Split it into operations of two tensors."
        )
    y, vjp = contract(call.layer.subscripts, *x)
    return y, lambda dy: (vjp(dy), {})
