"""What every rule must satisfy, and rules that are wrong on purpose and must be refused.

One job: to refuse a wrong rule. Shipped, so that users check the rules that they write:
`check_rule(MyLayer)`. Rejected: a test file per rule, in which each rule is tested as its author
thought of it.
"""

from gradaudit.testing.check import CHECKS, check_rule
from gradaudit.testing.planted import PLANTED, Planted

__all__ = ["CHECKS", "PLANTED", "Planted", "check_rule"]
