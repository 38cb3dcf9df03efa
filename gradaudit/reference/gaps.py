"""Lists every part of a model that has no derived rule, and why."""

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.records import Gap
from gradaudit.reference.graph import bound, graph_of, has_no_gradient, nodes
from gradaudit.reference.losses import loss_terms
from gradaudit.rules import find_rule, own_variables
from gradaudit.rules.losses.reduction import REDUCTIONS


def model_gaps(model: keras.Model) -> tuple[Gap, ...]:
    """Return, for each part of the model whose gradient no derived rule covers, what and why.

    Complete once Keras has trained on a batch: it builds models and losses then.
    """
    gaps = [
        Gap(GapCode.OVERRIDE, model.name, f"the model overrides {method}")
        for method in ("compute_loss", "losses")
        if overrides(model, method)
    ]
    gaps += layer_gaps(model) + _weight_gaps(model) + _loss_gaps(model)
    return tuple(dict.fromkeys(gaps))  # a layer that is called twice has each of its gaps once


def traced_layers(model: keras.Model) -> list[Any] | None:
    """Return the layers and operations of a functional model that no derived rule covers.

    None where something else has no derived rule, too: the whole step is traced then.
    """
    is_own = any(overrides(model, method) for method in ("compute_loss", "losses"))
    if is_own or _weight_gaps(model) or _loss_gaps(model) or _own_gaps(model):
        return None
    return list(_uncovered(model))


def _uncovered(model: keras.Model) -> Iterator[Any]:
    for node in _deriving_nodes(model):
        layer = node.operation
        if isinstance(layer, keras.Model) and not _own_gaps(layer) and not _call_gaps(node):
            yield from _uncovered(layer)
        elif layer_gaps(layer) or _call_gaps(node):
            yield layer


def overrides(model: keras.Model, method: str) -> bool:
    """Return whether a model overrides a method of keras.Model, in its class or on itself."""
    own = getattr(type(model), method) is not getattr(keras.Model, method)
    return own or method in vars(model)


def layer_gaps(layer: Any) -> list[Gap]:
    """Return the gaps of a layer, of a model with all that it calls, or of an operation."""
    if isinstance(layer, keras.Model):
        gaps = _own_gaps(layer)
        for node in _deriving_nodes(layer):
            gaps += layer_gaps(node.operation) + _call_gaps(node)
        if is_graph(layer) and graph_of(layer) is None:
            gaps += [gap for part in layer.layers for gap in layer_gaps(part)]
        return gaps
    where, known = _where(layer), find_rule(layer)
    gaps = _loss_of_layer_gaps(layer) if isinstance(layer, keras.Layer) else []
    if known is None or known.kind not in ("layer", "operation"):
        return [*gaps, Gap(GapCode.NO_RULE, layer.name, f"{where} has no derived rule")]
    if known.gaps is not None:
        gaps += _gaps(GapCode.OPTION, layer, [f"has {gap}" for gap in known.gaps(layer)])
    if not isinstance(layer, keras.Layer):
        return gaps
    unknown = ", ".join(sorted(own_variables(layer).keys() - set(known.weights)))
    if unknown:
        gaps += _gaps(GapCode.WEIGHT, layer, [f"owns {unknown}, which its rule does not know"])
    if known.autocast and not layer.autocast:
        words = "does not cast its inputs to its dtype (autocast=False)"
        gaps += _gaps(GapCode.OPTION, layer, [words])
    if getattr(layer, "stateful", False):
        words = "is stateful, and keeps its state where the audit does not see it"
        gaps += _gaps(GapCode.STATEFUL, layer, [words])
    for name in ("activation", "recurrent_activation"):
        gaps += _activation_gaps(layer, getattr(layer, name, None))
    return gaps + [gap for part in keras_compat.sublayers(layer) for gap in _part_gaps(layer, part)]


def _gaps(code: GapCode, layer: Any, words: Sequence[str]) -> list[Gap]:
    return [Gap(code, layer.name, f"{_where(layer)} {each}") for each in words]


def _activation_gaps(layer: Any, activation: Any) -> list[Gap]:
    if activation is None:
        return []
    rule = find_rule(activation)
    if isinstance(activation, keras.Layer):
        words = (
            f"has a layer as its activation, {activation.name!r}: give it a function, or put the "
            "layer behind it"
        )
        return _gaps(GapCode.OPTION, layer, [words])
    if rule is None or rule.kind != "activation":
        words = f"has the activation {activation!r}, which has no derived rule"
        return _gaps(GapCode.NO_RULE, layer, [words])
    if isinstance(activation, functools.partial) and activation.args:
        words = "has an activation with positional arguments: name them"
        return _gaps(GapCode.OPTION, layer, [words])
    return []


def _part_gaps(layer: Any, part: Any) -> list[Gap]:
    """Return the gaps of a layer that is called by the rule of another."""
    words = []
    if isinstance(part, keras.Model):
        words.append("calls a model, which the rule of a layer does not do")
    if part.compute_dtype != layer.compute_dtype:
        words.append(f"has a part, {part.name!r}, that computes in another dtype")
    if part.activity_regularizer is not None:
        words.append(f"has a part, {part.name!r}, with an activity regularizer")
    return layer_gaps(part) + _gaps(GapCode.PART, layer, words)


def _where(layer: Any) -> str:
    what = "model" if isinstance(layer, keras.Model) else "layer"
    what = what if isinstance(layer, keras.Layer) else "operation"
    return f"the {what} {layer.name!r} ({type(layer).__name__})"


def _loss_of_layer_gaps(layer: Any) -> list[Gap]:
    regularizer = layer.activity_regularizer
    if regularizer is not None:
        return _regularizer_gaps(layer.name, _where(layer), "activity regularizer", regularizer)
    words = ["adds losses of its own (add_loss)"] if keras_compat.adds_losses(layer) else []
    return _gaps(GapCode.ADD_LOSS, layer, words)


def is_graph(model: keras.Model) -> bool:
    """Return whether a model calls its layers as its graph has it, with no code of its own."""
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call
    functional = keras_compat.Functional
    return isinstance(model, functional) and type(model).call is functional.call


def _own_gaps(model: keras.Model) -> list[Gap]:
    """Return the gaps of a model but for those of the layers that it calls."""
    gaps = _loss_of_layer_gaps(model)
    if not is_graph(model):
        return gaps + _gaps(GapCode.NO_GRAPH, model, ["is neither Sequential nor functional"])
    graph = graph_of(model)
    if graph is None:
        words = ["was built without a graph of its layers"] if model.built else []
        return gaps + _gaps(GapCode.NO_GRAPH, model, words)
    for symbol in graph.inputs:
        kinds = [kind for kind in ("sparse", "ragged") if getattr(symbol, kind)]
        if getattr(keras_compat.origin(symbol), "optional", False):
            kinds.append("optional")
        where = f"the input {symbol.name!r} of {_where(model)}"
        gaps += [Gap(GapCode.INPUT, symbol.name, f"{where} is {kind}") for kind in kinds]
    return gaps


def _deriving_nodes(model: keras.Model) -> list[Any]:
    """Return the calls of a model that a gradient may go through."""
    graph = graph_of(model) if is_graph(model) else None
    return [] if graph is None else [node for node in nodes(graph) if not has_no_gradient(node)]


def _call_gaps(node: Any) -> list[Gap]:
    """Return what a call in a graph is given that no rule knows of."""
    layer = node.operation
    if isinstance(layer, keras.Model) and len(bound(node).keys() - {"training", "mask"}) > 1:
        return _gaps(GapCode.PART, layer, ["is given more than its inputs"])
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


def _weight_gaps(model: keras.Model) -> list[Gap]:
    return [
        gap
        for variable in model.trainable_variables
        if variable.regularizer is not None
        for gap in _regularizer_gaps(
            variable.path, f"the weight {variable.path!r}", "regularizer", variable.regularizer
        )
    ]


def _regularizer_gaps(part: str, where: str, what: str, regularizer: Any) -> list[Gap]:
    known = find_rule(regularizer)
    if known is not None and known.kind == "regularizer":
        return []
    words = f"{where} has the {what} {regularizer!r}, which has no derived rule"
    return [Gap(GapCode.NO_RULE, part, words)]


def _loss_gaps(model: keras.Model) -> list[Gap]:
    gaps: list[Gap] = []
    for term in loss_terms(model):
        where = f"the loss {term.name!r} ({type(term.loss).__name__})"
        if term.path:
            where += f" of the output {term.output!r}"
        words = []
        if term.rule is None or term.rule.kind != "loss":
            gaps.append(Gap(GapCode.NO_RULE, term.name, f"{where} has no derived rule"))
        elif term.rule.options is not None:
            given = {key for key, value in term.options.items() if value is not None}
            extra = sorted(given - set(term.rule.options))
            words += [f"has {key}, which its rule does not know" for key in extra]
        if term.reduction not in REDUCTIONS:
            words.append(f"has reduction {term.reduction!r}, not a single number")
        if not isinstance(term.weight, (int, float, np.integer, np.floating, type(None))):
            words.append(f"has the loss weight {term.weight!r}, not a number")
        outputs = keras_compat.predictions(model)
        if tree.is_nested(functools.reduce(operator.getitem, term.path, outputs)):
            words.append("takes several outputs at once")
        gaps += [Gap(GapCode.LOSS, term.name, f"{where} {each}") for each in words]
    return gaps


def check_one_tensor_each(model: keras.Model) -> None:
    """Refuse a model in which a layer takes or makes several tensors.

    Raises:
        UnsupportedModelError: there is one.
    """
    if gaps := several_tensors(model):
        raise UnsupportedModelError(
            f"{'; '.join(gaps)}. Expected layers of one tensor each: numbers are named, and a path "
            "is followed, from one layer to the next."
        )
