"""Scores the framework's values against the reference, weight by weight.

One job: (StepRecord, Reference) to Comparison. Rejected: relative tolerances, by which correct
gradients of a deep net fail (elementwise relative errors above 1 are normal there).
"""

from gradaudit.compare.claims import (
    AGREES,
    DISAGREES,
    NOT_CHECKED,
    claim_verdict,
    diagnose_claims,
    within_a_unit,
)
from gradaudit.compare.diagnosis import diagnose
from gradaudit.compare.score import compare
from gradaudit.compare.tally import Tally

__all__ = [
    "AGREES",
    "DISAGREES",
    "NOT_CHECKED",
    "Tally",
    "claim_verdict",
    "compare",
    "diagnose",
    "diagnose_claims",
    "within_a_unit",
]
