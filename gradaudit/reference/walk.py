"""Runs a Sequential or functional model through the rules of its parts."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
from keras import tree

from gradaudit.numerics import numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Config, Passed, Provenance
from gradaudit.reference.arguments import (
    Tensor,
    bare,
    held_by,
    inputs_of,
    mask_of,
    mask_outputs,
    others_of,
    tensors_of,
    with_masks,
)
from gradaudit.reference.framework import Traces
from gradaudit.reference.graph import graph_of, in_order, is_float, nodes
from gradaudit.reference.operations import Operations, Vjp
from gradaudit.reference.penalties import activity_penalties, weight_penalties
from gradaudit.reference.state import Replay
from gradaudit.rules import (
    LayerCall,
    Rule,
    apply_activation,
    find_rule,
    own_variables,
    read_as,
    rule_for,
)
from gradaudit.rules.logits import kept_logits, leaves_logits
from gradaudit.tracing import Cotangents
from gradaudit.tracing.watch import OpWatch

__all__ = ["Application", "Replay", "Walk", "Watch"]

_TRACED = frozenset({Provenance(Passed.TRACED)})


@dataclass(eq=False)
class Application:
    """One call of a layer in a run that is watched.

    call: what the layer's rule was given. x: its input, the first of several.
    paths: of the layer's variables, by the keys of the rule's cotangents.
    vjp: the rule's, from the cotangent of the pre-activation, or of the output where the layer has
        no activation function that is applied apart from the rule.
    """

    layer: Any
    call: LayerCall
    x: Tensor
    paths: Mapping[str, str]
    vjp: Callable[[Any], tuple[Any, Mapping[str, Array]]]


class Watch(Protocol):
    """Is shown every tensor that a layer makes, and may replace it."""

    def __call__(self, application: Application, part: str, made: Tensor) -> Tensor:
        """Return the tensor to go on with. part: "preactivation" or "activation"."""


@dataclass
class Walk(Operations):
    """One run of a step through the rules of its parts, in one arithmetic.

    variables, arithmetic, replay: see `State`.
    watch: is shown the tensors of every layer; activations are then operations of their own.
    traces: traces parts that have no derived rule. traced: ids of the layers that are traced.
    jit: whether XLA compiles the step. config: settings of Keras in the step.
    op_watch: is shown each op of a traced step.
    penalties: what the regularizers add to the loss, in the order in which the run met them.
    """

    config: Config = field(kw_only=True)
    watch: Watch | None = None
    traces: Traces | None = None
    traced: Collection[int] = ()
    jit: bool = False
    op_watch: OpWatch | None = None
    penalties: list[Tensor] = field(default_factory=list)

    def apply(self, x: Tensor, found: tuple[Array, Vjp], dtype: str) -> Tensor:
        """Return the tensor that an operation made of x, as `Operations.apply` does."""
        y = super().apply(x, found, dtype)
        if self.watch is not None:
            y.source = x
        return y

    def model(self, model: keras.Model, inputs: list[Tensor]) -> list[Tensor]:
        """Return a model's outputs, in the order of `model.outputs`."""
        graph = graph_of(model)
        held: dict[int, Tensor] = {}
        for symbol, x in zip(graph.inputs, inputs, strict=True):
            # Whatever the model's compute dtype: Functional casts to what its Input declares.
            held[id(symbol)] = self.of_rank(len(symbol.shape), self.cast(x, symbol.dtype))
        for node in nodes(graph):
            given = held_by(node, held, self.tensor)
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
        self.penalties += activity_penalties(self, model, outputs, self.config.epsilon)
        return outputs

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
            self.config,
            apart,
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
                values = tuple(x.value for x in xs)
                mask = rule.mask(call, values[0] if len(xs) == 1 else values, previous)
            mask_outputs(ys, tree.flatten(mask))
        self.penalties += activity_penalties(self, layer, ys, self.config.epsilon)
        return ys

    def call(self, target: Callable, given: Mapping[str, Any]) -> list[Tensor]:
        """Return the outputs of a call of a Keras object, by a trace of its code.

        They have their masks and logits. Losses that the call adds go to `penalties`.
        """
        found, inputs = self._traces.call(target, given), inputs_of(given)
        made, vjp = found.trace.run([x.value for x in inputs], self, self.arithmetic, self.jit)

        def carry(*dys: Array) -> Sequence[Array | None]:
            floats = [dy if is_float(y.dtype) else None for y, dy in zip(ys, dys, strict=True)]
            back = vjp(floats)
            self._collect_traced(back)
            self._gradients.passing |= back.passed_to_inputs | _TRACED
            return back.of_inputs

        ys = self.record(inputs, made, found.trace.dtypes, carry)
        outputs, extra = ys[: found.count], ys[found.count :]
        for place in found.masked:
            outputs[place].mask = numbers(extra.pop(0).value)
        for place in found.with_logits:
            outputs[place].logits = extra.pop(0)
        self.penalties += extra
        return outputs

    def traced_step(self, record: Any) -> Tensor:
        """Run a whole step by a trace of the model's code; return its loss."""
        traced, arrays = self._traces.step(record)
        xs = [self.tensor(array).value for array in arrays]
        (value,), vjp = traced.run(xs, self, self.arithmetic, self.jit, False, self.op_watch)
        (dtype,) = traced.dtypes

        def carry(dy: Array) -> tuple[()]:
            self._collect_traced(vjp([dy]))
            return ()

        (loss,) = self.record([], [value], dtype, carry)
        return loss

    @property
    def _traces(self) -> Traces:
        if self.traces is None:
            raise TypeError("a part of the model is traced. Expected a Walk with `traces`.")
        return self.traces

    def _collect_traced(self, back: Cotangents) -> None:
        for path, cotangent in back.of_variables.items():
            passed = back.passed[path] | _TRACED
            self.collect(self._traces.variable(path), cotangent, passed)

    def _operation(self, operation: Any, given: dict[str, Any], dtype: str) -> list[Tensor]:
        """Return the outputs of an operation of keras.ops that was given some arguments.

        Those that make masks have no rule: Keras itself decides what they leave out.
        """
        rule = find_rule(operation)
        if rule is None:
            made = operation.call(**tree.map_structure(bare, given))
            return [self.tensor(y) for y in tree.flatten(made)]
        xs = self._given_to(rule, tensors_of(given), dtype)
        arguments = others_of(given)
        call = LayerCall(operation, {}, arguments, True, self.arithmetic, dtype, self, self.config)
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

        def carry(*dys: Array) -> list[Array | None]:
            dx, cotangents = rule_vjp(dys if isinstance(made, tuple) else dys[0])
            for key, cotangent in cotangents.items():
                variable = own[key] if key in own else self._variable(call.layer, key)
                self.collect(variable, self.arithmetic.cast(cotangent, variable.dtype))
            parts = zip(xs, (dx,) if len(xs) == 1 else dx, strict=True)
            return [self._to_input(rule, x, part) for x, part in parts]

        several = made if isinstance(made, tuple) else (made,)
        ys = self.record(xs, several, dtype, carry, frozenset(call.passed))
        if self.watch is not None:
            for y in ys:
                y.source = xs[0]
        return ys, rule_vjp

    def _to_input(self, rule: Rule, x: Tensor, dx: Array | None) -> Array | None:
        """Return the cotangent of an input in its own dtype: autocast has cast it otherwise."""
        if dx is None or not is_float(x.dtype):
            return None
        return dx if rule.autocast else self.arithmetic.cast(dx, x.dtype)

    def _variable(self, layer: Any, path: str) -> Any:
        return next(v for v in layer.weights if v.path == path)

    def _shown(self, application: Application, part: str, made: Tensor) -> Tensor:
        return made if self.watch is None else self.watch(application, part, made)

    def penalize_weights(self, variables: Iterable[Any]) -> None:
        """Note the penalties on the regularized ones among some trainable Keras variables."""
        self.penalties += weight_penalties(self, variables, self.config.epsilon)


def _has_activation_at_end(rule: Rule, layer: Any) -> bool:
    """Return whether a rule ends with an activation that changes its argument."""
    activation = getattr(layer, "activation", keras.activations.linear)
    return rule.ends_with_activation and activation is not keras.activations.linear
