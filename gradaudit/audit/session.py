"""An audit of the steps that a model takes: takes them from a hook, and has them judged."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras

from gradaudit.audit.background import Background
from gradaudit.audit.judge import Judge
from gradaudit.audit.results import Results, silent
from gradaudit.audit.selection import Budget
from gradaudit.audit.settings import Mode, Settings
from gradaudit.audit.step_files import Judged
from gradaudit.backends import backend_of
from gradaudit.errors import DataError, GapCode, UnsupportedModelError
from gradaudit.records import Comparison, Gap, StepRecord, StepSpec
from gradaudit.reference import Policy
from gradaudit.report import Ended, RunFolder, uninterrupted
from gradaudit.rules import variable_keys
from gradaudit.scoring import NO_ROWS, RowSink

_NOT_WAITED_FOR = Gap(GapCode.FAULT, "", "the training was interrupted before it was judged")


class Session:
    """An audit of the steps of one model; an `Observer` of the hook that runs them.

    Args:
        model: a compiled Keras model.
        settings: of the audit.
        folder: where each step is written to; None to write nothing.
        policy: which weights and stages are judged; None for that of the settings.
        rows: takes the rows of single weights where there is no folder.
        say: called with words to the user, and the least verbosity that prints them.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: Settings,
        folder: RunFolder | None = None,
        policy: Policy | None = None,
        rows: RowSink = NO_ROWS,
        say: Callable[[int, str], None] = silent,
    ) -> None:
        self.model = model
        self.budget = Budget(settings.budget)
        self.results = Results(settings, folder, say, self._stop)
        self._backend = backend_of(model)
        self._folder = folder
        self._settings = settings
        self._judge = Judge(
            self._paths,
            policy or settings.policy(),
            settings.threshold,
            settings.rows_per_tensor,
            folder or rows,
            settings.sigma,
        )
        self._background = Background(settings) if settings.background else None
        self._say = say
        self._left_to_another = 0
        self._apart: list[float] = []
        self._stale: tuple[int, tuple[str, ...]] = (-1, ())
        self._capture_s = 0.0
        self._written: set[int] = set()
        self._needs_code = False  # which only this process has

    def _stop(self) -> None:
        self.model.stop_training = True

    def _paths(self) -> list[str]:
        keys = variable_keys(self.model)
        return [keys[id(v)] for v in self.model.trainable_variables]

    def taken(self, records: Sequence[StepRecord], spec: StepSpec, apart: float) -> None:
        """Judge a step that was recorded; see `Observer`."""
        self._capture_s += sum(record.capture_ms for record in records) / 1e3
        step, words = self._stale
        stale = words if any(record.step == step for record in records) else ()
        self._apart += [apart] if apart and not stale else []
        for record in records:
            self._take(replace(record, stale=stale), spec)

    def _take(self, record: StepRecord, spec: StepSpec) -> None:
        if self._folder is not None and self._settings.records(record.step):
            with uninterrupted():  # or the step would be in no file
                self._write(self._folder, record, spec)
        if self._settings.mode == Mode.RECORD:
            return
        background = None if self._needs_code else self._background
        if background is not None and self._submit(background, record, spec):
            self._add_judged(background.most)
            return
        self._add_judged(0)
        self.results.add(self.judge(record, spec), record.stale)

    def _write(self, folder: RunFolder, record: StepRecord, spec: StepSpec) -> None:
        """Write a recorded step to a file of its own."""
        try:
            path = folder.step_file(record.step, record.replica, record.replicas)
            self._backend.write_step(path, record, spec)
            self._written.add(record.step)
            self.results.recorded = len(self._written)
        except Exception as error:
            self.results.fault(error, f"writing step {record.step} to a file")

    def _submit(self, background: Background, record: StepRecord, spec: StepSpec) -> bool:
        """Give a step to the background; return whether it takes it."""
        try:
            with uninterrupted():  # or the step would be in no table
                background.submit(record, spec)
            return True
        except DataError:  # no file holds the step
            return False
        except Exception as error:
            self.results.fault(error, f"giving step {record.step} to another process")
            return False

    def _add_judged(self, most: int) -> None:
        """Take verdicts from the background, until it has at most so many steps."""
        while self._background is not None and self._background.has_more(than=most):
            self._background.wait()
            with uninterrupted():  # or a verdict would be lost
                self._add_first(self._background)

    def _add_first(self, background: Background) -> None:
        step, judged = background.first()
        try:
            if isinstance(judged, UnsupportedModelError) or (
                isinstance(judged, Judged) and judged.needs_code
            ):
                self._needs_code = True  # as other steps will
                record = step.record()
                self.results.add(self.judge(record, step.spec), record.stale)
            elif isinstance(judged, Exception):
                reason = self.results.fault(judged, f"judging step {step.step}")
                self._add_unjudged(step.step, step.epoch, Gap(GapCode.FAULT, "", reason))
            else:
                self.results.add(judged.comparison, judged.stale, judged.rows)
        finally:
            background.forget(step)

    def _finish(self, was_interrupted: bool) -> BaseException | None:
        """Take all verdicts from the background; return what the first of them raises.

        After a second Ctrl-C the steps that are left are unjudged.
        """
        raised: BaseException | None = None
        background, start = self._background, time.perf_counter()
        while background is not None and background.has_more(than=0):
            try:
                self._add_judged(0)
            except KeyboardInterrupt as error:
                raised = raised or error
                left = background.give_up() if was_interrupted else []
                was_interrupted = True
                for step in left:
                    self._add_unjudged(step.step, step.epoch, _NOT_WAITED_FOR)
            except Exception as error:
                raised = raised or error
        self.budget.audit_s += time.perf_counter() - start
        return raised

    def stale(self, step: int, words: Sequence[str]) -> None:
        """Keep and tell what a compiled step still does; see `Observer`."""
        self._stale = step, tuple(words)
        self.results.stale(step, words)

    def missed(self, step: int, epoch: int, gap: Gap) -> None:
        """Record a step as unjudged; see `Observer`."""
        self._add_judged(0)
        self._add_unjudged(step, epoch, gap)

    def _add_unjudged(self, step: int, epoch: int, gap: Gap) -> None:
        try:
            comparison = self._judge.unjudged(
                self._backend.uncaptured(self.model, step, epoch), gap
            )
        except Exception as error:
            self.results.fault(error, f"recording step {step} as unjudged")
            return
        self.results.add(comparison)

    def failed(self, error: Exception, doing: str) -> Gap:
        """Return why a step is not recorded; see `Observer`."""
        if isinstance(error, UnsupportedModelError):
            return Gap(GapCode.CAPTURE, "", str(error))
        return Gap(GapCode.FAULT, "", self.results.fault(error, doing))

    def executed(self, seconds: float) -> None:
        """Count the time of an execution whose steps were recorded; see `Observer`."""
        self.budget.spend(seconds)

    def left_to_another(self) -> None:
        """Count an execution that another audit of the same fit has taken."""
        self._left_to_another += 1

    def judge(self, record: StepRecord, spec: StepSpec, has_drawn: bool = False) -> Comparison:
        """Return the verdicts on a step, see `Judge.judge`; unjudged where the auditor fails."""
        try:
            return self._judge.judge(record, spec, has_drawn)
        except Exception as error:
            reason = self.results.fault(error, f"judging step {record.step}")
            return self._judge.unjudged(record, Gap(GapCode.FAULT, "", reason))

    def close(self, ended: Ended, trained: int) -> None:
        """Write run.json as it is at the end of a training, and say the verdict.

        trained: number of steps that ran.
        """
        is_finished = ended is Ended.FINISHED
        raised = self._finish(ended is Ended.INTERRUPTED)
        if raised is not None and is_finished:
            ended = Ended.INTERRUPTED if isinstance(raised, KeyboardInterrupt) else Ended.ABORTED
        self.budget.stop()
        for words in self.budget.words():
            self._say(1, f"left out {words}")
        try:
            self.results.close(ended, self._unjudged(), lambda: self._described(trained))
        finally:
            if self._background is not None:
                self._background.close()
        if raised is not None and is_finished:  # else another exception is on its way
            raise raised

    def summary(self) -> dict[str, Any]:
        """Return what run.json says of the verdicts, and of what was asked for."""
        return self.results.summary(self._unjudged())

    def _unjudged(self) -> list[str]:
        """Return why nothing can be judged, where no weight is asked for."""
        if self._judge.paths():
            return []
        return [f"no trainable weight is asked for, of {', '.join(self._paths()[:9]) or 'none'}"]

    def _described(self, trained: int) -> dict[str, Any]:
        """Return what run.json says besides."""
        return {
            "coverage": {"steps_trained": trained, **self.results.coverage()},
            "overhead": {
                "training_s": round(self.budget.elapsed_s, 3),
                "captured_steps_s": round(self._capture_s, 3),
                "audit_s": round(self.budget.audit_s, 3),
            },
            "left_out": self._left_out(trained),
            **self._backend.environment(self.model),
        }

    def _left_out(self, trained: int) -> list[str]:
        words = self.results.left_out()
        asked = set(self._settings.record_steps) if self._settings.record_steps != "all" else set()
        if missing := sorted(step for step in asked - self._written if step < trained):
            listed = ", ".join(map(str, missing))
            words.append(f"files of the steps {listed}: not audited, or they could not be written")
        words += self._settings.selection.left_out() + self.budget.words()
        if self._left_to_another:
            words.append(
                f"{self._left_to_another} selected steps that another GradientAudit of the same "
                "fit audits"
            )
        if self._apart:
            words.append(
                f"the last digits of {len(self._apart)} steps: XLA computes them otherwise where "
                "gradients are read, so what was judged differs from what was trained, by a "
                f"relative {max(self._apart):.1e} at most"
            )
        if self._settings.mode == Mode.RECORD and self._folder is not None:
            words.append(
                f"the verdicts on {self.results.recorded} recorded steps: run gradaudit judge "
                f"{self._folder.path}/*.step"
            )
        return words
