"""Hand-derived maths: one rule for each layer, operation, activation, loss, regularizer,
constraint and optimizer of Keras.

One job: say in plain NumPy what a Keras object computes and what its gradient is, forward and VJP
side by side. Rejected: building the reference from TensorFlow's own float64 tape, which shares the
framework's mistakes. Rules import Keras for the class that they describe, and never TensorFlow.

layers/, keras_ops/, losses/, activations/, optimizers/, regularizers.py, constraints.py: the rules.
primitives/: pure maths that several rules use. declaration.py: what a rule declares of itself.
registry.py: finds rules. context.py: what a rule is given. logits.py, variables.py: what Keras does
around rules. coverage.py: what Keras has, and which of it has a rule.
"""

from gradaudit.rules.context import (
    ActivationCall,
    ConstraintCall,
    LayerCall,
    LossCall,
    RegularizerCall,
    UpdateCall,
    apply_activation,
    assigned_weights,
    own_variables,
    read_as,
    summed,
)
from gradaudit.rules.declaration import Case, Rule
from gradaudit.rules.registry import all_rules, find_rule, rule, rule_for
from gradaudit.rules.variables import (
    keyed,
    moved_by,
    single_optimizers,
    slot_variables,
    state_variables,
    variable_keys,
)

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
    "assigned_weights",
    "find_rule",
    "keyed",
    "moved_by",
    "own_variables",
    "read_as",
    "rule",
    "rule_for",
    "single_optimizers",
    "slot_variables",
    "state_variables",
    "summed",
    "variable_keys",
]
