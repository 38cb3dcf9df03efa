"""What an explanation consists of. No logic."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Symbol:
    """How a formula writes a quantity: W₂, or ∂L/∂W₂ if d is set.

    sub: the subscript, "" for none. at: the index of one element as text, "" for the whole array.
    """

    letter: str
    sub: str = ""
    d: bool = False
    at: str = ""


Formula = tuple[Symbol | str, ...]


@dataclass(frozen=True)
class PathStep:
    """One array on the path of a gradient: its symbol, its formula and its numbers.

    layer: the name of the layer that makes it; "" for an input or a target.
    """

    symbol: Symbol
    formula: Formula
    layer: str
    value: np.ndarray


@dataclass(frozen=True)
class PathTerms:
    """One call's part of the gradient of a weight, as a sum of products.

    names: of the factors.
    outputs: shape (n, axes), the index of the layer's output that each product goes through; the
        row comes first.
    factors: shape (n, factors). Their products add up to `value`, up to rounding.
    last_factor: the products that make up the last factor in the row that is shown, as (symbol,
        number, symbol, number); empty where they are too many to read.
    """

    layer: str
    names: tuple[Formula, ...]
    outputs: np.ndarray
    factors: np.ndarray
    value: float
    last_factor: tuple[tuple[Symbol, float, Symbol, float], ...] = ()


@dataclass(frozen=True)
class GradientPath:
    """The path of one weight's gradient through one step, with all numbers.

    path, index, symbol, weight: which weight, and its value before the step.
    row, rows: the row of the batch that `forward` and `backward` show, and how many there are.
    terms: one for each call of the layer that owns the weight.
    penalty: the regularizer's part of the gradient.
    loss, loss_name: of the whole batch. loss_scale: the factor of the framework's loss scaling.
    tape, reference, sigma, z, verdict: of the gradient.
    is_plain: the update is −η ∂L/∂w and nothing else.
    update_reference: the derived change of the weight. after: the framework's value after the step.
        Both are NaN where there is no optimizer.
    rules: name, VJP section and source of each rule on the way.
    first_not_finite: the first number of the step that is not finite, and its value, where the loss
        or the reference is not finite; None elsewhere, or where no number that has a name is.
    """

    model: str
    step: int
    path: str
    index: tuple[int, ...]
    symbol: Symbol
    weight: float
    row: int
    rows: int
    forward: tuple[PathStep, ...]
    loss: float
    loss_name: str
    loss_scale: float
    backward: tuple[PathStep, ...]
    terms: tuple[PathTerms, ...]
    penalty: float
    tape: float
    reference: float
    sigma: float
    z: float
    verdict: str
    optimizer: str
    is_plain: bool
    learning_rate: float
    update_reference: float
    after: float
    rules: tuple[tuple[str, str, str], ...]
    first_not_finite: tuple[Symbol, float] | None = None

    @property
    def is_finite(self) -> bool:
        """Whether the loss and the reference are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.reference)

    @property
    def chain(self) -> tuple[Symbol, ...]:
        """The arrays that the gradient goes through, from the output back."""
        return tuple(step.symbol for step in self.backward)
