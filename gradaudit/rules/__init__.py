"""Hand-derived maths: one rule per layer, operation, activation, loss and so on.

Regularizers, constraints and optimizers have rules, too.

One job: say in plain NumPy what Keras's object computes and what its gradient is, forward and VJP
side by side. Rejected: building the reference from TensorFlow's own float64 tape, which shares the
framework's mistakes. Rules import Keras for the class that they describe, and never TensorFlow.
"""

from gradaudit.rules.context import (
    ActivationCall,
    ConstraintCall,
    LayerCall,
    LossCall,
    RegularizerCall,
    UpdateCall,
    apply_activation,
    own_variables,
    read_as,
    summed,
)
from gradaudit.rules.registry import Case, Rule, all_rules, find_rule, rule
from gradaudit.rules.variables import keyed, moved_by, single_optimizers

__all__ = [
    "ActivationCall",
    "Case",
    "ConstraintCall",
    "LayerCall",
    "LossCall",
    "RegularizerCall",
    "Rule",
    "UpdateCall",
    "all_rules",
    "apply_activation",
    "find_rule",
    "keyed",
    "moved_by",
    "own_variables",
    "read_as",
    "rule",
    "single_optimizers",
    "summed",
]
