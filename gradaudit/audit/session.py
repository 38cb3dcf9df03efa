"""An audit of many steps: judges, counts, writes and tells each, and sums them up."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from gradaudit.audit.faults import Faults
from gradaudit.audit.judge import Judge
from gradaudit.audit.selection import Budget
from gradaudit.audit.settings import OnFail, Settings
from gradaudit.audit.stale import Stale
from gradaudit.audit.tally import Tally
from gradaudit.backends import backend_of
from gradaudit.errors import AuditFailure, GapCode, UnsupportedModelError
from gradaudit.records import FAILURES, Comparison, Gap, StepRecord, StepSpec, Verdict
from gradaudit.reference import Policy
from gradaudit.report import Ended, RunFolder, headline, uninterrupted, waived
from gradaudit.rules import variable_keys
from gradaudit.scoring import NO_ROWS, RowSink
from gradaudit.scoring.rows import left_out_words


def _silent(least: int, words: str) -> None:
    pass


class Session:
    """An audit of the steps of one model; an `Observer` of the hook that runs them.

    A fault of the auditor is kept with its traceback, and the step is unjudged; under
    on_fail="raise" the fault is raised.

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
        say: Callable[[int, str], None] = _silent,
    ) -> None:
        self.model = model
        self._backend = backend_of(model)
        self.budget = Budget(settings.budget)
        self.tally = Tally()
        self.folder = folder
        self._settings = settings
        self._judge = Judge(
            model,
            policy or settings.policy(),
            settings.threshold,
            settings.rows_per_tensor,
            folder or rows,
            settings.sigma,
        )
        self._faults = Faults()
        self._say = say
        self._told: set[str] = set()
        self._left_to_another = 0
        self._apart: list[float] = []
        self._stale = Stale()
        self._capture_s = 0.0

    @property
    def verdict(self) -> Verdict:
        """Verdict of all steps so far: "unjudged" also where the auditor failed."""
        verdict = self.tally.verdict
        return Verdict.UNJUDGED if self._faults.count and verdict not in FAILURES else verdict

    def taken(self, records: Sequence[StepRecord], spec: StepSpec, apart: float) -> None:
        """Judge a step that was recorded; see `Observer`."""
        self._capture_s += sum(record.capture_ms for record in records) / 1e3
        is_stale = any(self._stale.is_of(record.step) for record in records)
        self._apart += [apart] if apart and not is_stale else []
        for record in records:
            self.add(self.judge(record, spec))

    def stale(self, step: int, words: Sequence[str]) -> None:
        """Keep and tell what a compiled step still does; see `Observer`."""
        for each in self._stale.add(step, words):
            self._say(1, f"stale, from step {step} on: {each}")

    def missed(self, step: int, epoch: int, gap: Gap) -> None:
        """Record a step as unjudged; see `Observer`."""
        try:
            comparison = self._judge.unjudged(
                self._backend.uncaptured(self.model, step, epoch), gap
            )
        except Exception as error:
            self.fault(error, f"recording step {step} as unjudged")
            return
        self.add(comparison)

    def failed(self, error: Exception, doing: str) -> Gap:
        """Return why a step is not recorded; see `Observer`."""
        if isinstance(error, UnsupportedModelError):
            return Gap(GapCode.CAPTURE, "", str(error))
        return Gap(GapCode.FAULT, "", self.fault(error, doing))

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
            reason = self.fault(error, f"judging step {record.step}")
            return self._judge.unjudged(record, Gap(GapCode.FAULT, "", reason))

    def fault(self, error: Exception, doing: str) -> str:
        """Keep a fault of the auditor; return it in words.

        Raises:
            Exception: the error itself, under on_fail="raise".
        """
        words = self._faults.add(error, doing)
        if self._settings.on_fail == OnFail.RAISE:
            raise error
        if self._faults.count == 1:
            self._say(
                0,
                f"warning: {words.rstrip('.')}. The training goes on; run.json has the traceback.",
            )
        return words

    def add(self, comparison: Comparison) -> None:
        """Count, write and tell the verdicts on a step; stop or raise where it failed.

        Raises:
            AuditFailure: the step failed, under on_fail="raise".
        """
        comparison = self._stale.blamed(comparison)
        with uninterrupted():
            failures = self.tally.add(comparison, self._settings.threshold)
            try:
                if self.folder is not None:
                    self.folder.append(comparison)
            except Exception as error:
                self.fault(error, f"writing step {comparison.step}")
        self._tell(comparison, failures)
        if failures and self._settings.on_fail == OnFail.STOP:
            self.model.stop_training = True
        if failures and self._settings.on_fail == OnFail.RAISE:
            more = f" (and {len(failures) - 1} more in this step)" if len(failures) > 1 else ""
            report = "" if self.folder is None else f". Report: {self.folder.path}"
            raise AuditFailure(f"{failures[0]}{more}{report}")

    def _tell(self, comparison: Comparison, failures: list[str]) -> None:
        for words in self.tally.unjudged_in_words():
            if words not in self._told:
                self._told.add(words)
                self._say(1, f"cannot judge the {words}")
        if failures and failures == self.tally.failures:
            self._say(1, f"FAIL {failures[0]}")
        self._say(
            2, f"step {comparison.step}: {comparison.verdict}, largest z {comparison.max_z:.2f}"
        )

    def close(self, ended: Ended, trained: int) -> None:
        """Write run.json as it is at the end of a training, and say the verdict.

        ended: an audit that did not finish has that as its verdict, unless something failed.
        trained: number of steps that ran.
        """
        self.budget.stop()
        verdict: str = self.verdict
        if ended is not Ended.FINISHED and self.verdict not in FAILURES:
            verdict = ended
        try:
            with uninterrupted():
                run = {**self._run_json(trained), "verdict": verdict, "ended": ended}
                if self.folder is not None:
                    self.folder.write_run(run)
        except Exception as error:
            self.fault(error, "writing run.json")
        for words in self.budget.words():
            self._say(1, f"left out {words}")
        report = "" if self.folder is None else f" Report: {self.folder.path}"
        self._say(1, f"{headline({**self.summary(), 'verdict': verdict})}.{report}")

    def summary(self) -> dict[str, Any]:
        """Return what run.json says of the verdicts, and of what was asked for."""
        tally, settings = self.tally, self._settings
        run: dict[str, Any] = {
            "verdict": str(self.verdict),
            "waived": [],
            "counts": {
                str(stage): {str(verdict): count for verdict, count in counts.items()}
                for stage, counts in tally.counts.items()
            },
            "max_z": tally.max_z,
            "worst": tally.worst,
            "threshold": settings.threshold,
            "failed": tally.failed,
            "failures": tally.failures,
            "unjudged": self._unjudged(),
            "stale": self._stale.in_words(),
            "stale_steps": self._stale.count,
            "faults": self._faults.summary(),
            "options": {
                **settings.selection.options(),
                "budget": settings.budget,
                "oracle": str(settings.oracle),
                "expect": settings.expect,
                "on_fail": settings.on_fail,
                "rows_per_tensor": settings.rows_per_tensor,
                "format": str(settings.format),
                "sigma": str(settings.sigma),
                "verbose": settings.verbose,
            },
            "expected": [
                {name: getattr(each, name) for name in ("function", "layer", "file", "line")}
                for each in sorted(tally.expected)
            ],
            "coverage": {"steps_audited": tally.steps},
        }
        return {**run, "waived": waived(run)}

    def _unjudged(self) -> list[str]:
        if self._judge.paths():
            return self.tally.unjudged_in_words()
        keys = variable_keys(self.model)
        paths = [keys[id(v)] for v in self.model.trainable_variables]
        return [f"no trainable weight is asked for, of {', '.join(paths[:9]) or 'none'}"]

    def _run_json(self, trained: int) -> dict[str, Any]:
        return {
            **self.summary(),
            "coverage": {"steps_trained": trained, "steps_audited": self.tally.steps},
            "overhead": {
                "training_s": round(self.budget.elapsed_s, 3),
                "captured_steps_s": round(self._capture_s, 3),
                "audit_s": round(self.budget.audit_s, 3),
            },
            "left_out": self._left_out(),
            **self._backend.environment(self.model),
        }

    def _left_out(self) -> list[str]:
        words = []
        if self.tally.rows_left_out:
            words.append(
                f"{self.tally.rows_left_out} rows of single weights: of a tensor of more than "
                f"{left_out_words(self._settings.rows_per_tensor)} in each step"
            )
        words += self.tally.unjudged_in_words()
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
        return words
