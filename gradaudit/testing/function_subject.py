"""Activations, losses and regularizers as subjects: functions of one array, without weights."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.numerics import Arithmetic
from gradaudit.records import Passed, Provenance
from gradaudit.rules import ActivationCall, Case, LossCall, RegularizerCall, Rule
from gradaudit.rules.losses.reduction import reduce_losses, same_rank
from gradaudit.testing.inputs import random_input, random_targets
from gradaudit.testing.subject import Arrays, Draw, Run, Subject

Outputs = tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]


def of_activation(case: Case, dtype: str) -> Draw:
    """Build an activation: y = f(z)."""
    activation = case.build()

    def run(rule: Rule, arithmetic: Arithmetic, given: Arrays) -> Run:
        passed: set[Provenance] = set()

        def misleads(op_type: str, where: str) -> None:
            passed.add(Provenance(Passed.MISLED, op_type=op_type, detail=where))

        call = ActivationCall(getattr(activation, "keywords", {}), misleads)
        y, vjp = rule.function(call, arithmetic.array(given["z"], dtype))
        return Run({"y": y}, lambda dy: {"z": vjp(dy["y"])}, {}, frozenset(passed))

    def framework(given: Mapping[str, tf.Tensor]) -> Outputs:
        return {"y": activation(given["z"])}, {}

    def draw(rng: np.random.Generator) -> Subject:
        primals = {"z": 2 * random_input(case, rng, case.shapes[0], dtype)}
        return Subject(primals, ("z",), ("z",), run, framework)

    return draw


def of_loss(case: Case, dtype: str) -> Draw:
    """Build a loss: y = reduce(f(y_true, y_pred) sample_weight), random y_true and weights."""
    loss = case.build()
    options = keras_compat.loss_options(loss)
    (shape,) = case.shapes

    def draw(rng: np.random.Generator) -> Subject:
        y_true = random_targets(case, shape, rng)
        losses = loss.call(tf.constant(y_true, dtype), tf.zeros(shape, dtype))
        rows, *others = tuple(losses.shape) or shape[:1]
        weight = rng.uniform(0.5, 2.0, (rows,) + (1,) * len(others)).astype(dtype)

        def run(rule: Rule, arithmetic: Arithmetic, given: Arrays) -> Run:
            call = LossCall(loss, options, dtype, arithmetic, keras.config.epsilon())
            true, y_pred = same_rank(y_true, arithmetic.array(given["y_pred"], dtype))
            losses, vjp = rule.function(call, true, y_pred)
            mask = None if rule.mask is None else rule.mask(call, true, losses)
            value, reduce_vjp = reduce_losses(call, losses, weight, loss.reduction, mask=mask)
            back = lambda d: {"y_pred": vjp(reduce_vjp(d["y"]))}  # noqa: E731
            return Run({"y": value}, back, {}, frozenset(call.passed))

        def framework(given: Mapping[str, tf.Tensor]) -> Outputs:
            return {"y": loss(y_true, given["y_pred"], sample_weight=weight)}, {}

        primals = {"y_pred": random_input(case, rng, shape, dtype)}
        return Subject(primals, ("y_pred",), ("y_pred",), run, framework)

    return draw


def of_regularizer(case: Case, dtype: str) -> Draw:
    """Build a regularizer: y = penalty(w)."""
    regularizer = case.build()

    def run(rule: Rule, arithmetic: Arithmetic, given: Arrays) -> Run:
        call = RegularizerCall(regularizer, dtype, arithmetic, keras.config.epsilon())
        penalty, vjp = rule.function(call, arithmetic.array(given["w"], dtype))
        return Run({"y": penalty}, lambda d: {"w": vjp(d["y"])}, {})

    def framework(given: Mapping[str, tf.Tensor]) -> Outputs:
        return {"y": regularizer(given["w"])}, {}

    def draw(rng: np.random.Generator) -> Subject:
        primals = {"w": random_input(case, rng, case.shapes[0], dtype)}
        return Subject(primals, ("w",), ("w",), run, framework)

    return draw
