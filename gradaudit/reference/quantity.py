"""Which arrays of a step have a name, and the calls of layers that make them."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from gradaudit.reference.arguments import Tensor
from gradaudit.reference.walk import Application

NOT_ELEMENTWISE = (
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sparsemax,
    keras.activations.glu,
)
"""Activation functions of which one output depends on several pre-activations."""

_FORWARD, _LOSS, _BACKWARD, _UPDATE = range(4)


@dataclass(frozen=True)
class Quantity:
    """One array of a step.

    part: "input", "target", "loss", "learning_rate" or "weight"; or of the `call`-th call of a
        layer its "preactivation", its "activation" or the "derivative" of its activation function.
    path: of a weight.
    d: the derivative of the loss with respect to the array.
    updated: the weight after the step.
    """

    part: str
    call: int = -1
    path: str = ""
    d: bool = False
    updated: bool = False

    @property
    def is_raw(self) -> bool:
        """Whether it is something that a step starts from."""
        raw = self.part in ("input", "target", "weight", "learning_rate")
        return raw and not (self.d or self.updated)

    @property
    def is_of_a_row(self) -> bool:
        """Whether each row of the batch has one of its own, along the first axis."""
        return self.part in ("input", "target", "preactivation", "derivative", "activation")

    @property
    def rank(self) -> tuple[int, ...]:
        """Its place in the order of computation: an array depends on arrays of a lower rank."""
        if self.updated or self.part == "learning_rate":
            return (_UPDATE, int(self.updated))
        if self.part in ("target", "loss"):
            return (_LOSS, int(self.part == "loss"))
        parts = ("input", "weight", "preactivation", "derivative", "activation")
        order = parts.index(self.part)
        return (_BACKWARD, -self.call, -order) if self.d else (_FORWARD, self.call, order)


@dataclass(eq=False)
class WatchedCall(Application):
    """One call of a layer with what it made.

    z: the pre-activation; None where the layer has no activation function of its own.
    y: the output, the first of several.
    """

    z: Tensor | None
    y: Tensor

    @property
    def made(self) -> Tensor:
        """What the layer's rule made, before the activation function."""
        return self.y if self.z is None else self.z

    @property
    def only_activates(self) -> bool:
        """Whether the layer is nothing but its activation function."""
        return self.z is not None and self.z is self.x

    @property
    def mixes(self) -> bool:
        """Whether one output of the activation function depends on several pre-activations."""
        return activation_of(self.layer) in NOT_ELEMENTWISE


def named_quantities(model: keras.Model, calls: Sequence[WatchedCall]) -> dict[str, Quantity]:
    """Return the quantities of a step by name; `Quantities` lists the names."""
    named = {part: Quantity(part) for part in ("input", "target", "loss")}
    numbers: dict[int, int] = {}
    alone = len({id(call.layer) for call in calls if call.paths}) == 1
    for n, call in enumerate(calls):
        ends = [f"_{call.layer.name}"]
        if call.paths:
            number = numbers.setdefault(id(call.layer), len(numbers) + 1)
            ends += [f"_{number}"] + [""] * alone
        for name, quantity in _of_call(call, n).items():
            for end in ends:
                named.setdefault(name + end, quantity)  # of several calls of a layer, the first
    if len(model.outputs) == 1:
        last = len(calls) - 1
        named["logit"] = Quantity("preactivation", last)
        named["output"] = named["probability"] = Quantity("activation", last)
    found = dict(named)
    for name, quantity in named.items():
        if quantity.part in ("weight", "preactivation", "activation"):
            found[f"d{name}"] = replace(quantity, d=True)
        if quantity.part == "weight" and model.optimizer is not None:
            found[f"updated_{name}"] = replace(quantity, updated=True)
    if model.optimizer is not None:
        found["learning_rate"] = Quantity("learning_rate")
    return found


def _of_call(call: WatchedCall, n: int) -> dict[str, Quantity]:
    found = {name: Quantity("weight", path=path) for name, path in call.paths.items()}
    found["preactivation"] = Quantity("preactivation", n)
    found["activation"] = Quantity("activation", n)
    if call.z is not None and not call.mixes:
        found[f"{activation_name(call.layer)}_derivative"] = Quantity("derivative", n)
    return found


def activation_of(layer: Any) -> Callable[..., Any] | None:
    """Return a layer's activation function without its options; None where it has none."""
    activation = getattr(layer, "activation", None)
    return activation.func if isinstance(activation, functools.partial) else activation


def activation_name(layer: Any) -> str:
    """Return the name of a layer's activation function, "" where it has none."""
    activation = activation_of(layer)
    return "" if activation is None else activation.__name__
