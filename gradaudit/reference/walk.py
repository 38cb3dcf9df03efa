"""Runs a Sequential or functional model forward through the rules of its parts, and back."""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from keras import tree

from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.losses import leaves_logits
from gradaudit.rules import LayerCall, RegularizerCall, apply_activation, find_rule

Replay = Callable[..., np.ndarray]
Vjp = Callable[[Array], Array]


@dataclass(eq=False)
class Tensor:
    """One tensor of the step in one run: its value, and the cotangent that comes back to it.

    dtype: the framework's. cotangent: d loss / d value, of value's shape; None until some arrives.
    logits: what softmax or sigmoid made it from, which Keras keeps on it for the losses.
    source: what it was made from, in a run that is watched.
    """

    value: Array
    dtype: str
    logits: "Tensor | None" = None
    cotangent: Array | None = None
    source: "Tensor | None" = None

    def add(self, cotangent: Array) -> None:
        """Add a part of the cotangent."""
        self.cotangent = cotangent if self.cotangent is None else self.cotangent + cotangent


@dataclass(eq=False)
class Application:
    """One call of a layer in a run that is watched.

    call: what the layer's rule was given, x: and with which input. z: the pre-activation, None
    where the layer has no activation to be taken apart. y: the output. paths: of the layer's
    variables, by their names. vjp: the rule's, from the cotangent of z, or of y where z is None.
    """

    layer: Any
    call: LayerCall
    x: Tensor
    paths: Mapping[str, str]
    vjp: Callable[[Array], tuple[Array, Mapping[str, Array]]]
    z: Tensor | None = None
    y: Tensor | None = None


class Watch(Protocol):
    """Sees every tensor that a layer makes, and may put another in its place."""

    def __call__(self, application: Application, part: str, made: Tensor) -> Tensor:
        """Return the tensor to go on with. part: "preactivation" or "activation"."""


@dataclass
class Walk:
    """One run of a step in one arithmetic: a tape of operations and their VJPs.

    variables: values before the step, by path. replay: repeats a random draw from a seed's state.
    cotangents: of the variables, by path; complete after `backward`.
    penalties: what the regularizers add to the loss, in the order in which the run met them.
    draws: how often each seed was drawn from, by its path.
    watch: is shown the tensors of every layer; activations are then operations of their own.
    """

    variables: Mapping[str, np.ndarray]
    arithmetic: Arithmetic
    replay: Replay
    watch: Watch | None = None
    cotangents: dict[str, Array] = field(default_factory=dict)
    penalties: list[Tensor] = field(default_factory=list)
    draws: Counter[str] = field(default_factory=Counter)
    _tape: list[tuple[Tensor, Callable[[Array], None]]] = field(default_factory=list)

    def apply(self, x: Tensor, found: tuple[Array, Vjp], dtype: str) -> Tensor:
        """Return the tensor that an operation made of x; found is its value and the VJP to x."""
        value, vjp = found
        y = self._record(value, dtype, lambda dy: x.add(vjp(dy)))
        if self.watch is not None:
            y.source = x
        return y

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return x after the framework's cast to a dtype."""
        if dtype == x.dtype:
            return x  # the very tensor, with its logits: a cast hides them
        value = self.arithmetic.cast(x.value, dtype)
        return self.apply(x, (value, lambda dy: self.arithmetic.cast(dy, x.dtype)), dtype)

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """Return x times a constant of its dtype."""
        constant = self.arithmetic.array(factor, x.dtype)
        return self.apply(x, (x.value * constant, lambda dy: dy * constant), x.dtype)

    def total(self, terms: list[Tensor]) -> Tensor:
        """Return the sum of scalars of one dtype."""

        def carry(dy: Array) -> None:
            for term in terms:
                term.add(dy)

        value = functools.reduce(operator.add, (term.value for term in terms))
        return self._record(value, terms[0].dtype, carry)

    def _record(self, value: Array, dtype: str, carry: Callable[[Array], None]) -> Tensor:
        y = Tensor(value, dtype)
        self._tape.append((y, carry))
        return y

    def backward(self) -> None:
        """Carry every cotangent back to the variables. The tape is used up on the way."""
        while self._tape:
            y, carry = self._tape.pop()
            if y.cotangent is not None:
                carry(y.cotangent)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the layer's next random draw of this step, applied to ones of `shape`.

        Each draw adds (0, 1) to the seed's state: keras/src/random/seed_generator.py.
        """
        path = layer.seed_generator.state.path
        count = self.draws[path]
        self.draws[path] += 1
        state = self.variables[path] + np.array([0, count], self.variables[path].dtype)
        return self.replay(name, state, shape, layer.compute_dtype, **options)

    def model(self, model: keras.Model, inputs: list[Tensor]) -> list[Tensor]:
        """Return a model's outputs, in the order of `model.outputs`."""
        graph = graph_of(model)
        held: dict[int, Tensor] = {}
        for symbol, x in zip(graph.inputs, inputs, strict=True):
            # The model casts to its own compute dtype, then each Input to the one it declares.
            kind = symbol.dtype if "float" in symbol.dtype else keras.config.floatx()
            x = self.cast(self.cast(x, model.compute_dtype), kind)
            held[id(symbol)] = self._of_rank(len(symbol.shape), x)
        for node in nodes(graph):
            layer = node.operation
            if isinstance(layer, keras.Model):
                given = in_order(layer, arguments(node)[0])
                ys = self.model(layer, [held[id(symbol)] for symbol in given])
            else:
                (symbol,) = node.arguments.keras_tensors
                ys = [self._layer(layer, held[id(symbol)])]
            held.update((id(symbol), y) for symbol, y in zip(node.outputs, ys, strict=True))
        outputs = [held[id(symbol)] for symbol in graph.outputs]
        self._penalize_activity(model, outputs)
        return outputs

    def _of_rank(self, rank: int, x: Tensor) -> Tensor:
        """Return x with a last axis of length 1 more or less, where a model's Input wants that."""
        shape = x.value.shape
        if len(shape) == rank:
            return x
        wanted = (*shape, 1) if len(shape) < rank else shape[:-1]
        return self.apply(x, (x.value.reshape(wanted), lambda dy: dy.reshape(shape)), x.dtype)

    def _layer(self, layer: Any, x: Tensor) -> Tensor:
        dtype = layer.compute_dtype
        x = self.cast(x, dtype)
        own = {v.name: v for v in layer.weights}
        weights = {
            name: self.arithmetic.cast(
                self.arithmetic.array(self.variables[v.path], v.dtype), dtype
            )
            for name, v in own.items()
        }
        to_logits = leaves_logits(layer)
        apart = to_logits or (self.watch is not None and _ends_with_activation(layer))
        call = LayerCall(layer, weights, True, self.arithmetic, self.draw, apart)
        value, rule_vjp = find_rule(layer).function(call, x.value)

        def vjp(dy: Array) -> Array:
            dx, cotangents = rule_vjp(dy)
            for name, cotangent in cotangents.items():
                self._collect(own[name], self.arithmetic.cast(cotangent, own[name].dtype))
            return dx

        # A layer that does nothing hands on the very tensor, as in Keras.
        y = x if value is x.value else self.apply(x, (value, vjp), dtype)
        paths = {name: v.path for name, v in own.items()}
        application = Application(layer, call, x, paths, rule_vjp)
        if apart:
            z = self._shown(application, "preactivation", y)
            y = self.apply(z, apply_activation(layer.activation, z.value), dtype)
            if to_logits:
                y.logits = z
        y = self._shown(application, "activation", y)
        self._penalize_activity(layer, [y])
        return y

    def _shown(self, application: Application, part: str, made: Tensor) -> Tensor:
        return made if self.watch is None else self.watch(application, part, made)

    def _collect(self, variable: Any, cotangent: Array) -> None:
        if variable.trainable:
            present = self.cotangents.get(variable.path)
            self.cotangents[variable.path] = cotangent if present is None else present + cotangent

    def _penalize_activity(self, layer: Any, outputs: Iterable[Tensor]) -> None:
        """Note the penalties on one call of a layer, each divided by the size of the batch."""
        if layer.activity_regularizer is None:
            return
        for y in outputs:
            loss = self.apply(y, self._penalty(layer.activity_regularizer, y), y.dtype)
            if y.value.ndim:
                size = self.arithmetic.array(max(y.value.shape[0], 1), y.dtype)
                mean = (loss.value / size, lambda dy, size=size: dy / size)
                loss = self.apply(loss, mean, y.dtype)
            self.penalties.append(loss)

    def penalize_weights(self, variables: Iterable[Any]) -> None:
        """Note the penalties on the regularized ones among some trainable Keras variables."""
        for variable in variables:
            if variable.regularizer is not None:
                value = self.arithmetic.array(self.variables[variable.path], variable.dtype)
                weight = Tensor(value, variable.dtype)
                value, vjp = self._penalty(variable.regularizer, weight)
                carry = functools.partial(self._carry_to_weight, variable, vjp)
                self.penalties.append(self._record(value, variable.dtype, carry))

    def _carry_to_weight(self, variable: Any, vjp: Vjp, dpenalty: Array) -> None:
        self._collect(variable, vjp(dpenalty))

    def _penalty(self, regularizer: Any, w: Tensor) -> tuple[Array, Vjp]:
        call = RegularizerCall(regularizer, w.dtype, self.arithmetic, keras.config.epsilon())
        return find_rule(regularizer).function(call, w.value)


def _ends_with_activation(layer: Any) -> bool:
    """Return whether a rule ends with `call.activate`: those of Keras's own layers do."""
    activation = getattr(layer, "activation", keras.activations.linear)
    own = type(layer).__module__.partition(".")[0] == "keras"
    return (
        own
        and activation is not keras.activations.linear
        and not isinstance(layer, keras.layers.RNN)
    )


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


def arguments(node: Any) -> list[Any]:
    """Return what a call in a functional model was given, by position or by name."""
    return [*node.arguments.args, *node.arguments.kwargs.values()]


def in_order(model: keras.Model, x: Any) -> list[Any]:
    """Return the inputs that a model was given, in the order of its own.

    As in keras/src/models/functional.py: those of a dict go by the names of the inputs where the
    model was not made with a dict.
    """
    own = graph_of(model).input
    if isinstance(x, dict) and not isinstance(own, dict):
        return [x[symbol.name] for symbol in tree.flatten(own)]
    return tree.flatten(x)


def packed(model: keras.Model, outputs: list[Any]) -> Any:
    """Return a model's outputs in the structure in which its call returns them."""
    structure = tree.pack_sequence_as(graph_of(model).output, outputs)
    single = isinstance(structure, (list, tuple)) and len(structure) == 1
    return structure[0] if single else structure
