"""The verdict on each element of one tensor."""

from collections.abc import Sequence

import numpy as np

from gradaudit.records import AtTies, Estimate, Origin, Verdict
from gradaudit.scoring.diagnosis import diagnose

LARGEST_NOISE = 0.1
"""A tensor is unresolved where its rounding error is larger than this part of its norm."""

VERDICTS = np.array(list(Verdict))
"""The verdicts as text. The verdicts of a tensor's weights are kept as indices into this array."""
PASS, KINK, UNRESOLVED, FAIL, NONFINITE, UNJUDGED = range(len(Verdict))

_ORDER = (FAIL, NONFINITE, UNRESOLVED, KINK)
"""The verdict on a tensor is the first of these that one of its weights has."""


class Judged:
    """The elements of one tensor, compared.

    z: the part of |tape − reference| that no kink explains, over σ; infinite where the framework's
        value is not finite, 0 where nothing can be said.
    verdicts: indices into VERDICTS. overflows: a bool array, where a correct computation may
        overflow. skipped: the framework's values are not finite, and rightly so.
    """

    def __init__(
        self, tape: np.ndarray, estimate: Estimate, threshold: float, origin: Origin | None
    ) -> None:
        self.tape, self.estimate, self.threshold, self.origin = tape, estimate, threshold, origin
        self._choices = ""  # at kinks, in words
        kink = 0.0 if estimate.kink is None else estimate.kink
        self._judge(np.broadcast_to(kink, estimate.value.shape))

    def _judge(self, kink: np.ndarray) -> None:
        tape, threshold, origin = self.tape, self.threshold, self.origin
        value, sigma = self.estimate.value, self.estimate.sigma
        self.kink = kink
        self.overflows = np.isfinite(value) & ~np.isfinite(kink)
        finite, known = np.isfinite(tape), np.isfinite(value)
        self.skipped = origin is not None and origin.skipped and not finite.all()
        with np.errstate(all="ignore"):
            apart = np.abs(tape - value)
            beyond = np.maximum(apart - np.where(self.overflows, 0.0, kink), 0.0)
            z = np.where(beyond == 0, 0.0, beyond / sigma)
            agrees = (apart == 0) | (apart <= threshold * sigma)
        unknown = finite & (~known | ~np.isfinite(sigma) | np.isnan(z)) & (tape != value)
        open_ = unknown | (finite & self.overflows & (z > threshold)) | (~finite & self.skipped)
        excused = finite & ~agrees & ~open_ & (z <= threshold)
        verdicts = np.full(value.shape, PASS, np.uint8)
        verdicts[z > threshold] = FAIL
        # Where a choice at a kink outweighs the value, not even its sign can be judged.
        verdicts[excused] = np.where(kink <= np.abs(value), KINK, UNRESOLVED)[excused]
        verdicts[open_] = UNRESOLVED
        verdicts[~finite & ~open_] = NONFINITE
        self.z = np.where(open_, 0.0, np.where(finite, z, np.inf))
        norm = np.linalg.norm(value[known])
        noise = np.linalg.norm(sigma[np.isfinite(sigma) & np.isfinite(kink)])
        if noise > LARGEST_NOISE * norm:
            verdicts[verdicts == PASS] = UNRESOLVED
        self.verdicts = verdicts
        self._excused = excused

    def narrow(self, turned: Sequence[Estimate]) -> None:
        """Judge again, without the kinks of choices that change nothing.

        A choice between branches that lead to the same gradient is none: min(a, b) of equal a and b
        that depend alike on the weights. Each choice is turned in some of the runs; where none of
        these moves an element, its kink is what is left of it for other reasons.
        """
        if not turned:
            return
        with np.errstate(all="ignore"):
            moved = np.max([np.abs(t.value - self.estimate.value) for t in turned], axis=0)
        kinks = [np.zeros(self.kink.shape) if t.kink is None else t.kink for t in turned]
        left = np.max(kinks, axis=0)
        is_choice = ~(moved <= self.threshold * self.estimate.sigma)
        self._judge(np.where(is_choice, self.kink, np.minimum(left, self.kink)))

    def excuse(self, ties: AtTies, path: str) -> bool:
        """Make a kink of what fails or depends on a kink, where it agrees with another choice.

        All of the tensor must agree: one element may agree by chance.
        """
        other = ties.gradients.get(path)
        if other is None:
            return False
        with np.errstate(all="ignore"):
            sigma = np.maximum(self.estimate.sigma, self.estimate.kappa * other.sigma)
            agrees = np.abs(self.tape - other.value) <= self.threshold * sigma
        agrees &= np.isfinite(other.value) & np.isfinite(sigma)
        if not agrees.all():
            return False
        self.verdicts[(self.verdicts == FAIL) | self._excused] = KINK
        self.z = np.where(self.z > self.threshold, 0.0, self.z)
        self._choices = f"a subgradient at exact ties, as right as the framework's: {ties.words}"
        return True

    @property
    def depends_on_kinks(self) -> bool:
        """Whether choices at kinks within rounding errors decide on the verdict."""
        return bool(self._excused.any()) and not self._choices

    @property
    def may_overflow(self) -> bool:
        """Whether nothing can be said since a correct computation may overflow."""
        return self.verdict == UNRESOLVED and bool(self.overflows.any())

    def chosen_at(self, doubts: str) -> None:
        """Note which ops choose, in words."""
        self._choices = f"choices at kinks, within rounding errors: {doubts}" if doubts else ""

    @property
    def verdict(self) -> int:
        return next((v for v in _ORDER if bool(np.any(self.verdicts == v))), PASS)

    @property
    def failed(self) -> bool:
        """Whether an element of the tensor fails."""
        return self.verdict == FAIL

    @property
    def detectable_rel(self) -> float:
        """The smallest relative error of the whole tensor that fails for certain."""
        with np.errstate(all="ignore"):
            norm = float(np.linalg.norm(self.estimate.value))
            tolerance = float(np.linalg.norm(self.threshold * self.estimate.sigma + self.kink))
            if self.estimate.noise is not None:  # an estimate without kinks
                tolerance = self.threshold * self.estimate.noise
            found = tolerance / norm if tolerance and norm else np.inf if tolerance else 0.0
        return np.inf if np.isnan(found) else found

    def cause(self, batch_size: int) -> str:
        """Return what a failure looks like, or why nothing can be said."""
        verdict, verdicts, words = self.verdict, self.verdicts, words_of(self.origin)
        if verdict == FAIL:
            return diagnose(self.tape, self.estimate.value, verdicts == FAIL, batch_size)
        if verdict == NONFINITE:
            return f"{not_finite(self.tape)}{words}"
        if verdict == KINK:
            return self._choices or "it depends on choices at kinks"
        if verdict != UNRESOLVED:
            return ""
        if self.skipped:
            return f"{not_finite(self.tape)}, and the optimizer rightly skips the step{words}"
        if not np.isfinite(self.estimate.value).all():
            return "the derivation gives no finite number here, and the framework does"
        if self.overflows.any():
            return f"a correct computation may overflow in the precision of the step{words}"
        too_large = "rounding errors or choices at kinks are too large a part of the values"
        return f"{too_large}; {self._choices}" if self._choices else too_large


def words_of(origin: Origin | None) -> str:
    """Return an origin as the end of a sentence; nothing where there is none."""
    return "" if origin is None else f": {origin.words}"


def not_finite(tape: np.ndarray) -> str:
    """Return how many values are not finite, and of which kind."""
    nan, infinite = int(np.isnan(tape).sum()), int(np.isinf(tape).sum())
    kinds = " or ".join(kind for kind, n in (("NaN", nan), ("infinite", infinite)) if n)
    count = nan + infinite
    return kinds if count == tape.size else f"{count} of {tape.size} values are {kinds}"
