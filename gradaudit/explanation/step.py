"""`explain`: how one weight of a model gets its gradient in one step."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from gradaudit.audit.settings import check_threshold
from gradaudit.audit.single_step import recorded
from gradaudit.backends import backend_of
from gradaudit.errors import UsageError
from gradaudit.explanation.find import check_weight
from gradaudit.explanation.page import Explanation
from gradaudit.explanation.path import StepPaths
from gradaudit.explanation.train_until import train_until
from gradaudit.records import DEFAULT_THRESHOLD, Stage, StepRecord, StepSpec, Verdict, WeightRows
from gradaudit.reference import Policy, derive
from gradaudit.scoring import compare


def explain(
    model: keras.Model,
    x: Any,
    y: Any,
    weight: str,
    sample_weight: Any = None,
    *,
    threshold: float = DEFAULT_THRESHOLD,
) -> Explanation:
    """Explain how one weight of a compiled model gets its gradient on one batch.

    The model's own train step runs once; the model stays as it is.

    Args:
        model: a compiled Keras model.
        x: one batch of inputs, as `train_on_batch` takes it.
        y: its targets.
        sample_weight: its sample weights.
        weight: a layer's kernel ("W2[0,1]"), its bias ("b3[1]") or a weight by its path
            ("dense_1/kernel[0,1]"), with the index of one element, counted from 0. Layers with
            weights are numbered from 1 in the order in which the model calls them.
        threshold: the largest |tape − reference| / (κ σ) that passes.

    Returns:
        The explanation: `.text`, `.markdown`, `.html`, and `.path` with all numbers.

    Raises:
        UsageError: the model is not compiled, the weight is not of that form, or the threshold is
            not above 0.
        UnknownNameError: there is no such weight.
        UnsupportedModelError: a part of the model has no derived rule.

    Example:
        >>> import keras, numpy as np, gradaudit
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")])
        >>> model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
        >>> model.set_weights([np.array([[2.0]]), np.array([0.0])])
        >>> explained = gradaudit.explain(model, np.array([[3.0]]), np.array([[5.0]]), "W[0,0]")
        >>> explained.path.reference  # 2 (y - d) x with y = 6, d = 5, x = 3
        6.0
    """
    check_threshold(threshold)
    return explain_record(*recorded(model, x, y, sample_weight), weight, threshold)


def explain_step(
    model: keras.Model,
    x: Any,
    y: Any,
    weight: str,
    *,
    step: int,
    row: int | None,
    epochs: int,
    batch_size: int,
    threshold: float,
) -> Explanation:
    """Train a compiled model up to a step, counted from 0, and explain one weight in that step.

    Args:
        model: a compiled Keras model.
        x: all inputs, as `fit` takes them.
        y: all targets.
        weight: as `explain` takes it.
        step: the number of the step, from 0.
        row: explain it on this row of the data alone, with the weights before the step.
        epochs: of the training.
        batch_size: of the training.
        threshold: as `explain` takes it.

    Raises:
        UsageError: the training has fewer steps, or the data have no such row; and as `explain`.
    """
    if row is not None and row >= len(x):
        raise UsageError(f"the row is {row}. Expected one of the data, from 0 to {len(x) - 1}.")
    check_threshold(threshold)
    if model.built:  # or else the weights have no names yet
        backend = backend_of(model)
        row_of_x = replace(backend.uncaptured(model, 0, 0), x=x[:1])
        spec = backend.specified(model, backend.Replay(jit=False))
        check_weight(spec.model, row_of_x, spec.config, weight)
    found, steps = train_until(
        model, x, y, step, captured=row is None, epochs=epochs, batch_size=batch_size
    )
    if row is not None:
        record, spec = recorded(model, x[row : row + 1], y[row : row + 1])
        found = replace(record, step=step), spec
    if found is None or steps < step:
        raise UsageError(
            f"the step is {step}. Expected one of the {steps} steps of the training, counted "
            "from 0. Ask for more epochs."
        )
    return explain_record(*found, weight, threshold)


class _GradientRows:
    """Keeps the rows of the only gradient."""

    rows: WeightRows

    def begin(self) -> None:
        """Do nothing."""

    def add(self, rows: WeightRows) -> None:
        """Keep the rows of a gradient."""
        if rows.stage is Stage.GRADIENT:
            self.rows = rows


def explain_record(
    record: StepRecord, spec: StepSpec, weight: str, threshold: float
) -> Explanation:
    """Explain one weight in a recorded step; arguments and errors are those of `explain`."""
    with np.errstate(all="ignore"):  # numbers that are not finite are told
        return _explained(record, spec, weight, threshold)


def _explained(record: StepRecord, spec: StepSpec, weight: str, threshold: float) -> Explanation:
    step = StepPaths(spec.model, record, spec.framework.draw, spec.config)
    path, index = step.find(weight)
    reference = derive(record, spec, Policy(lambda each: each == path))
    updates = dict(reference.updates())
    reference = replace(reference, updates=lambda: iter(updates.items()))
    gradients = _GradientRows()
    compare(record, reference, threshold, "all", gradients)
    at = int(np.ravel_multi_index(index, gradients.rows.shape)) if index else 0
    z, verdict = float(gradients.rows.z[at]), str(list(Verdict)[gradients.rows.verdict[at]])
    estimate = reference.gradients[path]
    return Explanation(step.of(path, index, estimate, updates.get(path), z, verdict))
