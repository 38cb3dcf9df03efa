"""What the runs of a step give."""

import dataclasses
from dataclasses import dataclass

from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Estimate, Oracle, Passed
from gradaudit.rules.tape import Provenances


@dataclass(frozen=True)
class Found:
    """What the runs of a step give.

    loss: its estimate. gradients: by path, of the variables that the loss depends on.
    moved: the changes of variables that layers assign to.
    assigned: the float values that they assign, in each of the arithmetics.
    """

    loss: Estimate
    gradients: dict[str, Estimate]
    moved: dict[str, Estimate]
    assigned: list[dict[str, Array]]


def with_provenance(estimate: Estimate, passed: Provenances) -> Estimate:
    """Return an estimate with the oracle that its provenance tells, and with the rest of that."""
    kinds = {each.kind for each in passed}
    oracle = Oracle.DERIVED
    if Passed.NUMERIC in kinds:
        oracle = Oracle.NUMERIC
    elif Passed.TRACED in kinds:
        oracle = Oracle.TRACED
    provenance = tuple(sorted(each for each in passed if each.kind is not Passed.TRACED))
    return dataclasses.replace(estimate, oracle=oracle, provenance=provenance)
