"""Runs a Sequential or functional model forward and backward through the rules of its layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules import LayerCall, find_rule

Replay = Callable[..., np.ndarray]


@dataclass
class Walk:
    """One run of a model in one arithmetic; collects the cotangents of its variables.

    variables: values before the step, by path. replay: repeats a random draw from a seed's state.
    """

    variables: Mapping[str, np.ndarray]
    arithmetic: Arithmetic
    replay: Replay
    cotangents: dict[str, Array] = field(default_factory=dict)
    _draws: dict[str, int] = field(default_factory=dict)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the layer's next random draw of this step, applied to ones of `shape`.

        Each draw adds (0, 1) to the seed's state: keras/src/random/seed_generator.py.
        """
        path = layer.seed_generator.state.path
        count = self._draws.get(path, 0)
        self._draws[path] = count + 1
        state = self.variables[path] + np.array([0, count], self.variables[path].dtype)
        return self.replay(name, state, shape, layer.compute_dtype, **options)

    def layer(self, layer: Any, x: Array, dtype: str, to_logits: bool) -> tuple[Array, Callable]:
        """Return a layer's output and the function from its cotangent to that of x (of `dtype`)."""
        compute = layer.compute_dtype
        own = {
            v.name: (
                v,
                self.arithmetic.cast(
                    self.arithmetic.array(self.variables[v.path], v.dtype), compute
                ),
            )
            for v in layer.weights
        }
        weights = {name: value for name, (_, value) in own.items()}
        call = LayerCall(layer, weights, True, self.arithmetic, self.draw, to_logits)
        y, vjp = find_rule(layer).function(call, self.arithmetic.cast(x, compute))

        def backward(dy: Array) -> Array:
            dx, cotangents = vjp(dy)
            for name, cotangent in cotangents.items():
                variable = own[name][0]
                cotangent = self.arithmetic.cast(cotangent, variable.dtype)
                self._collect(self.cotangents, variable.path, cotangent)
            return self.arithmetic.cast(dx, dtype)

        return y, backward

    @staticmethod
    def _collect(cotangents: dict, key: Any, cotangent: Array) -> None:
        present = cotangents.get(key)
        cotangents[key] = cotangent if present is None else present + cotangent

    def model(
        self, model: keras.Model, inputs: list[Array], dtypes: list[str], to_logits: bool = False
    ) -> tuple[list[Array], list[str], Callable[[list[Array]], list[Array]]]:
        """Return a model's outputs, their dtypes, and the VJP from outputs to inputs.

        to_logits: leave out the activation of the layer that makes the output.
        """
        graph = graph_of(model)
        values: dict[int, Array] = {}
        kinds: dict[int, str] = {}
        for tensor, x in zip(graph.inputs, inputs, strict=True):
            # The model casts to its own compute dtype, then each Input to the one it declares.
            x = self.arithmetic.cast(x, model.compute_dtype)
            kind = tensor.dtype if "float" in tensor.dtype else keras.config.floatx()
            values[id(tensor)] = self.arithmetic.cast(x, kind)
            kinds[id(tensor)] = kind
        last = {id(tensor) for tensor in graph.outputs} if to_logits else set()
        tape: list[tuple[list[int], list[int], Callable]] = []
        for node in nodes(graph):
            layer = node.operation
            sources = [id(tensor) for tensor in node.arguments.keras_tensors]
            targets = [id(tensor) for tensor in node.outputs]
            if not last.isdisjoint(sources):
                raise UnsupportedModelError(
                    f"the output of the model is also an input of the layer {layer.name!r}, and "
                    "the loss takes the logits behind it. Expected an output that is only an "
                    "output. Pass from_logits=True and a linear output."
                )
            unwrap = to_logits and not last.isdisjoint(targets)
            xs, dts = [values[key] for key in sources], [kinds[key] for key in sources]
            if isinstance(layer, keras.Model):
                ys, dtys, backward = self.model(layer, xs, dts, unwrap)
            else:
                y, one = self.layer(layer, xs[0], dts[0], unwrap)
                ys, dtys, backward = [y], [layer.compute_dtype], lambda dys, one=one: [one(dys[0])]
            values.update(zip(targets, ys, strict=True))
            kinds.update(zip(targets, dtys, strict=True))
            tape.append((sources, targets, backward))

        def vjp(dys: list[Array]) -> list[Array]:
            cotangents: dict[int, Array] = {}
            for tensor, dy in zip(graph.outputs, dys, strict=True):
                self._collect(cotangents, id(tensor), dy)
            for sources, targets, backward in reversed(tape):
                if not any(key in cotangents for key in targets):
                    continue
                dtargets = [
                    cotangents[key] if key in cotangents else np.zeros_like(values[key])
                    for key in targets
                ]
                for key, dx in zip(sources, backward(dtargets), strict=True):
                    self._collect(cotangents, key, dx)
            return [
                cotangents.get(id(tensor), np.zeros_like(values[id(tensor)]))
                for tensor in graph.inputs
            ]

        outputs = [values[id(tensor)] for tensor in graph.outputs]
        return outputs, [kinds[id(tensor)] for tensor in graph.outputs], vjp


def graph_of(model: keras.Model) -> Any:
    """Return the functional graph of a model; None for a Sequential one that is not built."""
    return model._functional if isinstance(model, keras.Sequential) else model


def nodes(graph: Any) -> list[Any]:
    """Return the calls of a functional model in an order in which inputs come before outputs."""
    return [
        node
        for depth in sorted(graph._nodes_by_depth, reverse=True)
        for node in graph._nodes_by_depth[depth]
        if not isinstance(node.operation, keras.layers.InputLayer)
    ]


def output_layer(model: keras.Model) -> Any:
    """Return the layer whose output is the output of a model with one."""
    layer = model
    while isinstance(layer, keras.Model):
        layer = graph_of(layer).outputs[0]._keras_history.operation
    return layer


def model_inputs(model: keras.Model, x: Any) -> list[np.ndarray]:
    """Return a batch's inputs in the order of the model's own."""
    if isinstance(x, dict) and all(tensor.name in x for tensor in model.inputs):
        return [np.asarray(x[tensor.name]) for tensor in model.inputs]
    return [np.asarray(part) for part in tree.flatten(x)]
