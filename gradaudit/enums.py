"""What reports and options name: verdicts, stages, oracles; and the default threshold."""

from enum import StrEnum


class Verdict(StrEnum):
    """The verdict on a weight, a tensor, a step or a run."""

    PASS = "pass"
    KINK = "kink"
    UNRESOLVED = "unresolved"
    FAIL = "fail"
    NONFINITE = "nonfinite"
    UNJUDGED = "unjudged"


FAILURES = (Verdict.FAIL, Verdict.NONFINITE)
"""The verdicts that fail an audit, the worse one first."""


DEFAULT_THRESHOLD = 8.0
"""The largest score that passes where no other one is asked for."""


class Stage(StrEnum):
    """What is audited of a step: the gradients that the optimizer got, and the update it made."""

    GRADIENT = "gradient"
    UPDATE = "update"


class Oracle(StrEnum):
    """How a reference value was obtained. A user may ask for the first three."""

    DERIVED = "derived"
    TRACED = "traced"
    BOTH = "both"
    NUMERIC = "numeric"


class Passed(StrEnum):
    """What kind of thing a cotangent passed on its way to a variable."""

    TRACED = "traced"
    NUMERIC = "numeric"
    CUSTOM = "custom"
    EXPECTED = "expected"
    MISLED = "misled"
