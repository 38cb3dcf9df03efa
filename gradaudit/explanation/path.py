"""The path of one weight's gradient, from the loss back to the weight, with all numbers."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnknownNameError, UnsupportedModelError, UsageError
from gradaudit.explanation.notation import Notation, joined, mixes, only_activates
from gradaudit.numerics import Plain
from gradaudit.records import (
    Estimate,
    Formula,
    GradientPath,
    PathStep,
    PathTerms,
    StepRecord,
    Symbol,
)
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.backprop import forward
from gradaudit.reference.gaps import layer_gaps, several_tensors
from gradaudit.reference.losses import loss_terms
from gradaudit.reference.quantities import Quantities, Quantity
from gradaudit.reference.walk import Application, Replay
from gradaudit.rules import RegularizerCall, Rule, find_rule

_MOST_PRODUCTS = 8
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_NAMED = re.compile(r"([^\[\]]+?)\s*(?:\[\s*(\d+(?:\s*,\s*\d+)*)?\s*\])?")
_PROBE = 2.0**60
"""So large that what else a layer adds is lost beside it, and a power of two: no digit is."""


def find_weight(model: keras.Model, record: StepRecord, text: str) -> None:
    """Look for a weight before any step is made.

    Raises:
        UsageError: the text has another form, several weights have the name, or the index is out of
            range.
        UnknownNameError: there is no trainable weight of that name.
        UnsupportedModelError: a layer has no rule.
    """
    if gaps := layer_gaps(model):
        words = "; ".join(gap.message for gap in gaps)
        raise UnsupportedModelError(f"{words}. Register a rule with gradaudit.rule.")
    if gaps := several_tensors(model):
        raise UnsupportedModelError(
            f"{'; '.join(gaps)}. Expected layers of one tensor each: numbers are named, and "
            "a path is told, from one layer to the next."
        )
    calls: list[Application] = []

    def note(application: Application, part: str, made: Tensor) -> Tensor:
        if part == "activation":
            application.y = made
            calls.append(application)
        return made

    forward(model, record, note)
    _find(model, Notation(calls, None, ""), text)


def _find(model: keras.Model, notation: Notation, text: str) -> tuple[str, tuple[int, ...]]:
    found = _NAMED.fullmatch(text.strip().translate(_SUBSCRIPTS))
    if found is None:
        raise UsageError(f"the weight is {text!r}. Expected a name and an index: W2[0,1].")
    name = found[1].replace("_", "") if re.fullmatch(r"[A-Za-z]_\d+", found[1]) else found[1]
    paths = {v.path: v for v in model.trainable_variables}
    symbols = {}
    for each in paths:
        symbol = notation.weight(each)
        symbols[symbol.letter + symbol.sub] = each
    path = symbols.get(name)
    if path is None:
        ends = [each for each in paths if f"/{each}".endswith(f"/{name}")]
        if len(ends) > 1:
            raise UsageError(
                f"the weight is {text!r}, which may be any of {', '.join(ends)}. Expected more of "
                "the path."
            )
        if not ends:
            raise UnknownNameError("trainable weight", name, [*symbols, *paths])
        (path,) = ends
    index = tuple(int(part) for part in found[2].split(",")) if found[2] else ()
    shape = tuple(paths[path].shape)
    if len(index) != len(shape) or any(i >= n for i, n in zip(index, shape, strict=True)):
        last = ",".join(str(n - 1) for n in shape)
        raise UsageError(
            f"the weight is {text!r}. Expected an index into the shape {shape} of {path}: "
            f"up to [{last}]."
        )
    return path, index


class Path:
    """One step of a model, laid out as a reader of a textbook follows it.

    Args:
        model: a built, compiled Keras model. record: of a step.
    """

    def __init__(self, model: keras.Model, record: StepRecord, replay: Replay) -> None:
        self._model, self._record = model, record
        self._numbers = Quantities(model, record, replay)
        self._calls = self._numbers.applications
        self.rows = self._numbers.rows
        losses = [
            term.name if term.weight is None else f"{float(term.weight):g} {term.name}"
            for term in loss_terms(model)
        ]
        self._losses = " + ".join(losses + ["penalties"] * self._numbers.penalized)
        self._notation = Notation(self._calls, record.y, self._losses)

    def find(self, text: str) -> tuple[str, tuple[int, ...]]:
        """Return the path and the index of the weight that `W2[0,1]` or `dense/kernel[0,1]` names.

        Raises:
            UsageError: as `find_weight` does, UnknownNameError among them.
        """
        return _find(self._model, self._notation, text)

    def of(
        self,
        path: str,
        index: tuple[int, ...],
        gradient: Estimate,
        change: Estimate | None,
        z: float,
        verdict: str,
    ) -> GradientPath:
        """Return the path of one weight's gradient.

        gradient, change: the references of its tensor's gradient and of its change.
        z, verdict: of the gradient.
        """
        record, at = self._record, _text(index)
        uses = [n for n, call in enumerate(self._calls) if path in call.paths.values()]
        terms = [self._terms(n, path, index) for n in uses]
        row = _largest_row(terms)
        terms = [
            replace(each, last_factor=self._last_factor(n, each, row))
            for n, each in zip(uses, terms, strict=True)
        ]
        after = set(uses)
        for n in range(len(self._calls)):
            if self._notation.source(n) in after:
                after.add(n)
        tape = record.gradients.get(path)
        optimizer = self._model.optimizer
        return GradientPath(
            model=self._model.name,
            step=record.step,
            path=path,
            index=index,
            symbol=replace(self._notation.weight(path), at=at),
            weight=float(record.variables[path][index]),
            row=row,
            rows=self.rows,
            forward=tuple(self._forward(row)),
            loss=float(self._numbers[self._numbers.find("loss")].value),
            loss_name=self._losses,
            loss_scale=record.loss_scale,
            backward=tuple(self._backward(after, uses, path, row)),
            terms=tuple(terms),
            penalty=self._penalty(path, index),
            tape=0.0 if tape is None else float(tape[index]),
            reference=float(gradient.value[index]),
            sigma=float(gradient.sigma[index]),
            z=z,
            verdict=verdict,
            optimizer=type(optimizer).__name__ if optimizer is not None else "",
            is_plain=_is_plain(optimizer, self._variable(path)),
            learning_rate=record.learning_rates[0] if record.learning_rates else math.nan,
            update_reference=math.nan if change is None else float(change.value[index]),
            after=float(record.variables_after[path][index])
            if record.variables_after
            else math.nan,
            rules=tuple(self._rules(after)),
        )

    def _variable(self, path: str) -> Any:
        return next(v for v in self._model.trainable_variables if v.path == path)

    def _at_row(self, value: Any, row: int) -> np.ndarray:
        """Return what belongs to one row of the batch."""
        value = np.asarray(getattr(value, "value", value))
        return value[row] if value.ndim and len(value) == self.rows else value

    def _forward(self, row: int) -> Iterator[PathStep]:
        listed: set[str] = set()
        for n, call in enumerate(self._calls):
            if self._notation.source(n) is None:
                x = self._at_row(call.x.value, row)
                yield PathStep(self._notation.input(n), (), "", x)
            for path in [each for each in call.paths.values() if each not in listed]:
                value = np.asarray(self._record.variables[path])
                yield PathStep(self._notation.weight(path), (), call.layer.name, value)
            listed.update(call.paths.values())
            formula = self._notation.before_activation(n)
            if call.z is not None:
                if not only_activates(call):
                    a = self._at_row(call.z.value, row)
                    yield PathStep(self._notation.symbol(n, "z"), formula, call.layer.name, a)
                formula = self._notation.activation(n)
            y = self._at_row(call.y.value, row)
            yield PathStep(self._notation.symbol(n, "y"), formula, call.layer.name, y)
        if not tree.is_nested(self._record.y):
            yield PathStep(Symbol("t"), (), "", self._at_row(self._record.y, row))

    def _backward(
        self, after: set[int], uses: list[int], path: str, row: int
    ) -> Iterator[PathStep]:
        for n in sorted(after, reverse=True):
            call = self._calls[n]
            if call.y.cotangent is not None:
                dy = replace(self._notation.symbol(n, "y"), d=True)
                formula = self._notation.to_output(n, after)
                yield PathStep(dy, formula, call.layer.name, self._at_row(call.y.cotangent, row))
            if call.z is not None and call.z.cotangent is not None and not only_activates(call):
                da = replace(self._notation.symbol(n, "z"), d=True)
                formula = self._notation.through_activation(n)
                yield PathStep(da, formula, call.layer.name, self._at_row(call.z.cotangent, row))
        symbol = replace(self._notation.weight(path), d=True)
        gradient = self._numbers.by_row(Quantity("weight", path=path, d=True))
        formula = joined([self._notation.to_weight(n, path) for n in uses])
        if self._variable(path).regularizer is not None:
            formula += (" + vjp of the regularizer",)
        yield PathStep(symbol, formula, self._calls[uses[0]].layer.name, gradient.value)

    def _terms(self, n: int, path: str, index: tuple[int, ...]) -> PathTerms:
        """Take the n-th call's part of the gradient apart into products."""
        call = self._calls[n]
        made = call.y if call.z is None else call.z
        name = next(name for name, own in call.paths.items() if own == path)
        if made.cotangent is None:
            return PathTerms(call.layer.name, (), np.zeros((0, 1), int), np.zeros((0, 1)), 0.0)
        value = float(call.vjp(made.cotangent)[1][name].value[index])
        whole = ((f"vjp of {type(call.layer).__name__}",),)
        in_one = PathTerms(
            call.layer.name, whole, np.zeros((1, 1), int), np.array([[value]]), value
        )
        if name not in call.call.weights or call.layer._layers:
            return in_one  # a weight of a part of the layer
        with np.errstate(all="ignore"):
            jacobian = _jacobian(call, name, index)
        outputs = np.argwhere(jacobian != 0)
        arrays, names = [jacobian], [self._local(n, path, index, jacobian, outputs)]
        at = _shared(outputs, self.rows)
        if call.z is not None and call.y.cotangent is not None and not mixes(call):
            arrays += [
                self._numbers.by_row(Quantity("derivative", n)).value,
                call.y.cotangent.value,
            ]
            dy = replace(self._notation.symbol(n, "y"), d=True, at=at)
            names += [self._notation.slope(n, at), (dy,)]
        else:
            arrays.append(made.cotangent.value)
            names.append((replace(self._notation.dz(n), at=at),))
        factors = np.stack([array[tuple(outputs.T)] for array in arrays], axis=-1)
        products = factors.prod(axis=-1)
        # n additions and a few roundings in each product: what a layer that is linear in the
        # weight leaves. Another one is not the sum of these products, and stays in one piece.
        allowed = (len(products) + 8) * 2.0**-51 * np.abs(products).sum()
        if not abs(products.sum() - value) <= allowed:
            return in_one
        return PathTerms(call.layer.name, tuple(names), outputs, factors, value)

    def _last_factor(
        self, n: int, terms: PathTerms, row: int
    ) -> tuple[tuple[Symbol, float, Symbol, float], ...]:
        """Return ∂loss/∂h of one unit as the products that a single Dense layer makes of it."""
        users = self._notation.users(n)
        here = terms.outputs[terms.outputs[:, 0] == row]
        if len(terms.names) != 3 or len(users) != 1 or len(here) != 1:
            return ()
        user = self._calls[users[0]]
        made = user.y if user.z is None else user.z
        if not isinstance(user.layer, keras.layers.Dense) or made.value.ndim != 2:
            return ()
        unit, weight = int(here[0][-1]), Symbol("W", self._notation.sub(user.layer))
        kernel, dz = user.call.weights["kernel"].value[unit], made.cotangent.value[row]
        if len(kernel) > _MOST_PRODUCTS:
            return ()
        whole = float(self._calls[n].y.cotangent.value[tuple(here[0])])
        if not math.isclose(float(kernel @ dz), whole, rel_tol=1e-9, abs_tol=1e-15):
            return ()  # a loss or a penalty adds to it
        d = self._notation.dz(users[0])
        return tuple(
            (replace(weight, at=f"{unit},{k}"), float(w), replace(d, at=str(k)), float(c))
            for k, (w, c) in enumerate(zip(kernel, dz, strict=True))
        )

    def _local(
        self,
        n: int,
        path: str,
        index: tuple[int, ...],
        jacobian: np.ndarray,
        outputs: np.ndarray,
    ) -> Formula:
        """Return the name of ∂output/∂weight: an element of the input, 1, or just that."""
        x = self._calls[n].x.value.value
        factors = jacobian[tuple(outputs.T)]
        if index and x.ndim == jacobian.ndim and index[0] < x.shape[-1]:
            before = tuple(outputs[:, :-1].T)
            if np.array_equal(x[(*before, index[0])], factors) and len(index) > 1:
                rows = "" if self.rows == 1 else "n," if x.ndim == 2 else "n,…,"
                return (replace(self._notation.input(n), at=f"{rows}{index[0]}"),)
        if np.all(factors == 1):
            return ("1",)
        made = replace(self._notation.dz(n), d=False, at=_shared(outputs, self.rows))
        return ("∂", made, "/∂", replace(self._notation.weight(path), at=_text(index)))

    def _penalty(self, path: str, index: tuple[int, ...]) -> float:
        """Return the gradient of a weight's own regularizer."""
        variable = self._variable(path)
        if variable.regularizer is None:
            return 0.0
        plain = Plain(np.float64)
        call = RegularizerCall(variable.regularizer, variable.dtype, plain, keras.config.epsilon())
        weight = plain.array(self._record.variables[path], variable.dtype)
        _, vjp = find_rule(variable.regularizer).function(call, weight)
        return float(vjp(np.asarray(self._record.loss_scale))[index])

    def _rules(self, after: set[int]) -> Iterator[tuple[str, str, str]]:
        """Yield the rules of the way back, in their order, each once."""
        rules = [term.rule for term in loss_terms(self._model)]
        for n in sorted(after, reverse=True):
            call = self._calls[n]
            rules += [find_rule(call.layer.activation)] if call.z is not None else []
            rules.append(find_rule(call.layer))
        for rule in dict.fromkeys(rules):
            yield rule.name, _vjp_section(rule), rule.source


def _is_plain(optimizer: Any, variable: Any) -> bool:
    """Return whether a step moves a weight by −η times its gradient and nothing else."""
    single = getattr(optimizer, "inner_optimizer", optimizer)
    more = ("momentum", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema")
    return (
        type(single) is keras.optimizers.SGD
        and not any(getattr(single, name) for name in more)
        and single.gradient_accumulation_steps is None
        and variable.constraint is None
    )


def _jacobian(call: Application, name: str, index: tuple[int, ...]) -> np.ndarray:
    """Return ∂output/∂weight for one weight of a layer that is linear in the weight's tensor."""
    weights = {own: weight.value for own, weight in call.call.weights.items()}
    rule = find_rule(call.layer).function

    def output(tensor: np.ndarray) -> np.ndarray:
        given = replace(call.call, arithmetic=Plain(np.float64), weights={**weights, name: tensor})
        return rule(given, call.x.value.value)[0]

    nothing = np.zeros(weights[name].shape)
    probe = nothing.copy()
    probe[index] = _PROBE
    return (output(probe) - output(nothing)) / _PROBE


def _text(index: tuple[int, ...]) -> str:
    return ",".join(map(str, index))


def _shared(outputs: np.ndarray, rows: int) -> str:
    """Return the index that outputs have in common, with `n` for a row of several."""
    rest = np.unique(outputs[:, 1:], axis=0)
    if len(rest) != 1:
        return "…"
    return _text((*(["n"] if rows > 1 else []), *rest[0].tolist()))


def _largest_row(terms: list[PathTerms]) -> int:
    parts: dict[int, float] = {}
    for term in terms:
        for output, product in zip(term.outputs, term.factors.prod(axis=-1), strict=True):
            parts[int(output[0])] = parts.get(int(output[0]), 0.0) + float(product)
    return max(parts, key=lambda row: abs(parts[row]), default=0)


def _vjp_section(rule: Rule) -> str:
    text = rule.function.__doc__.partition("VJP:")[2].partition("Kinks:")[0]
    return " ".join(text.split())
