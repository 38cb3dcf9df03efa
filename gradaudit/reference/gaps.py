"""What of a model or an optimizer no rule covers: all of it at once, before the first step."""

import functools
from collections import Counter
from typing import Any

import keras
from keras.src.models.functional import Functional  # not exported; models are instances of it

from gradaudit.reference.losses import LossTerm, loss_term
from gradaudit.reference.walk import graph_of
from gradaudit.rules import find_rule, keyed
from gradaudit.rules.losses.reduction import REDUCTIONS


def model_gaps(model: keras.Model) -> list[str]:
    """Return, for each part of the model whose gradient cannot be derived, what and why."""
    gaps = []
    for method in ("train_step", "compute_loss"):
        own = getattr(type(model), method) is not getattr(keras.Model, method)
        if own or method in vars(model):
            gaps.append(f"the model overrides {method}")
    if "apply" in vars(model.optimizer):
        gaps.append("the optimizer's apply was replaced on the instance")
    paths = [v.path for v in model.variables]
    gaps += [f"several variables are called {path!r}" for path in _repeated(paths)]
    if model.built and not model.trainable_variables:
        gaps.append("the model has no trainable weights")
    gaps += _layer_gaps(model)
    term = loss_term(model)
    if isinstance(term, str):
        return [*gaps, f"the model cannot be judged: {term}"]
    if model._compile_loss._user_loss_weights is not None:
        gaps.append("the model was compiled with loss_weights")
    return gaps + _loss_gaps(term)


def _is_graph(layer: keras.Layer) -> bool:
    if isinstance(layer, keras.Sequential):
        return type(layer).call is keras.Sequential.call
    return isinstance(layer, Functional) and type(layer).call is Functional.call


def _operations(model: keras.Model) -> list[Any]:
    """Return the layers of a model and, where its graph is known, what else it computes with."""
    graph = graph_of(model)
    return model.layers if graph is None else graph.operations


def _layer_gaps(layer: Any) -> list[str]:
    where = f"the layer {layer.name!r} ({type(layer).__name__})"
    if isinstance(layer, keras.Model):
        if not _is_graph(layer):
            return [f"the model {layer.name!r} is neither Sequential nor functional"]
        return [gap for inner in _operations(layer) for gap in _layer_gaps(inner)]
    if not isinstance(layer, keras.Layer):
        return [f"the operation {layer.name!r} ({type(layer).__name__}) has no derived rule"]
    if isinstance(layer, keras.layers.InputLayer):
        return []
    known = find_rule(layer)
    if known is None or known.kind != "layer":
        return [f"{where} has no derived rule"]
    gaps = []
    unknown = {v.name for v in layer.weights} - set(known.weights) - {"seed_generator_state"}
    if unknown:
        gaps.append(f"{where} owns {', '.join(sorted(unknown))}, which its rule does not know")
    if not layer.autocast:
        gaps.append(f"{where} does not cast its inputs to its dtype (autocast=False)")
    gaps += [f"{where} has a {name}" for name in _set(layer, "_regularizer")]
    activation = getattr(layer, "activation", None)
    if activation is not None:
        rule = find_rule(activation)
        if rule is None or rule.kind != "activation":
            gaps.append(f"{where} has the activation {activation!r}, which has no derived rule")
        elif isinstance(activation, functools.partial) and activation.args:
            gaps.append(f"{where} has an activation with positional arguments: name them")
    return gaps


def _loss_gaps(term: LossTerm) -> list[str]:
    gaps = []
    if term.rule is None or term.rule.kind != "loss":
        gaps.append(f"the loss {term.name!r} ({type(term.loss).__name__}) has no derived rule")
    elif term.rule.options is not None:
        extra = {
            key
            for key, value in term.options.items()
            if key not in term.rule.options and value is not None
        }
        gaps += [f"the loss {term.name!r} has {key}, which its rule does not know" for key in extra]
    if term.reduction not in REDUCTIONS:
        gaps.append(f"the loss {term.name!r} has reduction {term.reduction!r}, not a single number")
    return gaps


def update_gaps(model: keras.Model) -> list[str]:
    """Return, for each part of the update that cannot be derived, what and why."""
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return [
            f"the optimizer {optimizer.name!r} (MultiOptimizer) has several learning rates in a "
            "step, and one is captured"
        ]
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    where = f"the optimizer {optimizer.name!r} ({type(optimizer).__name__})"
    known = find_rule(optimizer)
    gaps = [] if known is not None else [f"{where} has no derived rule"]
    both = keyed(model.variables).keys() & keyed(model.optimizer.variables).keys()
    gaps += [f"a weight and a variable of {where} are both called {path!r}" for path in both]
    replicas = model.distribute_strategy.num_replicas_in_sync
    if optimizer.gradient_accumulation_steps and replicas > 1:
        gaps.append(
            f"{where} gathers gradients on {replicas} replicas (gradient_accumulation_steps), each "
            "in accumulators of its own, of which those of the first are captured"
        )
    for variable in model.trainable_variables:
        if variable.constraint is not None and find_rule(variable.constraint) is None:
            kind = type(variable.constraint).__name__
            gaps.append(
                f"the weight {variable.path!r} has the constraint {kind}, which has no derived rule"
            )
        if getattr(variable, "overwrite_with_gradient", False):
            gaps.append(f"the weight {variable.path!r} is overwritten with its gradient")
    return gaps


def _set(layer: Any, ending: str) -> list[str]:
    """Return the options of a layer with a name of this ending that are not None."""
    return [name for name, value in vars(layer).items() if name.endswith(ending) and value]


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
