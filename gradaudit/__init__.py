"""gradaudit: checks the gradients that Keras really applied, weight by weight.

The public door: `GradientAudit`, `check`, `audit_gradients`, `explain`, `published` and `load`;
`rule` and `Case`, for rules of one's own; and `AuditFailure`, which a failed audit raises where it
is asked to. They are imported when they are first used, so that the command line answers before
TensorFlow is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradaudit.callback import GradientAudit
    from gradaudit.errors import AuditFailure
    from gradaudit.explanation.step import explain
    from gradaudit.one_step import audit_gradients, check
    from gradaudit.publications.check import published
    from gradaudit.report import load
    from gradaudit.rules import Case, rule

_DOOR = {
    "AuditFailure": "gradaudit.errors",
    "Case": "gradaudit.rules",
    "GradientAudit": "gradaudit.callback",
    "audit_gradients": "gradaudit.one_step",
    "check": "gradaudit.one_step",
    "explain": "gradaudit.explanation.step",
    "load": "gradaudit.report",
    "published": "gradaudit.publications.check",
    "rule": "gradaudit.rules",
}

__all__ = [
    "AuditFailure",
    "Case",
    "GradientAudit",
    "audit_gradients",
    "check",
    "explain",
    "load",
    "published",
    "rule",
]


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'gradaudit' has no attribute {name!r}")
    return getattr(importlib.import_module(_DOOR[name]), name)
