"""Runs a Sequential or functional model forward through the rules of its parts, and back."""

import functools
import inspect
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from keras import tree
from keras.src.layers.merging.base_merge import Merge  # not exported; Add and others are it
from keras.src.ops.numpy import NotEqual  # not exported; operations of a graph are instances of it

from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.losses import RECURRENT, is_softmax, leaves_logits
from gradaudit.rules import (
    LayerCall,
    RegularizerCall,
    Rule,
    apply_activation,
    find_rule,
    own_variables,
    read_as,
)

Replay = Callable[..., np.ndarray]
Vjp = Callable[[Array], Array]


@dataclass(eq=False)
class Tensor:
    """One tensor of the step in one run: its value, and the cotangent that comes back to it.

    value: integers and booleans are bare NumPy arrays. dtype: the framework's.
    cotangent: d loss / d value, of value's shape; None until some arrives.
    logits: what softmax or sigmoid made it from, which Keras keeps on it for the losses.
    mask: Keras's mask, which says of which elements layers and losses shall take notice.
    source: what it was made from, in a run that is watched.
    """

    value: Array
    dtype: str
    logits: "Tensor | None" = None
    mask: np.ndarray | None = None
    cotangent: Array | None = None
    source: "Tensor | None" = None

    def add(self, cotangent: Array) -> None:
        """Add a part of the cotangent."""
        self.cotangent = cotangent if self.cotangent is None else self.cotangent + cotangent


@dataclass(eq=False)
class Application:
    """One call of a layer in a run that is watched.

    call: what the layer's rule was given, x: and with which input, the first of several. z: the
    pre-activation, None where the layer has no activation to be taken apart. y: the output, the
    first of several. paths: of the layer's variables, by the keys of the rule's cotangents.
    vjp: the rule's, from the cotangent of z, or of y where z is None.
    """

    layer: Any
    call: LayerCall
    x: Tensor
    paths: Mapping[str, str]
    vjp: Callable[[Any], tuple[Any, Mapping[str, Array]]]
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
    assigned: what layers made of variables that no gradient moves, by path.
    watch: is shown the tensors of every layer; activations are then operations of their own.
    """

    variables: Mapping[str, np.ndarray]
    arithmetic: Arithmetic
    replay: Replay
    watch: Watch | None = None
    cotangents: dict[str, Array] = field(default_factory=dict)
    penalties: list[Tensor] = field(default_factory=list)
    draws: Counter[str] = field(default_factory=Counter)
    assigned: dict[str, Array] = field(default_factory=dict)
    _read: dict[tuple[str, str], Array] = field(default_factory=dict)
    _tape: list[tuple[tuple[Tensor, ...], Callable[..., None]]] = field(default_factory=list)

    def apply(self, x: Tensor, found: tuple[Array, Vjp], dtype: str) -> Tensor:
        """Return the tensor that an operation made of x; found is its value and the VJP to x."""
        value, vjp = found
        (y,) = self._record([value], dtype, lambda dy: x.add(vjp(dy)))
        if self.watch is not None:
            y.source = x
        return y

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return x after the framework's cast to a dtype."""
        if dtype == x.dtype:
            return x  # the very tensor, with its logits: a cast hides them
        if not _is_float(dtype):
            return Tensor(np.trunc(numbers(x.value)).astype(dtype), dtype, mask=x.mask)
        if not _is_float(x.dtype):
            return Tensor(self.arithmetic.array(x.value, dtype), dtype, mask=x.mask)
        value = self.arithmetic.cast(x.value, dtype)
        y = self.apply(x, (value, lambda dy: self.arithmetic.cast(dy, x.dtype)), dtype)
        y.mask = x.mask
        return y

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
        (y,) = self._record([value], terms[0].dtype, carry)
        return y

    def _record(
        self, values: Sequence[Array], dtype: str, carry: Callable[..., None]
    ) -> tuple[Tensor, ...]:
        """Return the tensors of one operation; carry is given the cotangents of all of them."""
        ys = tuple(Tensor(value, dtype) for value in values)
        self._tape.append((ys, carry))
        return ys

    def backward(self) -> None:
        """Carry every cotangent back to the variables. The tape is used up on the way."""
        while self._tape:
            ys, carry = self._tape.pop()
            if any(y.cotangent is not None for y in ys):
                carry(*(np.zeros_like(y.value) if y.cotangent is None else y.cotangent for y in ys))

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the layer's next random draw of this step.

        Each draw adds (0, 1) to the seed's state: keras/src/random/seed_generator.py.
        """
        path = layer.seed_generator.state.path
        count = self.draws[path]
        self.draws[path] += 1
        state = self.variables[path] + np.array([0, count], self.variables[path].dtype)
        return self.replay(name, state, shape, **{"dtype": layer.compute_dtype, **options})

    def read(self, variable: Any, dtype: str) -> Array:
        """Return a variable's present value in this step, cast to a dtype."""
        key = variable.path, dtype
        if key not in self._read:
            held = self.assigned.get(variable.path)
            if held is None:
                held = self.variables[variable.path]
                if _is_float(variable.dtype):
                    held = self.arithmetic.array(held, variable.dtype)
            floats = _is_float(dtype) and _is_float(variable.dtype)
            self._read[key] = self.arithmetic.cast(held, dtype) if floats else held
        return self._read[key]

    def assign(self, variable: Any, value: Array) -> None:
        """Note a variable's new value."""
        self.assigned[variable.path] = self.arithmetic.cast(value, variable.dtype)
        self._read = {key: held for key, held in self._read.items() if key[0] != variable.path}

    def model(self, model: keras.Model, inputs: list[Tensor]) -> list[Tensor]:
        """Return a model's outputs, in the order of `model.outputs`."""
        graph = graph_of(model)
        held: dict[int, Tensor] = {}
        for symbol, x in zip(graph.inputs, inputs, strict=True):
            # The model casts to its own compute dtype, then each Input to the one it declares.
            x = self.cast(x, model.compute_dtype) if _is_float(x.dtype) else x
            held[id(symbol)] = self._of_rank(len(symbol.shape), self.cast(x, symbol.dtype))
        for node in nodes(graph):
            given = _held(node, held)
            layer = node.operation
            given.pop("training", None)  # fit's own takes its place: Functional's operation_fn
            if isinstance(layer, keras.Model):
                ys = self.model(layer, in_order(layer, next(iter(given.values()))))
            elif isinstance(layer, keras.Layer):
                ys = self._layer(layer, given)
            else:
                ys = self._operation(layer, given, node.outputs[0].dtype)
            held.update((id(symbol), y) for symbol, y in zip(node.outputs, ys, strict=True))
        outputs = [held[id(symbol)] for symbol in graph.outputs]
        if model.supports_masking:
            _mask_outputs(outputs, [x.mask for x in inputs])
        self._penalize_activity(model, outputs)
        return outputs

    def _of_rank(self, rank: int, x: Tensor) -> Tensor:
        """Return x with a last axis of length 1 more or less, where a model's Input wants that."""
        shape = x.value.shape
        if len(shape) == rank:
            return x
        wanted = (*shape, 1) if len(shape) < rank else shape[:-1]
        if not _is_float(x.dtype):
            return Tensor(x.value.reshape(wanted), x.dtype, mask=x.mask)
        y = self.apply(x, (x.value.reshape(wanted), lambda dy: dy.reshape(shape)), x.dtype)
        y.mask = x.mask
        return y

    def _layer(self, layer: Any, given: dict[str, Any]) -> list[Tensor]:
        """Return the outputs of a layer that was given some arguments, by name."""
        rule, dtype = find_rule(layer), layer.compute_dtype
        first = next(iter(given.values()))
        arguments = _with_masks(layer, given)
        previous = _others(arguments).get("mask")
        if previous is None:
            previous = tree.map_structure(_mask_of, first)
        xs = [self._given_to(rule, x, dtype) for x in _tensors(arguments)]
        if rule.takes_masks:
            # What is given as query_mask is lost on Keras: it takes the mask of the query itself.
            arguments["query_mask"] = xs[0].mask
            for x in xs:
                x.mask = None
        own = own_variables(layer)
        weights = {name: self.read(v, read_as(v, dtype)) for name, v in own.items()}
        to_logits = leaves_logits(layer)
        apart = to_logits or (self.watch is not None and _ends_with_activation(layer))
        call = LayerCall(
            layer, weights, _others(arguments), True, self.arithmetic, dtype, self, apart
        )
        ys, rule_vjp = self._run(call, rule, xs, dtype, own)
        names = {v.path: name for name, v in own.items()}
        paths = {names.get(v.path, v.path): v.path for v in layer.weights}
        application = Application(layer, call, xs[0], paths, rule_vjp)
        if apart:
            z = self._shown(application, "preactivation", ys[0])
            ys = [self.apply(z, apply_activation(layer.activation, z.value), dtype)]
            if to_logits:
                ys[0].logits = z
        elif is_softmax(layer) and "mask" not in arguments:
            ys[0].logits = xs[0]
        ys[0] = self._shown(application, "activation", ys[0])
        if layer.supports_masking:
            mask = previous
            if rule.mask is not None:
                x = [x.value for x in xs]
                mask = rule.mask(call, x[0] if len(x) == 1 else tuple(x), previous)
            _mask_outputs(ys, tree.flatten(mask))
        self._penalize_activity(layer, ys)
        return ys

    def _operation(self, operation: Any, given: dict[str, Any], dtype: str) -> list[Tensor]:
        """Return the outputs of an operation of keras.ops that was given some arguments.

        Those that make masks have no rule: Keras itself decides what they leave out.
        """
        rule = find_rule(operation)
        if rule is None:
            bare = tree.map_structure(_bare, given)
            return [Tensor(np.asarray(y), dtype) for y in tree.flatten(operation.call(**bare))]
        xs = [self._given_to(rule, x, dtype) for x in _tensors(given)]
        call = LayerCall(operation, {}, _others(given), True, self.arithmetic, dtype, self)
        ys, _ = self._run(call, rule, xs, dtype, {})
        if is_softmax(operation):
            ys[0].logits = xs[0]
        return ys

    def _given_to(self, rule: Rule, x: Tensor, dtype: str) -> Tensor:
        as_it_is = not rule.autocast if _is_float(x.dtype) else rule.integers
        return x if as_it_is else self.cast(x, dtype)

    def _run(
        self, call: LayerCall, rule: Rule, xs: list[Tensor], dtype: str, own: Mapping[str, Any]
    ) -> tuple[list[Tensor], Callable]:
        """Run a rule; return its outputs and its VJP."""
        values = tuple(x.value for x in xs)
        made, rule_vjp = rule.function(call, values[0] if len(xs) == 1 else values)
        if len(xs) == 1 and made is values[0]:
            return [xs[0]], rule_vjp  # a layer that does nothing hands on the very tensor, too

        def carry(*dys: Array) -> None:
            dx, cotangents = rule_vjp(dys if isinstance(made, tuple) else dys[0])
            for x, part in zip(xs, (dx,) if len(xs) == 1 else dx, strict=True):
                if part is not None and _is_float(x.dtype):
                    x.add(part if rule.autocast else self.arithmetic.cast(part, x.dtype))
            for key, cotangent in cotangents.items():
                variable = own[key] if key in own else self._variable(call.layer, key)
                self._collect(variable, self.arithmetic.cast(cotangent, variable.dtype))

        ys = self._record(made if isinstance(made, tuple) else (made,), dtype, carry)
        if self.watch is not None:
            for y in ys:
                y.source = xs[0]
        return list(ys), rule_vjp

    def _variable(self, layer: Any, path: str) -> Any:
        return next(v for v in layer.weights if v.path == path)

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
                weight = Tensor(self.read(variable, variable.dtype), variable.dtype)
                value, vjp = self._penalty(variable.regularizer, weight)
                carry = functools.partial(self._carry_to_weight, variable, vjp)
                self.penalties += self._record([value], variable.dtype, carry)

    def _carry_to_weight(self, variable: Any, vjp: Vjp, dpenalty: Array) -> None:
        self._collect(variable, vjp(dpenalty))

    def _penalty(self, regularizer: Any, w: Tensor) -> tuple[Array, Vjp]:
        call = RegularizerCall(regularizer, w.dtype, self.arithmetic, keras.config.epsilon())
        return find_rule(regularizer).function(call, w.value)


def _ends_with_activation(layer: Any) -> bool:
    """Return whether a rule ends with `call.activate`: those of Keras's own layers do."""
    activation = getattr(layer, "activation", keras.activations.linear)
    own = type(layer).__module__.partition(".")[0] == "keras"
    return own and activation is not keras.activations.linear and not isinstance(layer, RECURRENT)


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


def bound(node: Any) -> dict[str, Any]:
    """Return what a call in a functional model was given, by the names of its arguments."""
    given = node.arguments
    signature = inspect.signature(node.operation.call)
    named = signature.bind(*given.args, **given.kwargs).arguments
    return {name: value for name, value in named.items() if value is not None}


def _held(node: Any, held: Mapping[int, Tensor]) -> dict[str, Any]:
    """Return what a call was given, with the tensors of this run."""
    return {
        name: tree.map_structure(lambda leaf: held.get(id(leaf), leaf), value)
        for name, value in bound(node).items()
    }


def makes_mask(node: Any) -> bool:
    """Return whether a call in a functional model is one of those that Keras makes masks with.

    No gradient goes through it: it compares with a value that is left out, or takes masks only.
    """
    operation = node.operation
    if isinstance(operation, keras.Layer) or any(_is_float(y.dtype) for y in node.outputs):
        return False
    takes_floats = any(_is_float(x.dtype) for x in node.input_tensors)
    return find_rule(operation) is None and (isinstance(operation, NotEqual) or not takes_floats)


def is_mask(name: str) -> bool:
    """Return whether an argument of a layer's call is a mask, which no gradient goes through."""
    return name == "mask" or name.endswith("_mask")


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) or hasattr(leaf, "__array__")


def _bare(leaf: Any) -> Any:
    return numbers(leaf.value).astype(leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _mask_of(leaf: Any) -> np.ndarray | None:
    return leaf.mask if isinstance(leaf, Tensor) else None


def _with_masks(layer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments and the masks that Keras takes from its tensors.

    keras/src/layers/layer.py, step 6 of Layer.__call__: `mask` where one argument holds all
    tensors, `value_mask` for `value` and so on where several do. Merging layers read the masks off
    the tensors themselves.
    """
    names = inspect.signature(layer.call).parameters
    tensors = {
        name: value
        for name, value in given.items()
        if (flat := tree.flatten(value)) and all(_is_tensor(x) or x is None for x in flat)
    }
    found = dict(given)
    for name, value in tensors.items():
        own = "mask" if len(tensors) == 1 else f"{name}_mask"
        if (own in names or isinstance(layer, Merge)) and own not in given:
            mask = tree.map_structure(_mask_of, value)
            if any(part is not None for part in tree.flatten(mask)):
                found[own] = mask
    return found


def _tensors(arguments: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that a call differentiates by, in the order of its arguments."""
    return [
        leaf
        for name, value in arguments.items()
        if not is_mask(name)
        for leaf in tree.flatten(value)
        if isinstance(leaf, Tensor)
    ]


def _others(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other arguments of a call, masks as bare arrays."""
    found = {}
    for name, value in arguments.items():
        if is_mask(name):
            found[name] = tree.map_structure(
                lambda leaf: None if leaf is None else numbers(getattr(leaf, "value", leaf)), value
            )
        elif not any(isinstance(leaf, Tensor) for leaf in tree.flatten(value)):
            found[name] = value
    return found


def _mask_outputs(outputs: list[Tensor], masks: list[np.ndarray | None]) -> None:
    """Put masks on those outputs that have none, unless all have: Layer._set_mask_metadata."""
    for y, mask in zip(outputs, masks, strict=False):
        if y.mask is None and mask is not None:
            y.mask = mask


def numbers(value: Array) -> np.ndarray:
    """Return the bare numbers of an array of any arithmetic."""
    return np.asarray(getattr(value, "value", value))


def _is_float(dtype: str) -> bool:
    return "float" in dtype


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
