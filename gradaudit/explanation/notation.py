"""How a textbook writes the quantities of a step: W₂, a₂, h₂, and where each comes from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.explanation.records import Formula, Symbol
from gradaudit.numerics import numbers
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.quantity import Quantity, WatchedCall, activation_name, activation_of
from gradaudit.rules import apply_activation

_LETTERS = {"kernel": "W", "bias": "b"}
_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


class Notation:
    """Symbols and formulas of the calls of layers in one step.

    aₖ is a pre-activation, hₖ an activation, y or p the last one, Wₖ and bₖ are weights. If several
    layers have weights, k numbers them from 1 in the order of their calls.

    Args:
        calls: all calls of layers, in their order. targets: of the step. losses: in words.
    """

    def __init__(self, calls: Sequence[WatchedCall], targets: Any, losses: str) -> None:
        self._calls, self._targets, self._losses = calls, targets, losses
        owners = [call.layer for call in calls if call.paths]
        self._owners = list({id(layer): layer for layer in owners}.values())

    def weight(self, path: str) -> Symbol:
        """Return the symbol of a weight."""
        owner = next(call for call in self._calls if path in call.paths.values())
        name = next(name for name, own in owner.paths.items() if own == path)
        return Symbol(_LETTERS.get(name, name), self.sub(owner.layer))

    def sub(self, layer: Any) -> str:
        """Return the subscript of a layer's letters: its number, or its name."""
        if layer not in self._owners:
            return layer.name
        return str(self._owners.index(layer) + 1) if len(self._owners) > 1 else ""

    def symbol(self, n: int, part: str) -> Symbol:
        """Return the symbol of the n-th call's pre-activation (part "z") or output (part "y")."""
        call = self._calls[n]
        again = sum(earlier.layer is call.layer for earlier in self._calls[:n])
        sub = self.sub(call.layer) + "′" * again
        if part == "z":
            return self.input(n) if call.only_activates else Symbol("a", sub)
        if n < len(self._calls) - 1:
            return Symbol("h", sub)
        return Symbol("p" if activation_of(call.layer) in _PROBABILITIES else "y")

    def of(self, quantity: Quantity, index: str) -> Symbol:
        """Return the symbol of an element of a quantity."""
        n, part = quantity.call, quantity.part
        if part == "weight":
            symbol = self.weight(quantity.path)
        elif part in ("preactivation", "activation"):
            symbol = self.symbol(n, "z" if part == "preactivation" else "y")
        else:
            symbol = Symbol({"input": "x", "target": "t", "loss": "L"}.get(part, part))
        return replace(symbol, d=quantity.d, at=index)

    def source(self, n: int) -> int | None:
        """Return the call that made the n-th one's input; None for an input of the model."""
        makers = {id(call.y): m for m, call in enumerate(self._calls[:n])}
        tensor: Tensor | None = self._calls[n].x
        while tensor is not None and id(tensor) not in makers:
            tensor = tensor.source
        return None if tensor is None else makers[id(tensor)]

    def users(self, n: int) -> list[int]:
        """Return the calls that use the n-th one's output."""
        return [m for m in range(len(self._calls)) if self.source(m) == n]

    def input(self, n: int) -> Symbol:
        """Return the symbol of the n-th call's input."""
        maker = self.source(n)
        return Symbol("x") if maker is None else self.symbol(maker, "y")

    def dz(self, n: int) -> Symbol:
        """Return the symbol of the cotangent that goes into the n-th call's rule."""
        return replace(self.symbol(n, "y" if self._calls[n].z is None else "z"), d=True)

    def before_activation(self, n: int) -> Formula:
        """Return the formula of the n-th call's pre-activation."""
        layer, x = self._calls[n].layer, self.input(n)
        if not isinstance(layer, keras.layers.Dense):
            return (f"{type(layer).__name__}(", x, ")")
        product: Formula = (x, " ", Symbol("W", self.sub(layer)))
        return (*product, " + ", Symbol("b", self.sub(layer))) if layer.use_bias else product

    def activation(self, n: int) -> Formula:
        """Return the formula of the n-th call's output, from its pre-activation."""
        return (f"{activation_name(self._calls[n].layer)}(", self.symbol(n, "z"), ")")

    def slope(self, n: int, at: str) -> Formula:
        """Return the derivative of the n-th call's activation at an element."""
        name, z = activation_name(self._calls[n].layer), replace(self.symbol(n, "z"), at=at)
        return (f"{name}′(", z, ")")

    def through_activation(self, n: int) -> Formula:
        """Return the formula of the cotangent of the n-th call's pre-activation."""
        call, dy = self._calls[n], replace(self.symbol(n, "y"), d=True)
        dz, name = call.made.cotangent, activation_name(call.layer)
        if call.y.cotangent is None and dz is not None:  # the loss takes the logits
            return self.from_loss(n, numbers(dz))
        if call.mixes:
            return (f"vjp of {name} (", dy, ")")
        return (f"{name}′(", self.symbol(n, "z"), ") ∘ ", dy)

    def from_loss(self, n: int, cotangent: np.ndarray) -> Formula:
        """Return the formula of the loss's cotangent: p − t or 2 (y − t)/n if the numbers fit."""
        y, t = numbers(self._calls[n].y.value), self._targets
        if not tree.is_nested(t) and np.shape(t) == y.shape == cotangent.shape:
            residual: Formula = (self.symbol(n, "y"), " − ", Symbol("t"))
            if np.allclose(cotangent, y - t, rtol=1e-12, atol=1e-15):
                return residual
            for factor, words in ((1, ""), (2, "2 ")):
                for count in (len(y), y.size):
                    if np.allclose(count * cotangent, factor * (y - t), rtol=1e-12, atol=1e-15):
                        divided = f" / {count}" if count > 1 else ""
                        return (f"{words}(", *residual, f"){divided}")
        return (f"vjp of {self._losses}",)

    def to_output(self, n: int, reached: set[int], cotangent: np.ndarray) -> Formula:
        """Return the formula of the cotangent of the n-th call's output.

        Its terms come from the calls that use the output, and from the loss.

        reached: the calls that the gradient of the weight goes through.
        """
        users = self.users(n)
        if not users:
            return self.from_loss(n, cotangent)
        sent = sum(self._sent(m) for m in users)
        formula = joined([self.to_input(m) for m in users if m in reached])
        whole = np.allclose(sent, cotangent, rtol=1e-9, atol=1e-15)
        return formula if whole else (*formula, f" + vjp of {self._losses}")

    def _sent(self, n: int) -> np.ndarray:
        """Return the cotangent that the n-th call sends to its input, in numbers."""
        call = self._calls[n]
        dz, dy = call.made.cotangent, call.y.cotangent
        if dz is None:  # no loss depends on it
            return np.zeros(())
        if not call.only_activates:
            return numbers(call.vjp(dz)[0])
        if dy is None:
            return numbers(dz)
        _, vjp = apply_activation(call.layer.activation, call.made.value)
        return numbers(vjp(dy))

    def to_input(self, n: int) -> Formula:
        """Return the formula of the cotangent that the n-th call sends to its input."""
        layer = self._calls[n].layer
        if self._calls[n].only_activates:
            return self.through_activation(n)
        if isinstance(layer, keras.layers.Dense):
            return (self.dz(n), " ", Symbol("W", self.sub(layer)), "ᵀ")
        return (f"vjp of {type(layer).__name__} (", self.dz(n), ")")

    def to_weight(self, n: int, path: str) -> Formula:
        """Return the formula of the cotangent that the n-th call sends to a weight of its own."""
        call = self._calls[n]
        if not isinstance(call.layer, keras.layers.Dense):
            return (f"vjp of {type(call.layer).__name__} (", self.dz(n), ")")
        if path == call.paths["kernel"]:
            return (self.input(n), "ᵀ ", self.dz(n))
        rows = call.y.value.shape[:-1]
        return (self.dz(n),) if rows == (1,) else ("Σₙ ", self.dz(n))


def joined(formulas: Sequence[Formula]) -> Formula:
    """Return the sum of formulas; () for none."""
    found: Formula = ()
    for formula in formulas:
        found += (" + ", *formula) if found else formula
    return found
