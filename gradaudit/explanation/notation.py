"""How a textbook writes the quantities of a step: W₂, a₂, h₂, and where each comes from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.records import Formula, Symbol
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.quantities import NOT_ELEMENTWISE, activation_of
from gradaudit.reference.walk import Application
from gradaudit.rules import apply_activation

_LETTERS = {"kernel": "W", "bias": "b"}
_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


class Notation:
    """Symbols and formulas of the calls of layers in one step.

    Layers that have weights are numbered in the order of their calls, from 1, where there are
    several: aₖ is a pre-activation, hₖ an activation, y or p the last one, Wₖ and bₖ are weights.

    Args:
        calls: all calls of layers, in their order. targets: of the step. losses: in words.
    """

    def __init__(self, calls: Sequence[Application], targets: Any, losses: str) -> None:
        self._calls, self._targets, self._losses = calls, targets, losses
        owners = [call.layer for call in calls if call.paths]
        self._owners = list({id(layer): layer for layer in owners}.values())

    def weight(self, path: str) -> Symbol:
        """Return the symbol of a weight."""
        owner = next(call for call in self._calls if path in call.paths.values())
        name = next(name for name, own in owner.paths.items() if own == path)
        return Symbol(_LETTERS.get(name, name), self.sub(owner.layer))

    def sub(self, layer: Any) -> str:
        """Return what stands below the letters of a layer: its number, or its name."""
        if layer not in self._owners:
            return layer.name
        return str(self._owners.index(layer) + 1) if len(self._owners) > 1 else ""

    def symbol(self, n: int, part: str) -> Symbol:
        """Return the symbol of what the n-th call makes: "z" before its activation, or "y"."""
        call = self._calls[n]
        again = sum(earlier.layer is call.layer for earlier in self._calls[:n])
        sub = self.sub(call.layer) + "′" * again
        if part == "z":
            return self.input(n) if only_activates(call) else Symbol("a", sub)
        if n < len(self._calls) - 1:
            return Symbol("h", sub)
        return Symbol("p" if activation_of(call.layer) in _PROBABILITIES else "y")

    def source(self, n: int) -> int | None:
        """Return which call made the input of the n-th one; None for an input of the model."""
        makers = {id(call.y): m for m, call in enumerate(self._calls[:n])}
        tensor: Tensor | None = self._calls[n].x
        while tensor is not None and id(tensor) not in makers:
            tensor = tensor.source
        return None if tensor is None else makers[id(tensor)]

    def users(self, n: int) -> list[int]:
        """Return the calls whose input the n-th one made."""
        return [m for m in range(len(self._calls)) if self.source(m) == n]

    def input(self, n: int) -> Symbol:
        """Return the symbol of the n-th call's input."""
        maker = self.source(n)
        return Symbol("x") if maker is None else self.symbol(maker, "y")

    def dz(self, n: int) -> Symbol:
        """Return the symbol of the cotangent that the n-th call's rule is given."""
        return replace(self.symbol(n, "y" if self._calls[n].z is None else "z"), d=True)

    def before_activation(self, n: int) -> Formula:
        """Return how the n-th call makes its pre-activation."""
        layer, x = self._calls[n].layer, self.input(n)
        if not isinstance(layer, keras.layers.Dense):
            return (f"{type(layer).__name__}(", x, ")")
        formula = (x, " ", Symbol("W", self.sub(layer)))
        return (*formula, " + ", Symbol("b", self.sub(layer))) if layer.use_bias else formula

    def activation(self, n: int) -> Formula:
        """Return how the n-th call makes its output of its pre-activation."""
        return (f"{_name(self._calls[n])}(", self.symbol(n, "z"), ")")

    def slope(self, n: int, at: str) -> Formula:
        """Return the derivative of the n-th call's activation at an element."""
        return (f"{_name(self._calls[n])}′(", replace(self.symbol(n, "z"), at=at), ")")

    def through_activation(self, n: int) -> Formula:
        """Return what the activation of the n-th call sends back to its pre-activation."""
        call, dy = self._calls[n], replace(self.symbol(n, "y"), d=True)
        if call.y.cotangent is None:
            return self.from_loss(n, call.z.cotangent.value)
        if mixes(call):
            return (f"vjp of {_name(call)} (", dy, ")")
        return (f"{_name(call)}′(", self.symbol(n, "z"), ") ∘ ", dy)

    def from_loss(self, n: int, cotangent: np.ndarray) -> Formula:
        """Return what the loss sends back: p − t, once or twice, where the numbers are that."""
        y, t = self._calls[n].y.value.value, self._targets
        if not tree.is_nested(t) and np.shape(t) == y.shape == cotangent.shape:
            residual = (self.symbol(n, "y"), " − ", Symbol("t"))
            if np.allclose(cotangent, y - t, rtol=1e-12, atol=1e-15):
                return residual
            for factor, words in ((1, ""), (2, "2 ")):
                for count in (len(y), y.size):
                    if np.allclose(count * cotangent, factor * (y - t), rtol=1e-12, atol=1e-15):
                        divided = f" / {count}" if count > 1 else ""
                        return (f"{words}(", *residual, f"){divided}")
        return (f"vjp of {self._losses}",)

    def to_output(self, n: int, reached: set[int]) -> Formula:
        """Return what the calls that use the n-th one's output, or the loss, send back to it."""
        users, cotangent = self.users(n), self._calls[n].y.cotangent.value
        if not users:
            return self.from_loss(n, cotangent)
        sent = sum(self._sent(m) for m in users)
        formula = joined([self.to_input(m) for m in users if m in reached])
        whole = np.allclose(sent, cotangent, rtol=1e-9, atol=1e-15)
        return formula if whole else (*formula, f" + vjp of {self._losses}")

    def _sent(self, n: int) -> np.ndarray:
        """Return what the n-th call sends back to its input, in numbers."""
        call = self._calls[n]
        made = call.y if call.z is None else call.z
        if only_activates(call):
            return (
                made.cotangent.value
                if call.y.cotangent is None
                else apply_activation(call.layer.activation, made.value)[1](call.y.cotangent).value
            )
        return call.vjp(made.cotangent)[0].value

    def to_input(self, n: int) -> Formula:
        """Return what the n-th call sends back to its input."""
        layer = self._calls[n].layer
        if only_activates(self._calls[n]):
            return self.through_activation(n)
        if isinstance(layer, keras.layers.Dense):
            return (self.dz(n), " ", Symbol("W", self.sub(layer)), "ᵀ")
        return (f"vjp of {type(layer).__name__} (", self.dz(n), ")")

    def to_weight(self, n: int, path: str) -> Formula:
        """Return what the n-th call sends to a weight of its own."""
        call = self._calls[n]
        if not isinstance(call.layer, keras.layers.Dense):
            return (f"vjp of {type(call.layer).__name__} (", self.dz(n), ")")
        if path == call.paths["kernel"]:
            return (self.input(n), "ᵀ ", self.dz(n))
        rows = self._calls[n].y.value.shape[:-1]
        return (self.dz(n),) if rows == (1,) else ("Σₙ ", self.dz(n))


def joined(formulas: Sequence[Formula]) -> Formula:
    """Return the sum of formulas; nothing for none."""
    found: Formula = ()
    for formula in formulas:
        found += (" + ", *formula) if found else formula
    return found


def only_activates(call: Application) -> bool:
    """Return whether a layer is nothing but its activation function."""
    return call.z is not None and call.z is call.x


def mixes(call: Application) -> bool:
    """Return whether one output of the activation depends on several pre-activations."""
    return activation_of(call.layer) in NOT_ELEMENTWISE


def _name(call: Application) -> str:
    return activation_of(call.layer).__name__
