"""`GradientAudit`, the Keras callback: its arguments, the order of things, words to the user."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import keras

from gradaudit.audit.selection import Selection
from gradaudit.audit.session import Session
from gradaudit.audit.settings import OnFail, Settings
from gradaudit.backends import Hook, StepCounter, backend_of, when_fit_breaks_off
from gradaudit.errors import GradauditError, UsageError
from gradaudit.records import DEFAULT_THRESHOLD, Verdict
from gradaudit.report import Ended, RunFolder, merge, worker_folder


class GradientAudit(keras.callbacks.Callback):
    """Audit the gradients and the updates of a model while `fit` trains it.

    An audited step runs Keras's own train step, compiled a second time with the batch, the
    variables and the gradients as further outputs. Under XLA that run is undone, and Keras's own
    function trains. All other steps run Keras's own function alone. The trained weights are bit for
    bit those of the same `fit` without the callback. A step that cannot be judged, or in which the
    audit itself fails, is recorded as unjudged, with the reason, and training goes on.

    Args:
        folder: for the report: steps.csv, tensors.csv, weights.csv, run.json. Of several workers,
            each has its own folder in it, and the first one merges them at the end.
        every: audit each `every`-th step from step 0 on, or the first step of each "epoch". The
            default is 1 if neither `steps` nor `first` is given.
        steps: numbers of steps to audit, counted from 0.
        first: audit this many steps from step 0 on.
        layers: regular expression; audit the weights of layers in whose path it is found.
        budget: skip selected steps if the audit would take more than this share of the time of the
            training without it.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        oracle: "derived" uses the derived rule of every part that has one, and traces the code of
            the others. "traced" traces all of the model's code. "both" does both; what they
            disagree on is unjudged. Code that leaves the graph, and ops without a rule, are
            differentiated by differences in float64; reports call that "numeric".
        expect: custom gradients to accept, {name: "custom"}, by the name of the function that
            tf.custom_gradient decorates or of the layer that calls it. They are used as they are
            instead of the true derivative. Reports still name them, and the verdict's own line
            says how many there are.
        on_fail: after a failed step, and after one with NaN or infinity in its loss, gradients or
            weights, "record" goes on, "stop" ends the training, "raise" raises
            AuditFailure. "raise" also raises a fault of the audit itself.
        overwrite: replace a run in the folder.
        rows_per_tensor: which single weights have a row in weights.csv. By default all of a tensor
            of up to 1,000 weights; of a larger one the 20 with the largest z, and every one that is
            judged and does not pass. A number: at most so many, those with the largest z. "all".
        format: "csv", or "parquet" for every row of a large model: single weights are then in
            weights.parquet, a folder that pandas reads as one table.
        sigma: "needed" derives the rounding error σ of a step only where a lower bound of it, which
            costs a part of that, does not settle all verdicts; "always" in each step. The verdicts
            are the same; by a lower bound of σ, z is an upper bound of the score.
        mode: "judge" judges each audited step; "record" only writes it to a file in the folder, to
            be judged later by `gradaudit judge`, here or on other machines.
        record_steps: numbers of audited steps that are judged, and written to such files besides;
            "all" of them.
        background: judge in so many processes beside the training, which goes on meanwhile. It
            waits where they fall behind by two steps each, and at its end. "stop" and "raise" then
            come a few steps late. Code without a derived rule is judged within the training.
        verbose: 0 prints only a fault of the audit; 1 also what cannot be judged, the first failure
            and the verdict; 2 also a line for each audited step. All to stderr.

    Raises:
        UsageError: an argument is out of its range.
        FolderError: when training begins: the folder holds a run, or cannot be written to.
        AuditFailure: when a step fails under on_fail="raise".

    Example:
        >>> import keras, numpy as np
        >>> from gradaudit import GradientAudit
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.random.default_rng(0).random((8, 2)), np.ones((8, 1))
        >>> audit = GradientAudit("my-run", verbose=0)
        >>> history = model.fit(x, y, verbose=0, callbacks=[audit])
        >>> audit.verdict
        'pass'
    """

    async_safe = True  # on_train_batch_end only counts, so Keras may dispatch it when it likes

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        every: int | Literal["epoch"] | None = None,
        steps: Sequence[int] = (),
        first: int = 0,
        layers: str | None = None,
        budget: float | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        oracle: Literal["derived", "traced", "both"] = "derived",
        expect: Mapping[str, str] = MappingProxyType({}),
        on_fail: Literal["record", "stop", "raise"] = "record",
        overwrite: bool = False,
        rows_per_tensor: int | Literal["all"] | None = None,
        format: Literal["csv", "parquet"] = "csv",
        sigma: Literal["needed", "always"] = "needed",
        mode: Literal["judge", "record"] = "judge",
        record_steps: Sequence[int] | Literal["all"] = (),
        background: int = 0,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self._settings = Settings(
            selection=Selection(every, steps, first, layers),
            budget=budget,
            threshold=threshold,
            oracle=oracle,
            expect=expect,
            rows_per_tensor=rows_per_tensor,
            format=format,
            sigma=sigma,
            on_fail=on_fail,
            mode=mode,
            record_steps=record_steps,
            background=background,
            verbose=verbose,
        )
        self._path = Path(folder)
        self._overwrite = overwrite
        self._worker, self._workers = 0, 1
        self._counter = StepCounter()
        self._session: Session | None = None
        self._hook: Hook | None = None
        self._unwatch: Callable[[], Any] | None = None  # None while no fit is audited

    @property
    def verdict(self) -> str:
        """Verdict of all audited steps so far: pass, fail, nonfinite, unresolved or unjudged."""
        return str(Verdict.UNJUDGED if self._session is None else self._session.results.verdict)

    @property
    def max_z(self) -> float:
        """Largest score of all audited steps so far."""
        return 0.0 if self._session is None else self._session.results.tally.max_z

    @property
    def audited_steps(self) -> int:
        """Number of audited steps so far."""
        return 0 if self._session is None else self._session.results.tally.steps

    def on_train_begin(self, logs: Any = None) -> None:
        self._close(Ended.INTERRUPTED)  # where the last fit broke off between two epochs
        try:
            self._begin()
        except GradauditError:
            raise
        except Exception as error:
            if self._settings.on_fail == OnFail.RAISE:
                raise
            words = f"{type(error).__name__} at the beginning: {error}"
            self._say(0, f"warning: nothing is audited, {words}")

    def _begin(self) -> None:
        self._counter.begin_fit(self.model)
        if self._session is None:
            self._session = self._begun()
        elif self._session.model is not self.model:
            raise UsageError(
                "this GradientAudit has audited another model. Expected one for each model: make "
                "another one, with another folder."
            )
        if self._hook is None:  # one for all fits: it knows what Keras compiled in the last one
            backend = backend_of(self.model)
            self._hook = backend.StepHook(self.model, self._session, self._counter)
        self._unwatch = when_fit_breaks_off(self.model, self._break_off)
        self._session.budget.start()

    def _begun(self) -> Session:
        self._worker, self._workers = backend_of(self.model).worker(self.model.distribute_strategy)
        if self._workers > 1:
            self._settings.check_workers()
        of_run = RunFolder(self._path, self._overwrite, self._settings.format)
        if self._workers > 1:
            path = worker_folder(self._path, self._worker)
            of_run = RunFolder(path, self._overwrite, self._settings.format)
        return Session(self.model, self._settings, of_run, say=self._say)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._counter.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._counter.begin_execution(batch)
        if self._session is None or self._hook is None or self._unwatch is None:
            return
        step, selected = self._counter.step, self._settings.selection.step
        steps = range(self.model.steps_per_execution)
        wanted = any(selected(step + i, batch + i) for i in steps)
        if not self._hook.arm(wanted and self._session.budget.allows()):
            self._session.left_to_another()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._counter.end_execution(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._counter.end_epoch()

    def on_train_end(self, logs: Any = None) -> None:
        self._close(Ended.FINISHED)
        if self._session is not None and self._workers > 1:
            try:
                self._merge()
            except Exception as error:
                self._session.results.fault(error, "merging the reports of the workers")

    def _merge(self) -> None:
        """Let the first worker make one report of all, once each of them has closed its own."""
        backend_of(self.model).wait_for_all(self.model.distribute_strategy)
        if self._worker == 0:
            merge(self._path, self._workers, self._settings.format)
            self._say(1, f"the reports of {self._workers} workers are merged in {self._path}")

    def _break_off(self, error: BaseException | None) -> None:
        self._close(Ended.ABORTED if isinstance(error, Exception) else Ended.INTERRUPTED)

    def _close(self, ended: Ended) -> None:
        """Put everything back, and close the report; nothing where no fit is audited."""
        if self._session is None or self._hook is None or self._unwatch is None:
            return
        self._unwatch()
        self._unwatch = None
        self._hook.disarm()
        self._session.close(ended, self._counter.trained)

    def _say(self, least: int, words: str) -> None:
        if self._settings.verbose >= least:
            print(f"gradaudit: {words}", file=sys.stderr)
