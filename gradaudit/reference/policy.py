"""How a step is judged: which weights and stages, by which oracle, with which custom gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradaudit.errors import UsageError
from gradaudit.records import Oracle, Stage

ORACLES = (Oracle.DERIVED, Oracle.TRACED, Oracle.BOTH)
"""The oracles that a user may ask for."""


def _every(path: str) -> bool:
    return True


@dataclass(frozen=True)
class Policy:
    """How a step is judged.

    wanted: whether a weight is judged, by its path. stages: which stages are.
    oracle: DERIVED, TRACED or BOTH. expect: names of functions and layers whose custom gradients
        are taken as they are.
    bound: σ may be a lower bound, which costs a part of σ itself. What agrees within a few of it
        agrees within as many σ; nothing else can be said by it. See `numerics.precision.BOUND`.
    twin: κ is measured where σ is a lower bound, too.

    `stages` and `oracle` may be members of the enums or their values.

    Raises:
        UsageError: there is no such oracle or stage.
    """

    wanted: Callable[[str], bool] = _every
    stages: Sequence[Stage] = tuple(Stage)
    oracle: Oracle = Oracle.DERIVED
    expect: tuple[str, ...] = ()
    bound: bool = False
    twin: bool = False

    def __post_init__(self) -> None:
        if self.oracle not in ORACLES:
            raise UsageError(f"oracle is {self.oracle!r}. Expected one of {', '.join(ORACLES)}.")
        known = tuple(Stage)
        if isinstance(self.stages, str) or any(stage not in known for stage in self.stages):
            raise UsageError(
                f"stages is {self.stages!r}. Expected a sequence of {' and '.join(known)}."
            )
        object.__setattr__(self, "oracle", Oracle(self.oracle))
        object.__setattr__(self, "stages", tuple(map(Stage, self.stages)))


DEFAULT = Policy()
"""All weights and both stages, by derived rules where there are any."""
