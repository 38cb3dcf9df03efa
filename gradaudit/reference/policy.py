"""How a step is judged: which weights and stages, by which oracle, with which custom gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradaudit.records import Oracle, Stage


def _every(path: str) -> bool:
    return True


@dataclass(frozen=True)
class Policy:
    """How a step is judged.

    wanted: whether a weight is judged, by its path. stages: which stages are.
    oracle: DERIVED, TRACED or BOTH. expect: names of functions and layers whose custom gradients
        are taken as they are.
    """

    wanted: Callable[[str], bool] = _every
    stages: Sequence[Stage] = tuple(Stage)
    oracle: Oracle = Oracle.DERIVED
    expect: tuple[str, ...] = ()


DEFAULT = Policy()
"""All weights and both stages, by derived rules where there are any."""
