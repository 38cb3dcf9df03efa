"""One step by itself: recorded without training the model, and judged."""

from collections.abc import Sequence
from typing import Any

import keras

from gradaudit.audit.session import Session
from gradaudit.audit.settings import Settings
from gradaudit.backends import backend_of
from gradaudit.errors import UsageError
from gradaudit.records import Gap, StepRecord, StepSpec
from gradaudit.reference import Policy
from gradaudit.reference.arguments import without_rows
from gradaudit.report import InMemory, Run


class LastStep:
    """An observer that keeps the record of the last step, and raises what fails.

    recorded: record and spec; None before the first step.
    """

    def __init__(self) -> None:
        self.recorded: tuple[StepRecord, StepSpec] | None = None

    def taken(self, records: Sequence[StepRecord], spec: StepSpec, apart: float) -> None:
        """Keep the record of the only replica."""
        (record,) = records
        self.recorded = record, spec

    def stale(self, step: int, words: Sequence[str]) -> None:
        """Do nothing: a step by itself is compiled when it runs."""

    def missed(self, step: int, epoch: int, gap: Gap) -> None:
        """Do nothing: `failed` has raised."""

    def failed(self, error: Exception, doing: str) -> Gap:
        """Raise the error."""
        raise error

    def executed(self, seconds: float) -> None:
        """Do nothing."""


def recorded(
    model: keras.Model, x: Any, y: Any, sample_weight: Any = None
) -> tuple[StepRecord, StepSpec]:
    """Record one step of a model's own train step on one batch.

    Every variable of the model and its optimizer gets its value back. A model or an optimizer that
    is not built yet is built.

    Raises:
        UsageError: the model is not compiled, or the batch has no rows.
        UnsupportedModelError: the step cannot be captured.
    """
    check_compiled(model)
    check_rows(x, y, sample_weight)
    kept = LastStep()
    hook = backend_of(model).StepHook(model, kept)
    batch = (x, y, sample_weight)
    hook.trace(batch, iter([batch]))  # makes the variables that the first step makes
    optimizer = [] if model.optimizer is None else model.optimizer.variables
    variables = (*model.variables, *model.metrics_variables, *optimizer)
    before = [(v, v.value.numpy()) for v in variables]
    try:
        hook.execute(iter([batch]))
    finally:
        for variable, value in before:
            variable.assign(value)
    assert kept.recorded is not None
    return kept.recorded


def judged(
    model: keras.Model,
    record: StepRecord,
    spec: StepSpec,
    settings: Settings,
    policy: Policy | None = None,
    has_drawn: bool = False,
) -> Run:
    """Return the report on one recorded step.

    Args:
        model: to be described in the report; the step itself is judged by its spec.
        record: the numbers of the step.
        spec: what the step computed.
        settings: under on_fail="raise" a fault of the auditor is raised.
        policy: which weights and stages are judged; None for that of the settings.
        has_drawn: the record has the states of the seeds after the draws of the step.
    """
    rows = InMemory()
    session = Session(model, settings, policy=policy, rows=rows)
    comparison = session.judge(record, spec, has_drawn)
    session.results.tally.add(comparison, settings.threshold)
    return rows.report(comparison, {**session.summary(), **backend_of(model).environment(model)})


def check_rows(x: Any, y: Any, sample_weight: Any) -> None:
    """Validate that a batch has rows.

    Raises:
        UsageError: a part of it has none.
    """
    parts = {"x": x, "y": y, "sample_weight": sample_weight}
    if empty := without_rows(parts):
        raise UsageError(
            f"{' and '.join(empty)} {'has' if len(empty) == 1 else 'have'} 0 rows. Expected a "
            "batch of at least one row: without one there is nothing to judge. Look at what "
            "selects the rows."
        )


def check_compiled(model: keras.Model) -> None:
    """Validate that a model could be trained.

    Raises:
        UsageError: it is not compiled.
    """
    if not model.compiled:
        raise UsageError(
            f"the model {model.name!r} is not compiled. Expected one that could be trained: call "
            "model.compile(optimizer, loss), or use gradaudit.audit_gradients in a loop of yours."
        )
