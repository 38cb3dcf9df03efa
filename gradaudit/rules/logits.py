"""The logits that Keras keeps on outputs, for the losses that compute from them.

keras/src/backend/tensorflow/nn.py and keras/src/activations/activations.py: softmax and sigmoid
leave their input on their output as `_keras_logits`.
"""

import functools
from collections.abc import Mapping
from typing import Any

from keras import activations

from gradaudit.rules.declaration import KeptLogits, Rule, UsedLogits
from gradaudit.rules.registry import find_rule

LEAVING_LOGITS = (activations.softmax, activations.sigmoid)


def leaves_logits(layer: Any) -> bool:
    """Return whether Keras keeps a layer's pre-activation on its output."""
    known = find_rule(layer)
    if known is None or not known.ends_with_activation:
        return False
    activation = getattr(layer, "activation", None)
    if isinstance(activation, functools.partial):
        activation = activation.func
    return activation in LEAVING_LOGITS


def kept_logits(target: Any, place: int) -> KeptLogits | None:
    """Return which logits Keras keeps on an output of a layer or an operation.

    Those of a final activation are not among them: see `leaves_logits`. place: of the output.
    """
    known = find_rule(target)
    if known is None or known.output_logits is None:
        return None
    return known.output_logits(target, place)


def used_logits(rule: Rule | None, options: Mapping[str, Any]) -> UsedLogits | None:
    """Return how a loss that has these keyword arguments uses the logits of its predictions."""
    return None if rule is None or rule.uses_logits is None else rule.uses_logits(options)
