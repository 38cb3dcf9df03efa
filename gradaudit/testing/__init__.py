"""The checks that every rule must satisfy, for rules of one's own, too; and planted errors.

One job: to refuse a wrong rule. Public: `check_rule(MyLayer)` runs every check on every case, and
`@parametrize_with_checks([MyLayer])` makes one pytest test of each. Rejected: a test file for each
rule, in which its author tests what he thought of.
"""

from gradaudit.testing.check import CHECKS, CheckResult, check_rule
from gradaudit.testing.parametrize import parametrize_with_checks
from gradaudit.testing.planted import PLANTED, Planted

__all__ = [
    "CHECKS",
    "PLANTED",
    "CheckResult",
    "Planted",
    "check_rule",
    "parametrize_with_checks",
]
