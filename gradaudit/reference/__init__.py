"""Walks a model through the rules: from what a step was given to what it should have done.

One job: StepRecord to Reference. Rejected: a second Keras model in float64 as the reference, which
would repeat the framework's mistakes in more digits.
"""

from gradaudit.reference.derive import Derivation
from gradaudit.reference.gaps import model_gaps, update_gaps

__all__ = ["Derivation", "model_gaps", "update_gaps"]
