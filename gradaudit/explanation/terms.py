"""The gradient of one weight as sums of products, one for each call of its layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from gradaudit import keras_compat
from gradaudit.errors import UnsupportedModelError
from gradaudit.explanation.notation import Notation
from gradaudit.explanation.records import Formula, PathTerms, Symbol
from gradaudit.numerics import Plain, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.quantities import Quantities
from gradaudit.reference.quantity import Quantity, WatchedCall
from gradaudit.report.tables import index_text
from gradaudit.rules import Rule, find_rule
from gradaudit.rules.context import Step

_MOST_PRODUCTS = 8
_PROBE = 2.0**60
"""Large enough that whatever else a layer adds is lost beside it; as a power of two it costs no
digit."""


class Terms:
    """Writes gradients of one step as sums of products.

    Args:
        step: the numbers of the step. notation: the symbols of its calls.
    """

    def __init__(self, step: Quantities, notation: Notation) -> None:
        self._step, self._calls, self._notation = step, step.calls, notation

    def of(self, n: int, path: str, index: tuple[int, ...]) -> PathTerms:
        """Return the n-th call's part of the gradient of one weight.

        The part is ∂output/∂weight · ∂loss/∂output, summed over the outputs. It stays in one piece
        where the layer is not linear in the weight, or where the weight belongs to a part of the
        layer.
        """
        call = self._calls[n]
        name, dz = (
            next(name for name, own in call.paths.items() if own == path),
            call.made.cotangent,
        )
        if dz is None:
            return PathTerms(call.layer.name, (), np.zeros((0, 1), int), np.zeros((0, 1)), 0.0)
        value = float(numbers(call.vjp(dz)[1][name])[index])
        whole: Formula = (f"vjp of {type(call.layer).__name__}",)
        in_one = PathTerms(
            call.layer.name, (whole,), np.zeros((1, 1), int), np.array([[value]]), value
        )
        if name not in call.call.weights or keras_compat.sublayers(call.layer):
            return in_one
        with np.errstate(all="ignore"):
            jacobian = _jacobian(call, name, index)
        outputs = np.argwhere(jacobian != 0)
        arrays = [jacobian]
        names: list[Formula] = [self._local(n, path, index, jacobian, outputs)]
        at = self._shared(outputs)
        dy = call.y.cotangent
        if call.z is not None and dy is not None and not call.mixes:
            arrays += [self._step.by_row(Quantity("derivative", n)).value, numbers(dy)]
            symbol = replace(self._notation.symbol(n, "y"), d=True, at=at)
            names += [self._notation.slope(n, at), (symbol,)]
        else:
            arrays.append(numbers(dz))
            names.append((replace(self._notation.dz(n), at=at),))
        factors = np.stack([array[tuple(outputs.T)] for array in arrays], axis=-1)
        products = factors.prod(axis=-1)
        # In a layer that is linear in the weight the sum differs from the value by n additions and
        # a few roundings in each product. In another layer it differs by more.
        allowed = (len(products) + 8) * 2.0**-51 * np.abs(products).sum()
        if not abs(products.sum() - value) <= allowed:
            return in_one
        return PathTerms(call.layer.name, tuple(names), outputs, factors, value)

    def with_last_factor(self, n: int, terms: PathTerms, row: int) -> PathTerms:
        """Return terms with ∂loss/∂h of one unit as the products that one Dense layer makes it of.

        They come back as they are where there is no such layer, or where it has many units.
        """
        users = self._notation.users(n)
        here = terms.outputs[terms.outputs[:, 0] == row]
        if len(terms.names) != 3 or len(users) != 1 or len(here) != 1:
            return terms
        user, dy = self._calls[users[0]], self._calls[n].y.cotangent
        dz = user.made.cotangent
        if not isinstance(user.layer, keras.layers.Dense) or dy is None or dz is None:
            return terms
        if user.made.value.ndim != 2:
            return terms
        unit, weight = int(here[0][-1]), Symbol("W", self._notation.sub(user.layer))
        kernel, of_row = numbers(user.call.weights["kernel"])[unit], numbers(dz)[row]
        if len(kernel) > _MOST_PRODUCTS:
            return terms
        whole = float(numbers(dy)[tuple(here[0])])
        if not math.isclose(float(kernel @ of_row), whole, rel_tol=1e-9, abs_tol=1e-15):
            return terms  # a loss or a penalty adds to it
        d = self._notation.dz(users[0])
        products = tuple(
            (replace(weight, at=f"{unit},{k}"), float(w), replace(d, at=str(k)), float(c))
            for k, (w, c) in enumerate(zip(kernel, of_row, strict=True))
        )
        return replace(terms, last_factor=products)

    def _local(
        self,
        n: int,
        path: str,
        index: tuple[int, ...],
        jacobian: np.ndarray,
        outputs: np.ndarray,
    ) -> Formula:
        """Return the name of ∂output/∂weight: an element of the input, 1, or ∂a/∂W itself."""
        x = numbers(self._calls[n].x.value)
        factors = jacobian[tuple(outputs.T)]
        if index and x.ndim == jacobian.ndim and index[0] < x.shape[-1]:
            before = tuple(outputs[:, :-1].T)
            if np.array_equal(x[(*before, index[0])], factors) and len(index) > 1:
                rows = "" if self._step.rows == 1 else "n," if x.ndim == 2 else "n,…,"
                return (replace(self._notation.input(n), at=f"{rows}{index[0]}"),)
        if np.all(factors == 1):
            return ("1",)
        made = replace(self._notation.dz(n), d=False, at=self._shared(outputs))
        return ("∂", made, "/∂", replace(self._notation.weight(path), at=index_text(index)))

    def _shared(self, outputs: np.ndarray) -> str:
        """Return the index that outputs have in common, with `n` for the row of several."""
        rest = np.unique(outputs[:, 1:], axis=0)
        if len(rest) != 1:
            return "…"
        return ",".join(["n"] * (self._step.rows > 1) + [str(i) for i in rest[0].tolist()])


def largest_row(terms: Sequence[PathTerms]) -> int:
    """Return the row of the batch whose part of the gradient is the largest in size."""
    parts: dict[int, float] = {}
    for term in terms:
        for output, product in zip(term.outputs, term.factors.prod(axis=-1), strict=True):
            parts[int(output[0])] = parts.get(int(output[0]), 0.0) + float(product)
    return max(parts, key=lambda row: abs(parts[row]), default=0)


def rule_of(target: Any) -> Rule:
    """Return the rule of a layer, an activation function or a regularizer.

    Raises:
        UnsupportedModelError: it has none.
    """
    rule = find_rule(target)
    if rule is None:
        raise UnsupportedModelError(
            f"{target!r} has no derived rule. Register one with gradaudit.rule."
        )
    return rule


@dataclass(frozen=True)
class _ReadOnly:
    """A step in plain numbers for a rule that runs once more: its assignments are ignored."""

    step: Step

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        return self.step.draw(layer, name, shape, **options)

    def read(self, variable: Any, dtype: str) -> np.ndarray:
        return numbers(self.step.read(variable, dtype))

    def assign(self, variable: Any, value: Array) -> None:
        pass


def _jacobian(call: WatchedCall, name: str, index: tuple[int, ...]) -> np.ndarray:
    """Return ∂output/∂weight for one weight of a layer that is linear in the weight's tensor."""
    weights = {own: numbers(weight) for own, weight in call.call.weights.items()}
    rule = rule_of(call.layer).function
    plain = replace(call.call, arithmetic=Plain(np.float64), step=_ReadOnly(call.call.step))

    def output(tensor: np.ndarray) -> np.ndarray:
        given = replace(plain, weights={**weights, name: tensor})
        return rule(given, numbers(call.x.value))[0]

    nothing = np.zeros(weights[name].shape)
    probe = nothing.copy()
    probe[index] = _PROBE
    return (output(probe) - output(nothing)) / _PROBE
