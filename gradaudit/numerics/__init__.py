"""Arrays that carry their own rounding error.

One job: give the rules one kind of arithmetic at a time (float64, float32, or float64 with the
rounding error that the audited precision must make), so that a rule is written once in plain NumPy.
Rejected: interval arithmetic, whose bounds at a depth of twelve layers are 1e15 times the gradient.

    rounded.py          the rounding model, and `Rounded`, the array that carries its error
    decision.py         what a comparison of such arrays returns
    dispatch.py         the table of NumPy functions that they support, by module
    precision.py        the framework's precisions;  elementary.py  its elementary functions
    simulated.py        arrays that round as half precisions do
    reordered.py        arrays that sum in a random order
    arithmetic.py       the kinds of arithmetic, and what their arrays have in common
    chain.py, below_largest.py, scatter.py, sum_of_steps.py, newton_schulz.py
                        for rules, in any arithmetic
"""

from gradaudit.numerics import (  # noqa: F401 - they fill the table of dispatch.py
    choices,
    elementwise,
    linear_systems,
    moves,
    products,
    sums,
)
from gradaudit.numerics.arithmetic import (
    Arithmetic,
    Array,
    Plain,
    Reordering,
    Rounding,
    Simulating,
    as_rounded,
    numbers,
)
from gradaudit.numerics.below_largest import below_largest
from gradaudit.numerics.chain import chained, chained_through, divided, nan_for_nan
from gradaudit.numerics.decision import Decision
from gradaudit.numerics.newton_schulz import newton_schulz
from gradaudit.numerics.precision import PRECISIONS, Precision
from gradaudit.numerics.products import contraction
from gradaudit.numerics.rounded import DOUBT, Rounded, estimated, exact
from gradaudit.numerics.scatter import scatter_add
from gradaudit.numerics.simulated import Simulated
from gradaudit.numerics.sum_of_steps import SumOfSteps

__all__ = [
    "DOUBT",
    "PRECISIONS",
    "Arithmetic",
    "Array",
    "Decision",
    "Plain",
    "Precision",
    "Reordering",
    "Rounded",
    "Rounding",
    "Simulated",
    "Simulating",
    "SumOfSteps",
    "as_rounded",
    "below_largest",
    "chained",
    "chained_through",
    "contraction",
    "divided",
    "estimated",
    "exact",
    "nan_for_nan",
    "newton_schulz",
    "numbers",
    "scatter_add",
]
