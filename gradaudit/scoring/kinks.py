"""Gradients that another choice at kinks explains."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize

from gradaudit.records import AtTies, Reference
from gradaudit.scoring.elements import FAIL, Judged

_MOST = 10**6
"""Most elements for which a mixture of choices is looked for."""


def settle_kinks(gradients: Mapping[str, Judged], reference: Reference) -> None:
    """Leave only kinks of real choices, and make kinks of what other ones at exact ties give.

    gradients: those of a step, by path; judged again in place. Another choice is one of
    `Reference.at_ties`, or a convex combination of these: the subgradients of a tie are convex.
    """
    kinked = {path: judged for path, judged in gradients.items() if judged.depends_on_kinks}
    turned = list(reference.turned()) if kinked else []
    for path, judged in kinked.items():
        judged.narrow([each[path] for each in turned if path in each])
    open_ = {p: j for p, j in gradients.items() if j.verdict == FAIL or j.depends_on_kinks}
    choices: list[AtTies] = []
    for ties in reference.at_ties() if open_ else ():
        choices.append(ties)
        open_ = {path: each for path, each in open_.items() if not each.excuse(ties, path)}
        if not open_:
            return
    _excuse_mixture(open_, choices)


def _excuse_mixture(open_: Mapping[str, Judged], choices: Sequence[AtTies]) -> None:
    """Make kinks of the gradients that one and the same mixture of choices gives, all together."""
    paths = [path for path in open_ if all(path in ties.gradients for ties in choices)]
    if not choices or not paths or sum(open_[path].tape.size for path in paths) > _MOST:
        return
    rows, apart = [], []
    for path in paths:
        judged = open_[path]
        own, sigma = judged.estimate.value, judged.estimate.sigma
        scale = np.where(sigma > 0, sigma, np.inf)
        others = [(ties.gradients[path].value - own) / scale for ties in choices]
        rows.append(np.stack(others, axis=-1).reshape(-1, len(choices)))
        apart.append(np.ravel((judged.tape - own) / scale))
    a, b = np.concatenate(rows), np.concatenate(apart)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return
    q, r = np.linalg.qr(a)
    weights, _ = optimize.nnls(r, q.T @ b)
    if not 0 < weights.sum() <= 1 + 1e-6:
        return
    words = "; ".join(
        f"{weight:.3g} of: {ties.words}"
        for weight, ties in zip(weights, choices, strict=True)
        if weight > 1e-6
    )
    for path in paths:
        right = open_[path].estimate
        moves = [ties.gradients[path].value - right.value for ties in choices]
        value = right.value + np.tensordot(weights, moves, axes=1)
        sigmas = [ties.gradients[path].sigma for ties in choices]
        mixed = replace(right, value=value, sigma=np.max(sigmas, axis=0))
        open_[path].excuse(AtTies(f"a mixture, {words}", {path: mixed}), path)
