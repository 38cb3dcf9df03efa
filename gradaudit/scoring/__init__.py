"""Scores the framework's values against the reference, weight by weight.

One job: (StepRecord, Reference) to Comparison. Rejected: relative tolerances, by which correct
gradients of a deep net fail (elementwise relative errors above 1 are normal there).
"""

from gradaudit.scoring.diagnosis import diagnose, relation
from gradaudit.scoring.rows import NO_ROWS, RowSink, RowsPerTensor
from gradaudit.scoring.score import compare

__all__ = ["NO_ROWS", "RowSink", "RowsPerTensor", "compare", "diagnose", "relation"]
