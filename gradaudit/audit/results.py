"""The results of an audit: counts, writes and tells the verdicts on each step, and sums them up."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gradaudit.audit.faults import Faults
from gradaudit.audit.settings import OnFail, Settings
from gradaudit.audit.stale import Stale, blamed
from gradaudit.audit.tally import Tally
from gradaudit.errors import AuditFailure
from gradaudit.records import FAILURES, Comparison, Verdict, WeightRows
from gradaudit.report import Ended, RunFolder, headline, uninterrupted, waived
from gradaudit.scoring.rows import left_out_words


def silent(least: int, words: str) -> None:
    """Say nothing."""


class Results:
    """Takes the verdicts on steps, in the order of the steps.

    A fault of the auditor is kept with its traceback, and the step is unjudged; under
    on_fail="raise" the fault is raised.

    Args:
        settings: of the audit.
        folder: where each step is written to; None to write nothing.
        say: called with words to the user, and the least verbosity that prints them.
        stop: ends the training, under on_fail="stop".

    Attributes:
        tally: the sums so far. folder: as given.
        recorded: number of steps that were written to files.
    """

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder | None = None,
        say: Callable[[int, str], None] = silent,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.tally = Tally()
        self.folder = folder
        self.recorded = 0
        self._settings = settings
        self._say, self._stop = say, stop
        self._faults = Faults()
        self._stale = Stale()
        self._told: set[str] = set()

    @property
    def verdict(self) -> Verdict:
        """Verdict of all steps so far: "unjudged" also where the auditor failed."""
        verdict = self.tally.verdict
        return Verdict.UNJUDGED if self._faults.count and verdict not in FAILURES else verdict

    def stale(self, step: int, words: Sequence[str]) -> None:
        """Keep and tell what a compiled step still does; see `Observer`."""
        for each in self._stale.add(step, words):
            self._say(1, f"stale, from step {step} on: {each}")

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

    def add(
        self,
        comparison: Comparison,
        stale: Sequence[str] = (),
        rows: Sequence[WeightRows] | None = None,
    ) -> None:
        """Count, write and tell the verdicts on a step; stop or raise where it failed.

        stale: what of the step is stale, in words. rows: of single weights; None if the folder took
        them while the step was judged.

        Raises:
            AuditFailure: the step failed, under on_fail="raise".
        """
        comparison = blamed(comparison, stale)
        with uninterrupted():
            failures = self.tally.add(comparison, self._settings.threshold)
            try:
                if self.folder is not None:
                    self.folder.append(self._with_rows(comparison, rows))
            except Exception as error:
                self.fault(error, f"writing step {comparison.step}")
        self._tell(comparison, failures)
        if failures and self._settings.on_fail == OnFail.STOP:
            self._stop()
        if failures and self._settings.on_fail == OnFail.RAISE:
            more = f" (and {len(failures) - 1} more in this step)" if len(failures) > 1 else ""
            report = "" if self.folder is None else f". Report: {self.folder.path}"
            raise AuditFailure(f"{failures[0]}{more}{report}")

    def _with_rows(self, comparison: Comparison, rows: Sequence[WeightRows] | None) -> Comparison:
        """Let the folder take the rows of a step; return it with the time that this took."""
        if rows is None or self.folder is None:
            return comparison
        start = time.perf_counter()
        self.folder.begin()
        for each in rows:
            self.folder.add(each)
        return replace(comparison, report_ms=(time.perf_counter() - start) * 1e3)

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

    def close(
        self, ended: Ended, unjudged: list[str], describe: Callable[[], dict[str, Any]]
    ) -> None:
        """Write run.json as it is at the end, and say the verdict.

        ended: an audit that did not finish has that as its verdict, unless something failed.
        unjudged: why nothing was judged, in words; see `summary`.
        describe: returns what run.json says besides; what it raises is a fault of the auditor.
        """
        verdict: str = self.verdict
        if ended is not Ended.FINISHED and self.verdict not in FAILURES:
            verdict = ended
        try:
            with uninterrupted():
                run = {**self.summary(unjudged), **describe(), "verdict": verdict, "ended": ended}
                if self.folder is not None:
                    self.folder.write_run(run)
        except Exception as error:
            self.fault(error, "writing run.json")
        report = "" if self.folder is None else f" Report: {self.folder.path}"
        self._say(1, f"{headline({**self.summary(unjudged), 'verdict': verdict})}.{report}")

    def summary(self, unjudged: list[str]) -> dict[str, Any]:
        """Return what run.json says of the verdicts, and of what was asked for.

        unjudged: why nothing was judged, in words; [] to tell what was not judged in the steps.
        """
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
            "unjudged": unjudged or tally.unjudged_in_words(),
            "stale": self._stale.in_words(),
            "stale_steps": self._stale.count,
            "faults": self._faults.summary(),
            "options": settings.options(),
            "expected": [
                {name: getattr(each, name) for name in ("function", "layer", "file", "line")}
                for each in sorted(tally.expected)
            ],
            "coverage": self.coverage(),
        }
        return {**run, "waived": waived(run)}

    def coverage(self) -> dict[str, int]:
        """Return how many steps were audited, and how many were written to files, if any."""
        found = {"steps_audited": self.tally.steps, "steps_recorded": self.recorded}
        return {what: count for what, count in found.items() if count or what == "steps_audited"}

    def left_out(self) -> list[str]:
        """Return what the tables do not have, in words."""
        words = []
        if self.tally.rows_left_out:
            words.append(
                f"{self.tally.rows_left_out} rows of single weights: of a tensor of more than "
                f"{left_out_words(self._settings.rows_per_tensor)} in each step"
            )
        return words + self.tally.unjudged_in_words()
