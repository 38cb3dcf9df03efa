"""`GradientAudit`, the Keras callback: the one place that knows the order of things."""

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import keras
import tensorflow as tf

from gradaudit.audit.judge import Judge, check_expect, check_oracle, check_threshold
from gradaudit.audit.selection import Budget, Selection
from gradaudit.backends.tensorflow import (
    Capture,
    batches_of_epoch,
    environment,
    peeked,
    uncaptured,
    wait_for_all,
    when_fit_breaks_off,
    worker,
)
from gradaudit.errors import (
    AuditFailure,
    GapCode,
    GradauditError,
    UnsupportedModelError,
    UsageError,
)
from gradaudit.records import Comparison, Gap
from gradaudit.report import RunFolder, merge, uninterrupted

_ON_FAIL = ("record", "stop", "raise")


class GradientAudit(keras.callbacks.Callback):
    """Audit the gradients and the updates of a model while `fit` trains it.

    Every audited step is Keras's own train step, compiled a second time with the batch, the
    variables and the gradients as further outputs; under XLA it is taken back, and Keras's own
    function trains. The other steps run Keras's own function alone. The trained weights are bit for
    bit those of the same `fit` without the callback. What cannot be judged is recorded as unjudged,
    with the reason; so is a fault of the audit itself, and training goes on.

    Args:
        folder: where the report goes: steps.csv, tensors.csv, weights.csv, run.json. Each worker of
            several has its own folder in it, and the first one merges them at the end.
        every: audit each `every`-th step from step 0 on, or the first step of each "epoch". 1 where
            neither `steps` nor `first` is given.
        steps: audit these steps, by number.
        first: audit the first steps, so many.
        layers: audit weights of layers in whose path this regular expression is found.
        budget: leave out selected steps where the audit would take more than this share of the
            time that the training takes without it.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        oracle: "derived" takes the derived rule of every part that has one, and traces the code of
            the others; "traced" traces all of the model's code; "both" does both, and what they do
            not agree on is unjudged. Where code leaves the graph, or has an op that is not derived,
            differences in float64 stand in: reports call that "numeric".
        expect: custom gradients that are meant, {name: "custom"} by the name of the function that
            tf.custom_gradient decorates, or of the layer that it stands in: they are taken as they
            are, and no longer compared with the true derivative. Reports tell of them all the same.
        on_fail: "record" goes on after a failed step, "stop" ends the training after it, "raise"
            raises AuditFailure; then a fault of the audit itself is raised as well.
        overwrite: replace a run that lies in the folder.
        rows_per_tensor: most rows of one tensor and step in weights.csv; the worst are kept.
        verbose: 0 prints nothing but a fault of the audit; 1 what cannot be judged, the first
            failure, and the verdict; 2 a line for each audited step as well. All to stderr.

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
        threshold: float = 8.0,
        oracle: Literal["derived", "traced", "both"] = "derived",
        expect: Mapping[str, str] = MappingProxyType({}),
        on_fail: Literal["record", "stop", "raise"] = "record",
        overwrite: bool = False,
        rows_per_tensor: int = 10_000,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(rows_per_tensor, int) or rows_per_tensor < 1:
            raise UsageError(
                f"rows_per_tensor is {rows_per_tensor}. Expected a whole number from 1 on."
            )
        check_threshold(threshold)
        check_oracle(oracle)
        check_expect(expect)
        if on_fail not in _ON_FAIL:
            raise UsageError(f"on_fail is {on_fail!r}. Expected one of {', '.join(_ON_FAIL)}.")
        if verbose not in (0, 1, 2):
            raise UsageError(f"verbose is {verbose!r}. Expected 0, 1 or 2.")
        self._selection = Selection(every, steps, first, layers)
        self._budget = Budget(budget)
        self._path = Path(folder)
        self._threshold = threshold
        self._oracle = oracle
        self._expect = dict(expect)
        self._on_fail = on_fail
        self._overwrite = overwrite
        self._rows_per_tensor = rows_per_tensor
        self._verbose = verbose
        self._folder: RunFolder | None = None
        self._judge: Judge | None = None
        self._worker, self._workers = 0, 1
        self._running = False
        self._capture: Capture | None = None
        self._keras_function: Any = None
        self._epoch = self._epoch_start = self._epoch_steps = self._batch = self._step = 0
        self._batches: int | None = None
        self._short: int | None = None
        self._capture_s = 0.0
        self._left_to_another = 0
        self._told: set[str] = set()
        self._apart: list[float] = []

    @property
    def verdict(self) -> str:
        """Verdict of all audited steps so far: pass, fail, unresolved or unjudged."""
        return "unjudged" if self._judge is None else self._judge.verdict

    @property
    def max_z(self) -> float:
        """Largest score of all audited steps so far."""
        return 0.0 if self._judge is None else self._judge.tally.max_z

    @property
    def audited_steps(self) -> int:
        """Number of audited steps so far."""
        return 0 if self._judge is None else self._judge.tally.steps

    def on_train_begin(self, logs: Any = None) -> None:
        if self._running:  # the last fit broke off between two epochs
            self._close("interrupted")
        self._end_epoch()
        try:
            self._begin()
        except GradauditError:
            raise
        except Exception as error:
            if self._on_fail == "raise":
                raise
            _print(f"warning: nothing is audited, {type(error).__name__} at the beginning: {error}")
            return
        self._running = True

    def _begin(self) -> None:
        if self._judge is None:
            self._begin_report()
        elif self._audited is not self.model:
            raise UsageError(
                "this GradientAudit has audited another model. Expected one for each model: make "
                "another one, with another folder."
            )
        self._keras_function = self._capture = None
        self._batches = batches_of_epoch(self.model)
        self._unwatch = when_fit_breaks_off(self.model, self._break_off)
        self._budget.start()

    def _begin_report(self) -> None:
        self._worker, self._workers = worker(self.model.distribute_strategy)
        if self._workers > 1 and self._budget.share is not None:
            raise UsageError(
                "budget is given, and several workers train together. Expected all of them to "
                "audit the same steps, which their own clocks cannot tell. Choose with every, "
                "steps or first."
            )
        if self._workers > 1 and self._on_fail != "record":
            raise UsageError(
                f"on_fail is {self._on_fail!r}, and several workers train together: one of them "
                "that ends by itself leaves the others waiting. Expected on_fail='record'."
            )
        self._audited = self.model
        self._folder = RunFolder(self._path, self._overwrite)
        if self._workers > 1:
            self._folder = RunFolder(self._path / f"worker-{self._worker}", self._overwrite)
        self._judge = Judge(
            self.model,
            self._selection.weight,
            self._threshold,
            self._rows_per_tensor,
            self._report_fault,
            oracle=self._oracle,
            expect=self._expect,
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch, self._step = batch, self._epoch_start + batch
        if not self._running:
            return
        steps = range(self.model.steps_per_execution)
        selected = any(self._selection.step(self._step + i, batch + i) for i in steps)
        if selected and self._budget.allows():
            self.model.make_train_function()  # as fit has done, but not who calls train_on_batch
            self._stand_in_for(self.model.train_function)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._epoch_steps = min(batch + 1, self._steps_of_epoch)

    @property
    def _steps_of_epoch(self) -> float:
        """Number of steps in the epoch, as far as it is known: its last execution may be short."""
        return min(self._batches or math.inf, self._short or math.inf)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end_epoch()

    def _end_epoch(self) -> None:
        self._epoch_start += self._epoch_steps
        self._epoch_steps, self._short = 0, None

    def on_train_end(self, logs: Any = None) -> None:
        self._close("finished")
        if self._workers > 1:
            try:
                self._merge()
            except Exception as error:
                self._judge.fault(error, "merging the reports of the workers")

    def _merge(self) -> None:
        """Let the first worker make one report of all, once each of them has closed its own."""
        wait_for_all(self.model.distribute_strategy)
        if self._worker == 0:
            parts = [self._path / f"worker-{i}" for i in range(self._workers)]
            merge(parts, RunFolder(self._path, overwrite=True))
            self._say(1, f"the reports of {self._workers} workers are merged in {self._path}")

    def _close(self, ended: str) -> None:
        """Put everything back, and write run.json as it is at the end.

        ended: "finished", "aborted" or "interrupted"; what is not finished has that as its verdict,
            unless something failed.
        """
        if not self._running:
            return
        self._running = False
        self._unwatch()
        self._restore()
        verdict = self.verdict if ended == "finished" or self.verdict == "fail" else ended
        self._budget.stop()
        try:
            with uninterrupted():
                run = {**self._run_json(), "verdict": verdict, "ended": ended}
                self._folder.write_run(run)
        except Exception as error:
            self._judge.fault(error, "writing run.json")
        for words in self._budget.words():
            self._say(1, f"left out {words}")
        self._say(
            1, f"{verdict.upper()}, {self.audited_steps} steps audited. Report: {self._folder.path}"
        )

    def _stand_in_for(self, train_function: Any) -> None:
        if isinstance(getattr(train_function, "__self__", None), GradientAudit):
            self._left_to_another += 1
            return
        if train_function is not self._keras_function:  # the first one, or one that was made anew
            self._keras_function = train_function
            self._capture = None
        vars(self.model)["train_function"] = self._audited_execution

    def _break_off(self, error: BaseException | None) -> None:
        self._close("aborted" if isinstance(error, Exception) else "interrupted")

    def _restore(self) -> None:
        """Give the model its own train function back."""
        if vars(self.model).get("train_function") == self._audited_execution:
            vars(self.model)["train_function"] = self._keras_function

    def _audited_execution(self, iterator: Any) -> Any:
        """Stand in for Keras's train function: run its steps one by one, and judge each."""
        start = time.perf_counter()
        self._restore()
        data, iterator = peeked(iterator)
        try:
            self._capture = self._capture or Capture(self.model)
            self._capture.trace(data, iterator)
        except UnsupportedModelError as error:
            return self._unaudited_execution(iterator, Gap(GapCode.CAPTURE, "", str(error)))
        except Exception as error:
            reason = self._judge.fault(error, f"capturing step {self._step}")
            return self._unaudited_execution(iterator, Gap(GapCode.FAULT, "", reason))
        logs = None
        for number in range(self.model.steps_per_execution):
            try:
                logs, seen = self._capture.run(iterator, self._keras_function)
            except (StopIteration, tf.errors.OutOfRangeError):
                if number == 0:
                    raise
                self._short = self._batch + number
                break
            self._audit(seen, self._step + number)
        self._budget.spend(time.perf_counter() - start)
        return logs

    def _unaudited_execution(self, iterator: Any, gap: Gap) -> Any:
        """Run Keras's own function, where the sibling of its step cannot be compiled."""
        logs = self._keras_function(iterator)
        steps = min(self.model.steps_per_execution, self._steps_of_epoch - self._batch)
        for number in range(int(steps)):
            self._record_unjudged(self._step + number, gap)
        return logs

    def _audit(self, seen: dict[str, Any], step: int) -> None:
        try:
            records, spec = self._capture.records(seen, step, self._epoch)
        except Exception as error:
            reason = self._judge.fault(error, f"reading step {step}")
            self._record_unjudged(step, Gap(GapCode.FAULT, "", reason))
            return
        self._capture_s += sum(record.capture_ms for record in records) / 1e3
        self._apart += [seen["apart"]] if seen.get("apart") else []
        for record in records:
            self._record(self._judge.judge(record, spec))

    def _record_unjudged(self, step: int, gap: Gap) -> None:
        try:
            comparison = self._judge.unjudged(uncaptured(self.model, step, self._epoch), gap)
        except Exception as error:
            self._judge.fault(error, f"recording step {step} as unjudged")
            return
        self._record(comparison)

    def _record(self, comparison: Comparison) -> None:
        with uninterrupted():
            failures = self._judge.add(comparison)
            try:
                self._folder.append(comparison)
            except Exception as error:
                self._judge.fault(error, f"writing step {comparison.step}")
        self._tell(comparison, failures)
        if failures and self._on_fail == "stop":
            self.model.stop_training = True
        if failures and self._on_fail == "raise":
            more = f" (and {len(failures) - 1} more in this step)" if len(failures) > 1 else ""
            raise AuditFailure(f"{failures[0]}{more}. Report: {self._folder.path}")

    def _report_fault(self, error: Exception, words: str) -> None:
        if self._on_fail == "raise":
            raise error
        if self._judge.faults == 1:
            _print(f"warning: {words}. The training goes on; run.json has the traceback.")

    def _tell(self, comparison: Comparison, failures: list[str]) -> None:
        tally = self._judge.tally
        for words in tally.unjudged_in_words():
            if words not in self._told:
                self._told.add(words)
                self._say(1, f"cannot judge the {words}")
        if failures and len(failures) == tally.failed:
            self._say(1, f"FAIL {failures[0]}")
        self._say(
            2, f"step {comparison.step}: {comparison.verdict}, largest z {comparison.max_z:.2f}"
        )

    def _say(self, least: int, words: str) -> None:
        if self._verbose >= least:
            _print(words)

    def _run_json(self) -> dict[str, Any]:
        left_out = []
        tally = self._judge.tally
        if tally.rows_left_out:
            left_out.append(
                f"{tally.rows_left_out} rows of weights.csv: of a tensor, only the "
                f"{self._rows_per_tensor} weights with the largest z of each step are written"
            )
        left_out += tally.unjudged_in_words()
        left_out += self._selection.left_out() + self._budget.words()
        if self._left_to_another:
            left_out.append(
                f"{self._left_to_another} selected steps that another GradientAudit of the same "
                "fit audits"
            )
        if self._apart:
            left_out.append(
                f"the last digits of {len(self._apart)} steps: XLA computes them otherwise where "
                "gradients are read, so what was judged differs from what was trained, by a "
                f"relative {max(self._apart):.1e} at most"
            )
        return {
            **self._judge.summary(),
            "options": {
                **self._selection.options(),
                "budget": self._budget.share,
                "on_fail": self._on_fail,
                "rows_per_tensor": self._rows_per_tensor,
                "verbose": self._verbose,
            },
            "coverage": {
                "steps_trained": self._epoch_start + self._epoch_steps,
                "steps_audited": tally.steps,
            },
            "overhead": {
                "training_s": round(self._budget.elapsed_s, 3),
                "captured_steps_s": round(self._capture_s, 3),
                "audit_s": round(self._budget.audit_s, 3),
            },
            "left_out": left_out,
            **self._environment(),
        }

    def _environment(self) -> dict[str, Any]:
        try:
            return environment(self.model)
        except Exception as error:  # a get_config of the user's may do anything
            self._judge.fault(error, "describing the model")
            return {}


def _print(words: str) -> None:
    print(f"gradaudit: {words}", file=sys.stderr)
