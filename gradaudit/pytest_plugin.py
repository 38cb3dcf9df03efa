"""The pytest plugin: the fixture `gradient_audit`, with options in a group of its own.

Where a test passes for which something was waived, the summary at the end says so.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gradaudit.enums import DEFAULT_THRESHOLD
from gradaudit.errors import AuditFailure

if TYPE_CHECKING:
    import keras

    from gradaudit.report import Run

_PROPERTY = "gradaudit"
"""Name of the property of a test that holds the headline of its audit, also in a JUnit file."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `gradient_audit`."""
    group = parser.getgroup("gradaudit", "audits of gradients (gradaudit)")
    group.addoption(
        "--gradaudit-threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        metavar="Z",
        help="largest |tape - reference| in standard deviations that passes  [8]",
    )
    group.addoption(
        "--gradaudit-allow-unjudged",
        action="store_true",
        help="let gradient_audit pass where something could not be judged",
    )
    group.addoption(
        "--gradaudit-reports",
        type=Path,
        metavar="DIR",
        help="write the report of each gradient_audit to a folder in DIR, named as the test",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that passed while something was waived, or could not be judged."""
    told = [
        f"{report.nodeid}: {words}"
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, words in report.user_properties
        if name == _PROPERTY
    ]
    if told:
        terminalreporter.section("gradaudit: passed with something waived")
        for line in told:
            terminalreporter.line(line)


@pytest.fixture
def gradient_audit(request: pytest.FixtureRequest) -> Callable[..., "Run"]:
    """Return `gradaudit.check`, which fails the test where the audit does not pass.

    Example:
        >>> def test_gradients(gradient_audit):
        ...     gradient_audit(model, x, y)
    """
    from gradaudit.one_step import check

    option = request.config.getoption
    made = 0

    def audit(
        model: "keras.Model",
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        layers: str | None = None,
    ) -> "Run":
        nonlocal made
        run = check(
            model, x, y, sample_weight, layers=layers, threshold=option("gradaudit_threshold")
        )
        reports = option("gradaudit_reports")
        if reports is not None:
            name = re.sub(r"[^\w.-]+", "_", request.node.nodeid)
            made += 1
            run.save(reports / (name if made == 1 else f"{name}-{made}"), overwrite=True)
        if run.run["waived"]:
            request.node.user_properties.append((_PROPERTY, run.headline))
        try:
            run.raise_for_failure(allow_unjudged=option("gradaudit_allow_unjudged"))
        except AuditFailure as failure:
            pytest.fail(f"gradaudit: {failure}", pytrace=False)
        return run

    return audit
