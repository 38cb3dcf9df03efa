"""Which parameters of a test run by default, and which with `pytest -m long` only.

By default a test that goes through a table runs a few of its rows, chosen so that each kind is met.
"""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def by_default(cases: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """Return the parameters of a test: the chosen ones as they are, the others marked `long`.

    Args:
        cases: a value each, or a tuple of values where the test takes several.
        chosen: those that run by default.

    Raises:
        ValueError: a chosen one is not among the cases, so nothing would run for it.
    """
    cases = list(cases)
    unknown = [case for case in chosen if case not in cases]
    if unknown:
        raise ValueError(f"{unknown} are not among the cases. Expected some of {cases}.")
    return [case if case in chosen else _long(case) for case in cases]


def _long(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.long)
