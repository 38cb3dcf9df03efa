"""The path of one weight's gradient, with numbers: `explain`."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from gradaudit.audit.judge import check_threshold
from gradaudit.backends.tensorflow import Capture, peeked, uncaptured
from gradaudit.errors import UsageError
from gradaudit.explanation.page import Explanation
from gradaudit.explanation.path import Path, find_weight
from gradaudit.one_step import recorded
from gradaudit.records import Stage, StepRecord, StepSpec
from gradaudit.reference import Policy, derive
from gradaudit.scoring import compare


def explain(
    model: keras.Model,
    x: Any,
    y: Any,
    weight: str,
    sample_weight: Any = None,
    *,
    threshold: float = 8.0,
) -> Explanation:
    """Explain how one weight of a compiled model gets its gradient on one batch.

    The model's own train step runs once; the model stays as it is.

    Args:
        x, y, sample_weight: one batch, as `train_on_batch` takes it.
        weight: such as "W2[0,1]", "b3[1]" or "dense_1/kernel[0,1]": a layer's kernel, its bias, a
            weight by its path, with the index of one element, counted from 0. Layers with weights
            are numbered from 1 in the order in which the model calls them.
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
    return explain_record(model, *recorded(model, x, y, sample_weight), weight, threshold)


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

    row: explain it on this row of the data alone, with the weights that the step begins with.

    Raises:
        UsageError: the training has fewer steps, or the data have no such row.
    """
    if row is not None and row >= len(x):
        raise UsageError(f"the row is {row}. Expected one of the data, from 0 to {len(x) - 1}.")
    check_threshold(threshold)
    if model.built:  # or else the weights have no names yet
        find_weight(model, replace(uncaptured(model, 0, 0), x=x[:1]), weight)
    stop = _Stop(step, captured=row is None)
    model.steps_per_execution = 1
    if row is None or step > 0:
        model.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[stop])
    if row is None:
        found = stop.recorded
    else:
        record, spec = recorded(model, x[row : row + 1], y[row : row + 1])
        found = replace(record, step=step), spec
    if found is None or stop.steps < step:
        raise UsageError(
            f"the step is {step}. Expected one of the {stop.steps} steps of the training, counted "
            "from 0. Ask for more epochs."
        )
    return explain_record(model, *found, weight, threshold)


def explain_record(
    model: keras.Model, record: StepRecord, spec: StepSpec, weight: str, threshold: float
) -> Explanation:
    """Explain one weight in a step that was captured."""
    step = Path(model, record, spec.framework.draw)
    path, index = step.find(weight)
    reference = derive(record, spec, Policy(lambda each: each == path))
    updates = dict(reference.updates())
    reference = replace(reference, updates=lambda: iter(updates.items()))
    comparison = compare(record, reference, threshold, rows_per_tensor=np.iinfo(np.int64).max)
    gradient = next(t for t in comparison.tensors if t.stage is Stage.GRADIENT)
    at = int(np.ravel_multi_index(index, gradient.shape)) if index else 0
    z, verdict = float(gradient.weights.z[at]), str(gradient.weights.verdict[at])
    estimate = reference.gradients[path]
    return Explanation(step.of(path, index, estimate, updates.get(path), z, verdict))


class _Stop(keras.callbacks.Callback):
    """Ends fit when a step is reached; captured: after that step, and keeps its record."""

    def __init__(self, step: int, captured: bool) -> None:
        super().__init__()
        self._wanted, self._is_captured = step, captured
        self.steps = 0
        self.recorded: tuple[StepRecord, StepSpec] | None = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._is_captured and self.steps == self._wanted:
            self._function = self.model.train_function
            vars(self.model)["train_function"] = self._captured

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        self.model.stop_training = self.steps == self._wanted + self._is_captured

    def _captured(self, iterator: Any) -> Any:
        vars(self.model)["train_function"] = self._function
        data, iterator = peeked(iterator)
        capture = Capture(self.model)
        capture.trace(data, iterator)
        logs, seen = capture.run(iterator, self._function)
        (record,), spec = capture.records(seen, step=self._wanted, epoch=0)
        self.recorded = record, spec
        return logs
