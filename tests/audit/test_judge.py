from types import SimpleNamespace

import numpy as np
import pytest

from gradaudit.audit import judge as judging
from gradaudit.audit.judge import Judge
from gradaudit.records import Comparison, Estimate, Oracle, Reference, Verdict
from gradaudit.reference import Policy


class Clock:
    """Moves when it is told to, in seconds."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(judging, "time", clock)
    return clock


def test_updates_count_as_reference_and_the_rest_of_the_comparison_as_comparison(
    monkeypatch, clock
):
    def updates():
        for path in ("kernel", "bias"):
            clock.work(2)
            yield path, Estimate(np.zeros(1), np.ones(1), None, 1.0, Oracle.DERIVED)

    def derive(record, spec, policy):
        clock.work(1)
        return Reference(None, {}, updates)

    def compare(record, reference, threshold, rows_per_tensor, sink):
        sink.begin()
        sink.add(None)
        assert [path for path, _ in reference.updates() if clock.work(10) is None] == [
            "kernel",
            "bias",
        ]
        return Comparison(0, 0, 0, 1, None, 0.0, 0.0, (), 0.0, "", (), Verdict.PASS, capture_ms=7.0)

    rows = SimpleNamespace(begin=lambda: None, add=lambda rows: clock.work(3))
    monkeypatch.setattr(judging, "derive", derive)
    monkeypatch.setattr(judging, "compare", compare)
    found = Judge(list, Policy(), 8.0, 10, rows).judge(None, None)
    assert found.capture_ms == 7.0
    assert found.reference_ms == pytest.approx(1_000)
    assert found.update_ms == pytest.approx(2 * 2_000)
    assert found.compare_ms == pytest.approx(2 * 10_000)
    assert found.report_ms == pytest.approx(3_000)
