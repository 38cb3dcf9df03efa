"""`GradientAudit`, the Keras callback: the one place that knows the order of things."""

import atexit
import os
import time
from typing import Any

import keras
import tensorflow as tf

from gradaudit.capture import Capture, Replay, environment
from gradaudit.compare import Tally, compare
from gradaudit.errors import UnsupportedModelError, UsageError
from gradaudit.reference import Derivation, model_gaps, update_gaps
from gradaudit.report import RunFolder, uninterrupted


class GradientAudit(keras.callbacks.Callback):
    """Audit the gradients and the updates of a model while `fit` trains it.

    Every audited step is Keras's own train step, compiled a second time with the batch, the
    variables and the gradients as further outputs; the other steps run Keras's own function. The
    trained weights are bit for bit those of the same `fit` without the callback.

    Args:
        folder: where the report goes: steps.csv, tensors.csv, weights.csv, run.json.
        every: audit each `every`-th step, from step 0 on.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        overwrite: replace a run that lies in the folder.
        allow_unjudged: record what no rule covers as unjudged instead of raising.
        rows_per_tensor: most rows of one tensor and step in weights.csv; the worst are kept.

    Raises:
        UsageError: an argument is out of its range.
        FolderError: when training begins: the folder holds a run, or cannot be written to.
        UnsupportedModelError: when training begins: parts of the model have no rule; all of them
            are listed.

    Example:
        >>> from gradaudit import GradientAudit
        >>> audit = GradientAudit("reports/my-run")
        >>> model.fit(x, y, callbacks=[audit])  # doctest: +SKIP
        >>> audit.verdict  # doctest: +SKIP
        'pass'
    """

    async_safe = True  # on_train_batch_end only counts, so Keras may dispatch it when it likes

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        every: int = 1,
        threshold: float = 8.0,
        overwrite: bool = False,
        allow_unjudged: bool = False,
        rows_per_tensor: int = 10_000,
    ) -> None:
        super().__init__()
        for name, value in (("every", every), ("rows_per_tensor", rows_per_tensor)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} is {value}. Expected a whole number from 1 on.")
        if not 0 < threshold < float("inf"):
            raise UsageError(f"threshold is {threshold}. Expected a number above 0, such as 8.")
        self.tally = Tally()
        self._path = folder
        self._every = every
        self._threshold = threshold
        self._overwrite = overwrite
        self._allow_unjudged = allow_unjudged
        self._rows_per_tensor = rows_per_tensor
        self._folder: RunFolder | None = None
        self._derivation: Derivation | None = None
        self._audited: keras.Model | None = None
        self._epoch = self._epoch_start = self._epoch_steps = self._step = 0
        self._capture_s = self._audit_s = self._training_s = 0.0

    @property
    def verdict(self) -> str:
        """Verdict of all audited steps so far: pass, fail, unresolved or unjudged."""
        return self.tally.verdict

    def on_train_begin(self, logs: Any = None) -> None:
        if self._audited not in (None, self.model):
            raise UsageError(
                "this GradientAudit has audited another model. Expected one for each model: make "
                "another one, with another folder."
            )
        self._audited = self.model
        self._derivation = None
        self._refuse_what_cannot_be_audited()
        if self._folder is None:
            self._folder = RunFolder(self._path, self._overwrite, self._rows_per_tensor)
        atexit.register(self.close, "interrupted")
        self._capture = Capture(self.model)
        self._started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step = self._epoch_start + batch
        if self._step % self._every == 0:
            self._keras_function = self.model.train_function
            vars(self.model)["train_function"] = self._audited_step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._epoch_steps = batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._epoch_start += self._epoch_steps
        self._epoch_steps = 0

    def on_train_end(self, logs: Any = None) -> None:
        self.close(self.verdict)

    def close(self, verdict: str) -> None:
        """Write run.json with its final verdict; to be called only where `fit` did not end."""
        atexit.unregister(self.close)
        if self._folder is not None:
            self._training_s += time.perf_counter() - self._started
            self._write_run(verdict)

    def _audited_step(self, iterator: Any) -> Any:
        vars(self.model)["train_function"] = self._keras_function
        try:
            logs, record = self._capture.run(iterator, self._step, self._epoch)
            self._audit(record)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise
        except BaseException as error:
            self.close("interrupted" if isinstance(error, KeyboardInterrupt) else "aborted")
            raise
        return logs

    def _audit(self, record: Any) -> None:
        start = time.perf_counter()
        if self._derivation is None:
            self._refuse_what_cannot_be_audited()  # once more: fit may have built the model
            self._derivation = Derivation(self.model, Replay(record.jit))
        comparison = compare(record, self._derivation(record), self._threshold)
        with uninterrupted():
            self._folder.append(comparison)
            self.tally.add(comparison, self._threshold)
        self._capture_s += record.capture_ms / 1e3
        self._audit_s += time.perf_counter() - start

    def _refuse_what_cannot_be_audited(self) -> None:
        gaps = model_gaps(self.model) + update_gaps(self.model)
        never = []
        if self.model.steps_per_execution != 1:
            never.append(f"steps_per_execution is {self.model.steps_per_execution}, not 1")
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            never.append("the model is distributed over several replicas")
        if never or (gaps and not self._allow_unjudged):
            raise UnsupportedModelError(
                "the model cannot be audited: "
                + "; ".join(never + gaps)
                + ". Expected parts that have a derived rule. Register one with gradaudit.rule, or "
                "pass allow_unjudged=True (--allow-unjudged) to record the rest as unjudged."
            )

    def _write_run(self, verdict: str) -> None:
        steps = self._epoch_start + self._epoch_steps
        left_out = []
        if self._folder.rows_left_out:
            left_out.append(
                f"{self._folder.rows_left_out} rows of weights.csv: of a tensor, only the "
                f"{self._rows_per_tensor} weights with the largest z of each step are written"
            )
        left_out += [f"{what}: {why}" for what, why in self.tally.unjudged.items()]
        if self._every > 1:
            left_out.append(f"steps that are not multiples of {self._every}: every={self._every}")
        self._folder.write_run(
            {
                "verdict": verdict,
                "counts": {stage: dict(c) for stage, c in self.tally.counts.items()},
                "max_z": self.tally.max_z,
                "worst": self.tally.worst,
                "threshold": self._threshold,
                "failed": self.tally.failed,
                "failures": self.tally.failures,
                "coverage": {"steps_trained": steps, "steps_audited": self.tally.steps},
                "overhead": {
                    "training_s": round(self._training_s, 3),
                    "captured_steps_s": round(self._capture_s, 3),
                    "audit_s": round(self._audit_s, 3),
                },
                "left_out": left_out,
                **environment(self.model),
            }
        )
