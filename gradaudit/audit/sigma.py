"""When the rounding error σ of a step is derived, and when a lower bound of it is enough.

σ costs several times the float64 gradient: partial sums, terms that are alike, kinks, a twin. Most
steps pass without these. A lower bound σ' ≤ σ of each weight costs little (`numerics.precision`,
BOUND). With the threshold t,

    |tape − reference| ≤ t σ'  ⇒  |tape − reference| ≤ t σ

so a step all of whose weights pass by σ' passes. (The bound of an update is in `reference.bounds`.)
Where correlated errors make that impossible, the next steps have a twin that measures κ, as for σ
itself; since κ σ' is no bound, a weight passes by it within half the threshold. All other steps are
judged by σ: no verdict but `pass`, and `unresolved` of a tensor whose σ' alone is too large, comes
from a bound.

How strong the test was, `detectable_rel`, is a matter of σ and not of σ'. So σ is derived in the
first step, and in one of EVERY steps after it, and the ratio of the two is carried from there.
"""

from dataclasses import replace
from enum import StrEnum

import numpy as np

from gradaudit.records import Comparison, Stage, TensorComparison, Verdict
from gradaudit.scoring.elements import LARGEST_NOISE

EVERY = 50
"""Steps after which σ is derived again, although bounds settle all verdicts."""

MOST_SKIPPED = 32
"""Most steps for which no bound is tried, after several that settled nothing."""


class When(StrEnum):
    """When σ is derived: always, or where a lower bound does not settle all verdicts."""

    NEEDED = "needed"
    ALWAYS = "always"


class Sigma:
    """Decides which steps of one model are judged by a lower bound of σ.

    wants_twin: whether the bound of the next step has a twin.

    Args:
        when: a member of `When`, or its value.
    """

    def __init__(self, when: str) -> None:
        self._when = When(when)
        self._ratios: dict[tuple[Stage, str], float] = {}  # of the tolerances by σ and by the bound
        self._since = 0  # steps settled by a bound since the last ratios
        self._wait = self._skipped = 0
        self.wants_twin = False

    def wants_bound(self) -> bool:
        """Return whether a step is to be judged by a bound first."""
        if self._when is When.ALWAYS:
            return False
        if self._skipped < self._wait:
            self._skipped += 1
            return False
        return True

    def settles(self, by_bound: Comparison, threshold: float) -> bool:
        """Return whether the verdicts by a bound are those by σ, and a ratio tells how strong."""
        if not self._ratios or self._since >= EVERY:
            return False
        if not by_bound.loss_z <= threshold:
            return False
        return all(self._settles(tensor, threshold) for tensor in by_bound.tensors)

    def _settles(self, tensor: TensorComparison, threshold: float) -> bool:
        if not min(tensor.max_z * tensor.kappa, 2 * tensor.max_z) <= threshold:
            return False
        if not np.isfinite(tensor.reference_norm):
            return False
        if tensor.verdict is Verdict.UNRESOLVED:
            return True
        ratio = self._ratios.get((tensor.stage, tensor.path))
        if ratio is None:
            return False
        # σ may be too large a part of the values where the bound is not.
        noise = ratio * tensor.detectable_rel / threshold
        return tensor.verdict is Verdict.PASS and noise <= LARGEST_NOISE / 2

    def told(self, by_bound: Comparison) -> Comparison:
        """Return verdicts by a bound with `detectable_rel` as σ gives it; count the step."""
        self._since += 1
        self._wait = self._skipped = 0
        tensors = tuple(
            replace(
                tensor,
                detectable_rel=tensor.detectable_rel
                * self._ratios.get((tensor.stage, tensor.path), 1.0),
            )
            for tensor in by_bound.tensors
        )
        return replace(by_bound, tensors=tensors, judged_by="bound")

    def measured(self, found: Comparison, by_bound: Comparison | None) -> None:
        """Take the ratios of a step that was judged by σ, and by a bound if one was wanted."""
        if by_bound is None:
            return
        due = not self._ratios or self._since >= EVERY
        if due:
            self.wants_twin = False
        elif not self.wants_twin:
            self.wants_twin = True
        else:  # a bound settled nothing: the next ones may not either
            self._wait, self._skipped = min(2 * self._wait + 1, MOST_SKIPPED), 0
        bounds = {(each.stage, each.path): each.detectable_rel for each in by_bound.tensors}
        for tensor in found.tensors:
            key = tensor.stage, tensor.path
            bound = bounds.get(key, np.nan)
            known = np.isfinite(tensor.detectable_rel) and np.isfinite(bound)
            if known and bound > 0:
                self._ratios[key] = tensor.detectable_rel / bound
            elif known and tensor.detectable_rel == 0:
                self._ratios[key] = 1.0
            else:
                self._ratios.pop(key, None)
        self._since = 0
