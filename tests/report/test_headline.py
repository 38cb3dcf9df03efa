"""The headline of a run: its verdict, what was waived, and how much could not be judged."""

import pytest

from gradaudit.audit.settings import Settings
from gradaudit.records import DEFAULT_THRESHOLD
from gradaudit.report import headline, waived


def run(verdict="pass", gradient=None, expected=(), threshold=8.0, **options):
    options = {"layers": None, "oracle": "derived", "expect": {}, **options}
    return {
        "verdict": verdict,
        "counts": {"gradient": gradient or {"pass": 100}, "update": {"unresolved": 9000}},
        "threshold": threshold,
        "options": options,
        "expected": [
            {"function": function, "layer": layer, "file": "net.py", "line": 3}
            for function, layer in expected
        ],
        "coverage": {"steps_audited": 5},
    }


def test_where_nothing_is_waived_nothing_is_said():
    assert headline(run()) == "PASS, 5 steps audited"
    assert headline(run("fail")) == "FAIL, 5 steps audited"
    assert headline({"verdict": "running"}) == "RUNNING"
    assert waived(run()) == waived({"verdict": "pass"}) == []
    assert Settings().threshold == DEFAULT_THRESHOLD


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"expect": {"bad": "custom"}, "expected": [("bad", "net/hidden")]},
            "1 custom gradient waived (expect: 'bad')",
        ),
        (
            {"expect": {"bad": "custom"}, "expected": [("bad", "a"), ("bad", "b")]},
            "1 custom gradient waived (expect: 'bad')",
        ),
        (
            {"expect": {"h": "custom"}, "expected": [("bad", "net/h"), ("worse", "h")]},
            "2 custom gradients waived (expect: 'h')",
        ),
        (
            {"expect": {"bad": "custom", "bda": "custom"}, "expected": [("bad", "a")]},
            "1 custom gradient waived (expect: 'bad'), expect: 'bda' matched no custom gradient",
        ),
        ({"expect": {"bda": "custom"}}, "expect: 'bda' matched no custom gradient"),
        ({"layers": "encoder.*"}, "only layers 'encoder.*' were asked for"),
        ({"threshold": 20.0}, "threshold 20 (default 8)"),
        ({"threshold": 7.5}, "threshold 7.5 (default 8)"),
        ({"oracle": "both"}, "oracle 'both'"),
        (
            {"gradient": {"pass": 996, "unresolved": 4}},
            "0.4 % of the gradient weights could not be resolved",
        ),
        (
            {"gradient": {"pass": 99_999, "unresolved": 1}},
            "less than 0.1 % of the gradient weights could not be resolved",
        ),
        (
            {"gradient": {"pass": 1, "unresolved": 1}},
            "50 % of the gradient weights could not be resolved",
        ),
        (
            {"gradient": {"pass": 40, "kink": 30, "unresolved": 20, "unjudged": 10}},
            "20 % of the gradient weights could not be resolved, 10 % of the gradient weights were "
            "not judged",
        ),
        (
            {"layers": "out", "threshold": 9.0},
            "only layers 'out' were asked for, threshold 9 (default 8)",
        ),
    ],
)  # fmt: skip
def test_what_is_waived_stands_behind_the_verdict(asked, words):
    found = run(**asked)
    assert headline(found) == f"PASS, {words}, 5 steps audited"
    assert ", ".join(waived(found)) == words
    assert headline({**found, "verdict": "fail"}) == f"FAIL, {words}, 5 steps audited"


@pytest.mark.parametrize(
    ("verdict", "gradient", "words"),
    [
        ("pass", {"pass": 48, "unresolved": 52}, "MOSTLY UNRESOLVED (verdict: pass), 52 % of"),
        ("pass", {"pass": 1, "unresolved": 999}, "MOSTLY UNRESOLVED (verdict: pass), 99 % of"),
        (
            "unjudged",
            {"pass": 40, "unresolved": 50, "unjudged": 10},
            "MOSTLY UNRESOLVED (verdict: unjudged), 50 % of",
        ),
        ("unjudged", {"pass": 40, "unjudged": 60}, "UNJUDGED, 60 % of"),
        ("unresolved", {"unresolved": 60}, "UNRESOLVED, 100 % of"),
        ("interrupted", {"unjudged": 60}, "MOSTLY UNJUDGED (verdict: interrupted), 100 % of"),
        ("fail", {"fail": 1, "unresolved": 99}, "FAIL, 99 % of"),
        ("nonfinite", {"nonfinite": 1, "unresolved": 99}, "NONFINITE, 99 % of"),
        ("pass", {"pass": 50, "unresolved": 50}, "PASS, 50 % of"),
    ],
)
def test_a_run_that_is_unresolved_for_the_most_part_does_not_begin_with_pass(
    verdict, gradient, words
):
    assert headline(run(verdict, gradient)).startswith(f"{words} the gradient weights")


def test_nothing_is_said_of_expect_where_no_gradient_was_judged():
    found = run("unjudged", {"unjudged": 100}, expect={"bad": "custom"})
    assert headline(found).startswith("UNJUDGED, 100 % of the gradient weights were not judged, 5")
