"""Runs a Sequential or functional model forward through the rules of its parts, and back."""

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from keras import tree

from gradaudit.numerics import Arithmetic, Decision
from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.arguments import (
    Tensor,
    bare,
    held_by,
    mask_of,
    mask_outputs,
    numbers,
    others_of,
    tensors_of,
    with_masks,
)
from gradaudit.reference.graph import graph_of, in_order, is_float, nodes
from gradaudit.reference.traces import Traces, inputs_of
from gradaudit.rules import (
    LayerCall,
    RegularizerCall,
    Rule,
    apply_activation,
    find_rule,
    own_variables,
    read_as,
    rule_for,
)
from gradaudit.rules.logits import kept_logits, leaves_logits
from gradaudit.tracing import Cotangents

TRACED = "traced"
Replay = Callable[..., np.ndarray]
Vjp = Callable[[Array], Array]


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
    assigned: what layers made of variables that no gradient moves, by path.
    passed: what stood on the way back to a variable, by its path: TRACED for what was traced, and
        the places of custom gradients.
    traces: traces what has no derived rule. traced: ids of the layers that are traced.
    jit: whether XLA compiles the step. epsilon: `keras.config.epsilon()` in the step.
    watch: is shown the tensors of every layer; activations are then operations of their own.
    """

    variables: Mapping[str, np.ndarray]
    arithmetic: Arithmetic
    replay: Replay
    watch: Watch | None = None
    traces: Traces | None = None
    traced: Collection[int] = ()
    jit: bool = False
    epsilon: float = 1e-7
    cotangents: dict[str, Array] = field(default_factory=dict)
    penalties: list[Tensor] = field(default_factory=list)
    assigned: dict[str, Array] = field(default_factory=dict)
    passed: dict[str, frozenset[str]] = field(default_factory=dict)
    _read: dict[tuple[str, str], Array] = field(default_factory=dict)
    _tape: list[tuple[Sequence[Tensor], tuple[Tensor, ...], Callable[..., None]]] = field(
        default_factory=list
    )
    _passing: frozenset[str] = frozenset()

    def apply(self, x: Tensor, found: tuple[Array, Vjp], dtype: str) -> Tensor:
        """Return the tensor that an operation made of x; found is its value and the VJP to x."""
        value, vjp = found
        (y,) = self._record([x], [value], dtype, lambda dy: x.add(vjp(dy)))
        if self.watch is not None:
            y.source = x
        return y

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return x after the framework's cast to a dtype."""
        if dtype == x.dtype:
            return x  # the very tensor, with its logits: a cast hides them
        if not is_float(dtype):
            bare = numbers(x.value)
            whole = bare != 0 if dtype == "bool" else np.trunc(bare)
            return Tensor(whole.astype(dtype), dtype, mask=x.mask)
        if not is_float(x.dtype):
            exact = self.arithmetic.array(x.value, "float64")
            return Tensor(self.arithmetic.cast(exact, dtype), dtype, mask=x.mask)
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
        (y,) = self._record(terms, [value], terms[0].dtype, carry)
        return y

    def _record(
        self,
        xs: Sequence[Tensor],
        values: Sequence[Array],
        dtype: str | Sequence[str],
        carry: Callable[..., None],
    ) -> tuple[Tensor, ...]:
        """Return the tensors that one operation made of others; carry is given their cotangents.

        dtype: that of all floats among them, or of each.
        """
        dtypes = [dtype] * len(values) if isinstance(dtype, str) else dtype
        ys = tuple(Tensor(v, _dtype(v, d)) for v, d in zip(values, dtypes, strict=True))
        self._tape.append((xs, ys, carry))
        return ys

    def backward(self) -> None:
        """Carry every cotangent back to the variables. The tape is used up on the way."""
        while self._tape:
            xs, ys, carry = self._tape.pop()
            if all(y.cotangent is None for y in ys):
                continue
            self._passing = frozenset().union(*(y.passed for y in ys))
            carry(*map(_cotangent, ys))
            for x in xs:
                x.passed |= self._passing

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the layer's next random draw of this step.

        Each draw adds (0, 1) to the seed's state: keras/src/random/seed_generator.py.
        """
        seed = layer.seed_generator.state
        state = self.read(seed, seed.dtype)
        self.assign(seed, state + np.array([0, 1], state.dtype))
        return self.replay(name, state, shape, **{"dtype": layer.compute_dtype, **options})

    def read(self, variable: Any, dtype: str) -> Array:
        """Return a variable's present value in this step, cast to a dtype."""
        key = variable.path, dtype
        if key not in self._read:
            held = self.assigned.get(variable.path)
            if held is None:
                held = self.variables[variable.path]
                if is_float(variable.dtype):
                    held = self.arithmetic.array(held, variable.dtype)
            floats = is_float(dtype) and is_float(variable.dtype)
            self._read[key] = self.arithmetic.cast(held, dtype) if floats else held
        return self._read[key]

    def assign(self, variable: Any, value: Array) -> None:
        """Note a variable's new value."""
        floats = is_float(variable.dtype)
        self.assigned[variable.path] = (
            self.arithmetic.cast(value, variable.dtype) if floats else value
        )
        self._read = {key: held for key, held in self._read.items() if key[0] != variable.path}

    def model(self, model: keras.Model, inputs: list[Tensor]) -> list[Tensor]:
        """Return a model's outputs, in the order of `model.outputs`."""
        graph = graph_of(model)
        held: dict[int, Tensor] = {}
        for symbol, x in zip(graph.inputs, inputs, strict=True):
            # Whatever the model's compute dtype: Functional casts to what its Input declares.
            held[id(symbol)] = self._of_rank(len(symbol.shape), self.cast(x, symbol.dtype))
        for node in nodes(graph):
            given = held_by(node, held, self._tensor)
            layer = node.operation
            given.pop("training", None)  # fit's own takes its place: Functional's operation_fn
            if id(layer) in self.traced:
                ys = self.call(layer, given)
            elif isinstance(layer, keras.Model):
                xs = in_order(layer, next(iter(given.values())))
                mask_outputs(xs, [bare(mask) for mask in tree.flatten(given.get("mask"))])
                ys = self.model(layer, xs)
            elif isinstance(layer, keras.Layer):
                ys = self._layer(layer, given)
            else:
                ys = self._operation(layer, given, node.outputs[0].dtype)
            held.update((id(symbol), y) for symbol, y in zip(node.outputs, ys, strict=True))
        outputs = [held[id(symbol)] for symbol in graph.outputs]
        if model.supports_masking:
            mask_outputs(outputs, [x.mask for x in inputs])
        self._penalize_activity(model, outputs)
        return outputs

    def _tensor(self, leaf: Any) -> Tensor:
        """Return a variable, or an array of constants, as a tensor of this run."""
        if isinstance(leaf, keras.Variable):
            value = self.read(leaf, leaf.dtype)
            (made,) = self._record([], [value], leaf.dtype, lambda d: self._collect(leaf, d))
            return made
        array = np.asarray(leaf)
        dtype = array.dtype.name
        return Tensor(self.arithmetic.array(array, dtype) if is_float(dtype) else array, dtype)

    def _of_rank(self, rank: int, x: Tensor) -> Tensor:
        """Return x with a last axis of length 1 more or less, where a model's Input wants that."""
        shape = x.value.shape
        if len(shape) == rank:
            return x
        wanted = (*shape, 1) if len(shape) < rank else shape[:-1]
        if not is_float(x.dtype):
            return Tensor(x.value.reshape(wanted), x.dtype, mask=x.mask)
        y = self.apply(x, (x.value.reshape(wanted), lambda dy: dy.reshape(shape)), x.dtype)
        y.mask = x.mask
        return y

    def _layer(self, layer: Any, given: dict[str, Any]) -> list[Tensor]:
        """Return the outputs of a layer that was given some arguments, by name."""
        rule, dtype = rule_for(layer), layer.compute_dtype
        first = next(iter(given.values()))
        arguments = with_masks(layer, given)
        previous = others_of(arguments).get("mask")
        if previous is None:
            previous = tree.map_structure(mask_of, first)
        xs = self._given_to(rule, tensors_of(arguments), dtype)
        if rule.takes_masks:
            # What is given as query_mask is lost on Keras: it takes the mask of the query itself.
            arguments["query_mask"] = xs[0].mask
            for x in xs:
                x.mask = None
        own = own_variables(layer)
        weights = {name: self.read(v, read_as(v, dtype)) for name, v in own.items()}
        to_logits = leaves_logits(layer)
        apart = to_logits or (self.watch is not None and _has_activation_at_end(rule, layer))
        call = LayerCall(
            layer,
            weights,
            others_of(arguments),
            True,
            self.arithmetic,
            dtype,
            self,
            apart,
            self.epsilon,
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
        elif kept_logits(layer, 0) == "input" and "mask" not in arguments:
            ys[0].logits = xs[0]
        for place, y in enumerate(ys):
            y.hides_logits = kept_logits(layer, place) == "unknown"
        ys[0] = self._shown(application, "activation", ys[0])
        if layer.supports_masking:
            mask = previous
            if rule.mask is not None:
                x = [x.value for x in xs]
                mask = rule.mask(call, x[0] if len(x) == 1 else tuple(x), previous)
            mask_outputs(ys, tree.flatten(mask))
        self._penalize_activity(layer, ys)
        return ys

    def call(self, target: Callable, given: Mapping[str, Any]) -> list[Tensor]:
        """Return what a call of a Keras object makes of its arguments, by a trace of its code.

        With the tensors come their masks and logits, and what the call adds to the loss.
        """
        found, inputs = self.traces.call(target, given), inputs_of(given)
        made, vjp = found.trace.run([x.value for x in inputs], self, self.arithmetic, self.jit)

        def carry(*dys: Array) -> None:
            back = vjp([dy if is_float(y.dtype) else None for y, dy in zip(ys, dys, strict=True)])
            self._passing |= {TRACED}
            for x, part in zip(inputs, back.of_inputs, strict=True):
                if part is not None and is_float(x.dtype):
                    x.add(part)
            self._collect_traced(back)

        ys = self._record(inputs, made, found.trace.dtypes, carry)
        outputs, extra = list(ys[: found.count]), list(ys[found.count :])
        for place in found.masked:
            outputs[place].mask = numbers(extra.pop(0).value)
        for place in found.with_logits:
            outputs[place].logits = extra.pop(0)
        self.penalties += extra
        return outputs

    def traced_step(self, record: Any) -> Tensor:
        """Run a whole step by a trace of the model's code; return its loss."""
        traced, arrays = self.traces.step(record)
        xs = [self._tensor(array).value for array in arrays]
        (value,), vjp = traced.run(xs, self, self.arithmetic, self.jit, back=False)
        (dtype,) = traced.dtypes

        def carry(dy: Array) -> None:
            self._passing |= {TRACED}
            self._collect_traced(vjp([dy]))

        (loss,) = self._record([], [value], dtype, carry)
        return loss

    def _collect_traced(self, back: Cotangents) -> None:
        own = self._passing
        for path, cotangent in back.of_variables.items():
            self._passing = own | back.custom.get(path, frozenset())
            self._collect(self.traces.variable(path), cotangent)
        self._passing = own | back.custom_of_inputs

    def _operation(self, operation: Any, given: dict[str, Any], dtype: str) -> list[Tensor]:
        """Return the outputs of an operation of keras.ops that was given some arguments.

        Those that make masks have no rule: Keras itself decides what they leave out.
        """
        rule = find_rule(operation)
        if rule is None:
            made = operation.call(**tree.map_structure(bare, given))
            return [self._tensor(y) for y in tree.flatten(made)]
        xs = self._given_to(rule, tensors_of(given), dtype)
        arguments = others_of(given)
        call = LayerCall(
            operation, {}, arguments, True, self.arithmetic, dtype, self, epsilon=self.epsilon
        )
        ys, _ = self._run(call, rule, xs, dtype, {})
        if kept_logits(operation, 0) == "input":
            ys[0].logits = xs[0]
        return ys

    def _given_to(self, rule: Rule, xs: list[Tensor], dtype: str) -> list[Tensor]:
        """Return tensors as a rule takes them: integers as they are, if no float is among them."""
        floats = any(is_float(x.dtype) for x in xs)

        def is_taken(x: Tensor) -> bool:
            if is_float(x.dtype):
                return not rule.autocast
            return rule.integers and (not floats or x.dtype == "bool")

        return [x if is_taken(x) else self.cast(x, dtype) for x in xs]

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
                if part is not None and is_float(x.dtype):
                    x.add(part if rule.autocast else self.arithmetic.cast(part, x.dtype))
            for key, cotangent in cotangents.items():
                variable = own[key] if key in own else self._variable(call.layer, key)
                self._collect(variable, self.arithmetic.cast(cotangent, variable.dtype))

        ys = self._record(xs, made if isinstance(made, tuple) else (made,), dtype, carry)
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
            self.passed[variable.path] = self._passing.union(self.passed.get(variable.path, ()))

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
                self.penalties += self._record([], [value], variable.dtype, carry)

    def _carry_to_weight(self, variable: Any, vjp: Vjp, dpenalty: Array) -> None:
        self._collect(variable, vjp(dpenalty))

    def _penalty(self, regularizer: Any, w: Tensor) -> tuple[Array, Vjp]:
        call = RegularizerCall(regularizer, w.dtype, self.arithmetic, keras.config.epsilon())
        return rule_for(regularizer).function(call, w.value)


def _cotangent(y: Tensor) -> Array | None:
    """Return a tensor's cotangent: zeros where none has come, and none of a comparison."""
    if y.cotangent is not None or isinstance(y.value, Decision):
        return y.cotangent
    return np.zeros_like(y.value)


def _dtype(value: Array, dtype: str) -> str:
    """Return the dtype of what an operation made: integers stay what they are."""
    whole = isinstance(value, np.ndarray) and value.dtype.kind in "iub"
    return value.dtype.name if whole else dtype


def _has_activation_at_end(rule: Rule, layer: Any) -> bool:
    """Return whether a rule ends with an activation that changes its argument."""
    activation = getattr(layer, "activation", keras.activations.linear)
    return rule.ends_with_activation and activation is not keras.activations.linear
