"""Which tests run: by default, with `pytest -m long`, and with `pytest --part I/N`.

By default a test that goes through a table runs a few of its rows, chosen so that each kind is met.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pytest

BLOCK = 40
"""Tests that stay together when the suite is cut into parts."""


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


def part_of(items: Sequence[Any], which: str) -> Sequence[Any]:
    """Return the I-th of N parts of a sequence, which: "I/N".

    Blocks of neighbours go to the parts in turn: tests of one file cost alike, and share what they
    build.

    Raises:
        ValueError: I is not one of 1 to N.
    """
    part, parts = map(int, which.split("/"))
    if not 1 <= part <= parts:
        raise ValueError(f"there is no part {which}. Expected I/N with I from 1 to N.")
    return [item for i, item in enumerate(items) if i // BLOCK % parts == part - 1]


def _long(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.long)
