"""Walks a model through the rules: from what a step was given to what it should have done.

One job: StepRecord to Reference. Rejected: a second Keras model in float64 as the reference, which
would repeat the framework's mistakes in more digits.
"""

from gradaudit.reference.derive import derive, has_bound, rewound
from gradaudit.reference.gaps import is_graph
from gradaudit.reference.graph import graph_of
from gradaudit.reference.known import first_not_finite, known
from gradaudit.reference.losses import loss_terms
from gradaudit.reference.policy import Policy
from gradaudit.reference.quantities import Quantities
from gradaudit.reference.quantity import Quantity, activation_of

__all__ = [
    "Policy",
    "Quantities",
    "Quantity",
    "activation_of",
    "derive",
    "first_not_finite",
    "graph_of",
    "has_bound",
    "is_graph",
    "known",
    "loss_terms",
    "rewound",
]
