"""How an op is declared that only moves elements, takes some of them or repeats them."""

import functools
from collections.abc import Callable

from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.table import Function, op


def moving(*kinds: str) -> Callable[[Callable], Function]:
    """Register an op that moves elements: the decorated (node, x, *others) says how.

    dx is Σ dy over the places that an element went to; the other inputs have no cotangent.
    """

    def register(move):
        @op(*kinds)
        @functools.wraps(move)
        def apply(node, x, *others):
            y, vjp = moved(x, lambda array: move(node, array, *others))
            return y, lambda dy: (vjp(dy), *[None] * len(others))

        return apply

    return register
