"""The verdict on each element of one tensor."""

import numpy as np

from gradaudit.records import Estimate, Origin, Verdict
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
        value, sigma = estimate.value, estimate.sigma
        kink = np.broadcast_to(0.0 if estimate.kink is None else estimate.kink, value.shape)
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

    @property
    def verdict(self) -> int:
        return next((v for v in _ORDER if bool(np.any(self.verdicts == v))), PASS)

    @property
    def detectable_rel(self) -> float:
        """The smallest relative error of the whole tensor that fails for certain."""
        with np.errstate(all="ignore"):
            norm = float(np.linalg.norm(self.estimate.value))
            tolerance = float(np.linalg.norm(self.threshold * self.estimate.sigma + self.kink))
            found = tolerance / norm if tolerance and norm else np.inf if tolerance else 0.0
        return np.inf if np.isnan(found) else found

    def cause(self, batch_size: int) -> str:
        """Return what a failure looks like, or why nothing can be said."""
        verdict, verdicts, words = self.verdict, self.verdicts, words_of(self.origin)
        if verdict == FAIL:
            return diagnose(self.tape, self.estimate.value, verdicts == FAIL, batch_size)
        if verdict == NONFINITE:
            return f"{not_finite(self.tape)}{words}"
        if verdict != UNRESOLVED:
            return ""
        if self.skipped:
            return f"{not_finite(self.tape)}, and the optimizer rightly skips the step{words}"
        if not np.isfinite(self.estimate.value).all():
            return "the derivation gives no finite number here, and the framework does"
        if self.overflows.any():
            return f"a correct computation may overflow in the precision of the step{words}"
        return "rounding errors or choices at kinks are too large a part of the values"


def words_of(origin: Origin | None) -> str:
    """Return an origin as the end of a sentence; nothing where there is none."""
    return "" if origin is None else f": {origin.words}"


def not_finite(tape: np.ndarray) -> str:
    """Return how many values are not finite, and of which kind."""
    nan, infinite = int(np.isnan(tape).sum()), int(np.isinf(tape).sum())
    kinds = " or ".join(kind for kind, n in (("NaN", nan), ("infinite", infinite)) if n)
    count = nan + infinite
    return kinds if count == tape.size else f"{count} of {tape.size} values are {kinds}"
