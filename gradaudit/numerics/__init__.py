"""Arrays that carry their own rounding error.

One job: give the rules one kind of arithmetic at a time (float64, float32, or float64 with the
rounding error that the audited precision must make), so that a rule is written once in plain NumPy.
Rejected: interval arithmetic, whose bounds at a depth of twelve layers are 1e15 times the gradient.
"""

from gradaudit.numerics import linear_systems  # noqa: F401 - of Rounded arrays
from gradaudit.numerics.arithmetic import Arithmetic, Plain, Rounding, Simulating
from gradaudit.numerics.below_largest import below_largest
from gradaudit.numerics.newton_schulz import newton_schulz
from gradaudit.numerics.precision import PRECISIONS, Precision
from gradaudit.numerics.rounded import DOUBT, Decision, Rounded, estimated, exact
from gradaudit.numerics.scatter import scatter_add
from gradaudit.numerics.simulated import Simulated
from gradaudit.numerics.sum_of_steps import SumOfSteps

__all__ = [
    "DOUBT",
    "PRECISIONS",
    "Arithmetic",
    "Decision",
    "Plain",
    "Precision",
    "Rounded",
    "Rounding",
    "Simulated",
    "Simulating",
    "SumOfSteps",
    "below_largest",
    "estimated",
    "exact",
    "newton_schulz",
    "scatter_add",
]
