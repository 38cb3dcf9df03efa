"""The old place of `gradaudit.testing`; importing it warns."""

import warnings

from gradaudit.testing import CHECKS, PLANTED, Planted, check_rule

__all__ = ["CHECKS", "PLANTED", "Planted", "check_rule"]

warnings.warn(
    "gradaudit.checks is gradaudit.testing now, and will be removed. Import check_rule from there.",
    DeprecationWarning,
    stacklevel=2,
)
