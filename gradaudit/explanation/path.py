"""The path of one weight's gradient, from the loss back to the weight, with all numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnsupportedModelError
from gradaudit.explanation.find import find_weight
from gradaudit.explanation.notation import Notation, joined
from gradaudit.explanation.records import GradientPath, PathStep, PathTerms, Symbol
from gradaudit.explanation.terms import Terms, largest_row, rule_of
from gradaudit.numerics import Plain, numbers
from gradaudit.records import Config, Estimate, StepRecord
from gradaudit.reference.known import first_not_finite
from gradaudit.reference.losses import loss_terms
from gradaudit.reference.quantities import Quantities
from gradaudit.reference.quantity import Quantity
from gradaudit.reference.walk import Replay
from gradaudit.report.tables import index_text
from gradaudit.rules import RegularizerCall, Rule


class StepPaths:
    """The paths of gradients through one recorded step of a model.

    Args:
        model: that of the `StepSpec`. record: of a step. replay: repeats its random draws.
        config: settings of Keras in the step.

    Raises:
        UnsupportedModelError: a part of the model has no derived rule, or a layer takes or makes
            several tensors.
    """

    def __init__(
        self, model: keras.Model, record: StepRecord, replay: Replay, config: Config
    ) -> None:
        self._model, self._record, self._config = model, record, config
        self._step = Quantities(model, record, replay, config)
        self._calls = self._step.calls
        losses = [
            term.name if term.weight is None else f"{float(term.weight):g} {term.name}"
            for term in loss_terms(model)
        ]
        self._losses = " + ".join(losses + ["penalties"] * self._step.penalized)
        self._notation = Notation(self._calls, record.y, self._losses)
        self._terms = Terms(self._step, self._notation)

    def find(self, text: str) -> tuple[str, tuple[int, ...]]:
        """Return the path and the index of the weight that `W2[0,1]` or `dense/kernel[0,1]` names.

        Raises:
            UsageError: as `find_weight` does, UnknownNameError among them.
        """
        return find_weight(self._model, self._notation, text)

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

        Args:
            path: of the weight's tensor.
            index: of the weight in it.
            gradient: the reference of the tensor's gradient.
            change: the reference of the tensor's change in the step; None without an optimizer.
            z: the score of the weight's gradient.
            verdict: on the weight's gradient.

        Raises:
            UnsupportedModelError: the terms do not add up to the reference.
        """
        record = self._record
        uses = [n for n, call in enumerate(self._calls) if path in call.paths.values()]
        terms = [self._terms.of(n, path, index) for n in uses]
        penalty = self._penalty(path, index)
        _check_sum(path, index, terms, penalty, gradient)
        loss, reference = float(self._step[self._step.find("loss")].value), gradient.value[index]
        first = None
        if not (np.isfinite(loss) and np.isfinite(reference)):
            first = first_not_finite(self._step)
        row = largest_row(terms)
        if first is not None and first[1].is_of_a_row:
            row = first[2][0]
        terms = [
            self._terms.with_last_factor(n, each, row) for n, each in zip(uses, terms, strict=True)
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
            symbol=replace(self._notation.weight(path), at=index_text(index)),
            weight=float(record.variables[path][index]),
            row=row,
            rows=self._step.rows,
            forward=tuple(self._forward(row)),
            loss=loss,
            loss_name=self._losses,
            loss_scale=record.loss_scale,
            backward=tuple(self._backward(after, uses, path, row)),
            terms=tuple(terms),
            penalty=penalty,
            tape=0.0 if tape is None else float(tape[index]),
            reference=float(reference),
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
            first_not_finite=None
            if first is None
            else (self._notation.of(first[1], index_text(first[2])), first[3]),
        )

    def _variable(self, path: str) -> Any:
        return next(v for v in self._model.trainable_variables if v.path == path)

    def _at_row(self, value: Any, row: int) -> np.ndarray:
        """Return the part of an array that belongs to one row of the batch."""
        value = numbers(value)
        return value[row] if value.ndim and len(value) == self._step.rows else value

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
                if not call.only_activates:
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
            if (dy := call.y.cotangent) is not None:
                symbol = replace(self._notation.symbol(n, "y"), d=True)
                formula = self._notation.to_output(n, after, numbers(dy))
                yield PathStep(symbol, formula, call.layer.name, self._at_row(dy, row))
            if call.z is not None and call.z.cotangent is not None and not call.only_activates:
                symbol = replace(self._notation.symbol(n, "z"), d=True)
                formula = self._notation.through_activation(n)
                dz = self._at_row(call.z.cotangent, row)
                yield PathStep(symbol, formula, call.layer.name, dz)
        symbol = replace(self._notation.weight(path), d=True)
        gradient = self._step.by_row(Quantity("weight", path=path, d=True))
        formula = joined([self._notation.to_weight(n, path) for n in uses])
        if self._variable(path).regularizer is not None:
            formula += (" + vjp of the regularizer",)
        yield PathStep(symbol, formula, self._calls[uses[0]].layer.name, gradient.value)

    def _penalty(self, path: str, index: tuple[int, ...]) -> float:
        """Return the gradient of a weight's own regularizer."""
        variable = self._variable(path)
        if variable.regularizer is None:
            return 0.0
        plain = Plain(np.float64)
        call = RegularizerCall(variable.regularizer, variable.dtype, plain, self._config.epsilon)
        weight = plain.array(self._record.variables[path], variable.dtype)
        _, vjp = rule_of(variable.regularizer).function(call, weight)
        return float(vjp(np.asarray(self._record.loss_scale))[index])

    def _rules(self, after: set[int]) -> Iterator[tuple[str, str, str]]:
        """Yield the rules from the loss back to the weight, each once."""
        rules = [term.rule for term in loss_terms(self._model) if term.rule is not None]
        for n in sorted(after, reverse=True):
            call = self._calls[n]
            rules += [rule_of(call.layer.activation)] if call.z is not None else []
            rules.append(rule_of(call.layer))
        for rule in dict.fromkeys(rules):
            yield rule.name, _vjp_section(rule), rule.source


def _check_sum(
    path: str,
    index: tuple[int, ...],
    terms: Sequence[PathTerms],
    penalty: float,
    gradient: Estimate,
) -> None:
    """Check that the terms of a weight's gradient add up to its reference within rounding.

    Raises:
        UnsupportedModelError: they do not.
    """
    products = np.concatenate([np.zeros(0), *(each.factors.prod(axis=-1) for each in terms)])
    total, reference = float(products.sum()) + penalty, float(gradient.value[index])
    if not np.isfinite(reference):
        return
    size = float(np.abs(products).sum()) + abs(penalty)
    allowed = (len(products) + 8) * 2.0**-51 * size + float(gradient.sigma[index])
    if not abs(total - reference) <= allowed:
        raise UnsupportedModelError(
            f"the terms of the gradient of {path}{list(index)} add up to {total:.17g}, and the "
            f"reference is {reference:.17g}. Expected the same up to rounding: a rule that it "
            "passes gives different results when it runs twice. Check the rules of your own with "
            "gradaudit.testing.check_rule.",
            part=path,
        )


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


def _vjp_section(rule: Rule) -> str:
    text = (rule.function.__doc__ or "").partition("VJP:")[2].partition("Kinks:")[0]
    return " ".join(text.split())
