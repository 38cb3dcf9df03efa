"""What of a model or an optimizer no rule covers: all of it at once."""

import functools
import operator
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.models.functional import Functional  # not exported; models are instances of it

from gradaudit.reference.graph import bound, graph_of, has_no_gradient, nodes
from gradaudit.reference.losses import loss_terms
from gradaudit.rules import find_rule, keyed, own_variables, single_optimizers
from gradaudit.rules.losses.reduction import REDUCTIONS


def step_gaps(model: keras.Model) -> list[str]:
    """Return why no gradient of the model can be derived, not even by a trace of its code."""
    gaps = ["the model overrides train_step"] if _overrides(model, "train_step") else []
    optimizer = getattr(model, "optimizer", None)  # compile sets it
    if optimizer is not None and "apply" in vars(optimizer):
        gaps.append("the optimizer's apply was replaced on the instance")
    gaps += _repeated_paths(model)
    if model.built and not model.trainable_variables:
        gaps.append("the model has no trainable weights")
    return gaps


def model_gaps(model: keras.Model) -> list[str]:
    """Return, for each part of the model whose gradient no derived rule covers, what and why.

    Complete once Keras has trained on a batch: it builds models and losses then.
    """
    gaps = [
        f"the model overrides {method}"
        for method in ("compute_loss", "losses")
        if _overrides(model, method)
    ]
    gaps += layer_gaps(model) + _weight_gaps(model) + _loss_gaps(model)
    return list(dict.fromkeys(gaps))  # a layer that is called twice has each of its gaps once


def traced_layers(model: keras.Model) -> list[Any] | None:
    """Return the layers and operations of a functional model that no derived rule covers.

    None where something else has no derived rule, too: the whole step is traced then.
    """
    overrides = any(_overrides(model, method) for method in ("compute_loss", "losses"))
    if overrides or _weight_gaps(model) or _loss_gaps(model) or _own_gaps(model):
        return None
    return list(_uncovered(model))


def _uncovered(model: keras.Model) -> Iterator[Any]:
    for node in _deriving_nodes(model):
        layer = node.operation
        if isinstance(layer, keras.Model) and not _own_gaps(layer) and not _call_gaps(node):
            yield from _uncovered(layer)
        elif layer_gaps(layer) or _call_gaps(node):
            yield layer


def _overrides(model: keras.Model, method: str) -> bool:
    own = getattr(type(model), method) is not getattr(keras.Model, method)
    return own or method in vars(model)


def layer_gaps(layer: Any) -> list[str]:
    """Return the gaps of a layer, of a model with all that it calls, or of an operation."""
    if not isinstance(layer, keras.Layer):
        where, known = f"the operation {layer.name!r} ({type(layer).__name__})", find_rule(layer)
        return (
            [f"{where} has no derived rule"]
            if known is None
            else _options_gaps(where, known, layer)
        )
    if isinstance(layer, keras.Model):
        gaps = _own_gaps(layer)
        for node in _deriving_nodes(layer):
            gaps += layer_gaps(node.operation) + _call_gaps(node)
        if is_graph(layer) and graph_of(layer) is None:
            gaps += [gap for part in layer.layers for gap in layer_gaps(part)]
        return gaps
    where, gaps = _where(layer), _loss_of_layer_gaps(layer)
    known = find_rule(layer)
    if known is None or known.kind != "layer":
        return [*gaps, f"{where} has no derived rule"]
    gaps += _options_gaps(where, known, layer)
    unknown = own_variables(layer).keys() - set(known.weights)
    if unknown:
        gaps.append(f"{where} owns {', '.join(sorted(unknown))}, which its rule does not know")
    if known.autocast and not layer.autocast:
        gaps.append(f"{where} does not cast its inputs to its dtype (autocast=False)")
    if getattr(layer, "stateful", False):
        gaps.append(f"{where} is stateful, and keeps its state where the audit does not see it")
    for name in ("activation", "recurrent_activation"):
        activation = getattr(layer, name, None)
        if activation is None:
            continue
        rule = find_rule(activation)
        if isinstance(activation, keras.Layer):
            gaps.append(
                f"{where} has a layer as its activation, {activation.name!r}: give it a function, "
                "or put the layer behind it"
            )
        elif rule is None or rule.kind != "activation":
            gaps.append(f"{where} has the activation {activation!r}, which has no derived rule")
        elif isinstance(activation, functools.partial) and activation.args:
            gaps.append(f"{where} has an activation with positional arguments: name them")
    return gaps + [gap for part in layer._layers for gap in _part_gaps(layer, where, part)]


def _part_gaps(layer: Any, where: str, part: Any) -> list[str]:
    """Return the gaps of a layer that is called by the rule of another."""
    gaps = layer_gaps(part)
    if isinstance(part, keras.Model):
        gaps.append(f"{where} calls a model, which the rule of a layer does not do")
    if part.compute_dtype != layer.compute_dtype:
        gaps.append(f"{where} has a part, {part.name!r}, that computes in another dtype")
    if part.activity_regularizer is not None:
        gaps.append(f"{where} has a part, {part.name!r}, with an activity regularizer")
    return gaps


def _options_gaps(where: str, known: Any, layer: Any) -> list[str]:
    return [] if known.gaps is None else [f"{where} has {gap}" for gap in known.gaps(layer)]


def _where(layer: Any) -> str:
    what = "model" if isinstance(layer, keras.Model) else "layer"
    return f"the {what} {layer.name!r} ({type(layer).__name__})"


def _loss_of_layer_gaps(layer: Any) -> list[str]:
    where = _where(layer)
    if layer.activity_regularizer is not None:
        return _regularizer_gaps(where, "activity regularizer", layer.activity_regularizer)
    return [f"{where} adds losses of its own (add_loss)"] if layer._losses else []


def is_graph(model: keras.Model) -> bool:
    """Return whether a model calls its layers as its graph has it, with no code of its own."""
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call
    return isinstance(model, Functional) and type(model).call is Functional.call


def _own_gaps(model: keras.Model) -> list[str]:
    """Return the gaps of a model but for those of the layers that it calls."""
    where, gaps = _where(model), _loss_of_layer_gaps(model)
    if not is_graph(model):
        return [*gaps, f"{where} is neither Sequential nor functional"]
    graph = graph_of(model)
    if graph is None:
        return [*gaps, f"{where} was built without a graph of its layers"] if model.built else gaps
    for symbol in graph.inputs:
        what = f"the input {symbol.name!r} of {where}"
        gaps += [f"{what} is {kind}" for kind in ("sparse", "ragged") if getattr(symbol, kind)]
        if getattr(symbol._keras_history.operation, "optional", False):
            gaps.append(f"{what} is optional")
    return gaps


def _deriving_nodes(model: keras.Model) -> list[Any]:
    """Return the calls of a model that a gradient may go through."""
    graph = graph_of(model) if is_graph(model) else None
    return [] if graph is None else [node for node in nodes(graph) if not has_no_gradient(node)]


def _call_gaps(node: Any) -> list[str]:
    """Return what a call in a graph is given that no rule knows of."""
    layer = node.operation
    if isinstance(layer, keras.Model) and len(bound(node).keys() - {"training", "mask"}) > 1:
        return [f"the model {layer.name!r} is given more than its inputs"]
    return []


def several_tensors(model: keras.Model) -> list[str]:
    """Return, for each call in a model that is not of one tensor to one, what it is."""
    gaps = []
    graph = graph_of(model)
    for node in [] if graph is None else nodes(graph):
        operation = node.operation
        if isinstance(operation, keras.Model):
            gaps += several_tensors(operation)
        elif not isinstance(operation, keras.Layer):
            gaps.append(f"{operation.name!r} is an operation, and not a layer")
        elif len(node.arguments.keras_tensors) != 1 or len(node.outputs) != 1:
            gaps.append(f"the layer {operation.name!r} takes or makes several tensors")
    return gaps


def _weight_gaps(model: keras.Model) -> list[str]:
    return [
        gap
        for variable in model.trainable_variables
        if variable.regularizer is not None
        for gap in _regularizer_gaps(
            f"the weight {variable.path!r}", "regularizer", variable.regularizer
        )
    ]


def _regularizer_gaps(where: str, what: str, regularizer: Any) -> list[str]:
    known = find_rule(regularizer)
    if known is not None and known.kind == "regularizer":
        return []
    return [f"{where} has the {what} {regularizer!r}, which has no derived rule"]


def _loss_gaps(model: keras.Model) -> list[str]:
    gaps = []
    for term in loss_terms(model):
        where = f"the loss {term.name!r} ({type(term.loss).__name__})"
        if term.path:
            where += f" of the output {term.output!r}"
        if term.rule is None or term.rule.kind != "loss":
            gaps.append(f"{where} has no derived rule")
        elif term.rule.options is not None:
            given = {key for key, value in term.options.items() if value is not None}
            extra = sorted(given - set(term.rule.options))
            gaps += [f"{where} has {key}, which its rule does not know" for key in extra]
        if term.reduction not in REDUCTIONS:
            gaps.append(f"{where} has reduction {term.reduction!r}, not a single number")
        if not isinstance(term.weight, (int, float, np.integer, np.floating, type(None))):
            gaps.append(f"{where} has the loss weight {term.weight!r}, not a number")
        outputs = model._compile_loss._y_pred_build_structure
        if tree.is_nested(functools.reduce(operator.getitem, term.path, outputs)):
            gaps.append(f"{where} takes several outputs at once")
    return gaps


def update_gaps(model: keras.Model) -> list[str]:
    """Return, for each part of the update that cannot be derived, what and why."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return ["the model was compiled without an optimizer"]
    gaps = _repeated_paths(model)
    for path in keyed(model.variables).keys() & keyed(optimizer.variables).keys():
        gaps.append(f"a weight and a variable of the optimizer are both called {path!r}")
    replicas = model.distribute_strategy.num_replicas_in_sync
    for single in single_optimizers(optimizer):
        where = f"the optimizer {single.name!r} ({type(single).__name__})"
        if find_rule(single) is None:
            gaps.append(f"{where} has no derived rule")
        if single.gradient_accumulation_steps and replicas > 1:
            gaps.append(
                f"{where} gathers gradients on {replicas} replicas (gradient_accumulation_steps), "
                "each in accumulators of its own, of which those of one are captured"
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


def _repeated_paths(model: keras.Model) -> list[str]:
    counts = Counter(v.path for v in model.variables)
    return [f"several variables are called {path!r}" for path, n in counts.items() if n > 1]
