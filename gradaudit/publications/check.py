"""Recomputes published numbers and gives each a verdict."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import ArrayLike

from gradaudit.audit.single_step import recorded
from gradaudit.errors import UnclearClaimError
from gradaudit.nets import NETS, Settings, compiled, net_named
from gradaudit.nets.precision import floats
from gradaudit.publications.claims_file import published_claims
from gradaudit.publications.net import ClaimedNet, Given, is_in
from gradaudit.publications.records import CheckedClaim, Claim, Recomputed
from gradaudit.publications.table import claims_table
from gradaudit.publications.verdict import (
    AGREES,
    DISAGREES,
    NOT_CHECKED,
    claim_verdict,
    diagnose_claims,
    within_a_unit,
)
from gradaudit.reference import Quantity

if TYPE_CHECKING:
    import pandas as pd


def published(model: str | None = None) -> "pd.DataFrame":
    """Recompute the numbers that tutorials print for the built-in nets.

    Args:
        model: the name of a built-in net, to check only the numbers about it.

    Returns:
        One row a number, with the columns model, quantity, index, given, printed, decimals,
        recomputed, verdict (agrees, cut, disagrees, cannot be checked) and diagnosis.

    Raises:
        UnknownNameError: there is no such net.

    Example:
        >>> import gradaudit
        >>> table = gradaudit.published("deep_tanh")
        >>> table["verdict"].value_counts().to_dict()
        {'disagrees': 16, 'agrees': 13, 'cut': 8}
    """
    names = list(NETS) if model is None else [net_named(model).name]
    claims = [claim for claim in published_claims() if claim.model in names]
    groups = itertools.groupby(claims, lambda claim: claim.model)
    checked = [each for name, own in groups for each in check_published(list(own), name)]
    return claims_table(checked)


def check_published(claims: Sequence[Claim], name: str, seed: int = 0) -> list[CheckedClaim]:
    """Check numbers that were published for a built-in net, with the inputs of its worked example.

    What the example does not print must stand in the claims' `given`, and so must everything for a
    net without an example; its weights are drawn from the seed.

    Args:
        claims: about the net.
        name: of the net in `NETS`.
        seed: of random weights.

    Returns:
        One result a claim, in their order.
    """
    net = NETS[name]
    with floats("float64"):
        model = compiled(net, Settings(net.optimizer, net.learning_rate, "float64", seed=seed))
        if net.published is None:
            x = np.full((1, net.features), np.nan)
            y = np.full((1, model.output_shape[-1]), np.nan)
            return check_claims(claims, model, x, y)
        x, y = net.published.sample()
        return check_claims(claims, model, x, y, weights=net.published.weights)


def check_claims(
    claims: Sequence[Claim],
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    weights: Mapping[str, ArrayLike] | None = None,
) -> list[CheckedClaim]:
    """Recompute published numbers about one step of a compiled model.

    A claim's `given` says what a number was computed from. Parts with numbers, such as
    "probabilities 0.7 0.2 0.1" or "kernel 0.15, step size 0.25", replace the net's numbers; "the
    printed logits" uses those that other claims print; other words are ignored. What the net leaves
    open is taken as other claims print it.

    Args:
        claims: about the model.
        model: a compiled Keras model.
        x: the inputs of the batch; NaN where they are not known.
        y: its targets; NaN where they are not known.
        weights: by path, instead of the model's; NaN where they are not known.

    Returns:
        One result a claim, in their order.

    Raises:
        UsageError: the model is not compiled.
        UnsupportedModelError: a part of the model has no rule.
    """
    record, spec = recorded(model, np.nan_to_num(x), np.nan_to_num(y))
    held = {path: np.asarray(value) for path, value in (weights or {}).items()}
    record = replace(record, x=x, y=y, variables=record.variables | held)
    unknown = {Quantity("input"): np.isnan(x), Quantity("target"): np.isnan(y)}
    unknown |= {Quantity("weight", path=path): np.isnan(value) for path, value in held.items()}
    net = ClaimedNet(claims, spec.model, record, spec.config, unknown)
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.quantity, claim.given), []).append(claim)
    found: dict[int, CheckedClaim] = {}
    for group in groups.values():
        found.update((id(checked.claim), checked) for checked in _check_group(net, group))
    return [found[id(claim)] for claim in claims]


def _check_group(net: ClaimedNet, group: Sequence[Claim]) -> Iterator[CheckedClaim]:
    """Check the claims about one quantity that have the same `given`."""
    try:
        quantity = net.quantity(group[0].quantity)
        stated, printed = net.given(group)
    except UnclearClaimError as error:
        yield from (CheckedClaim(claim, None, NOT_CHECKED, str(error)) for claim in group)
        return
    shape = net.shape(quantity)
    inside = [claim for claim in group if is_in(claim.index, shape)]
    for claim in group:
        if claim not in inside:
            words = f"{claim.quantity} has the shape {shape}, and no index {claim.index}"
            yield CheckedClaim(claim, None, NOT_CHECKED, words)
    if inside:
        yield from _judge(net, quantity, stated, printed, inside)


def _judge(
    net: ClaimedNet, quantity: Quantity, stated: Given, printed: Given, group: Sequence[Claim]
) -> Iterator[CheckedClaim]:
    try:
        found = net.recomputed(quantity, stated | printed, group)
    except UnclearClaimError as error:
        yield from (CheckedClaim(claim, None, NOT_CHECKED, str(error)) for claim in group)
        return
    finite = np.isfinite(found.value)
    known = found.known & (np.isfinite(found.doubt) | ~finite)
    verdicts = [
        claim_verdict(claim.number, claim.unit, value, doubt) if is_known else NOT_CHECKED
        for claim, value, doubt, is_known in zip(
            group, found.value, found.doubt, known, strict=True
        )
    ]
    numbers = known & finite & np.isfinite([claim.number for claim in group])
    reason = not_finite = ""
    if DISAGREES in np.array(verdicts)[numbers]:
        judged = [claim for claim, is_number in zip(group, numbers, strict=True) if is_number]
        right = Recomputed(found.value[numbers], found.doubt[numbers], found.known[numbers])
        reason = _diagnosis(net, quantity, stated, printed, judged, right)
    if (known & ~finite).any():
        not_finite = net.not_finite(stated | printed)
    taken = f"with {' and '.join(found.taken)} as printed" if found.taken else ""
    if net.name(quantity) in found.taken:
        taken = "taken as given"
    for claim, value, doubt, verdict in zip(group, found.value, found.doubt, verdicts, strict=True):
        if verdict == NOT_CHECKED:
            words = f"it depends on what is not printed: {net.unknown()}"
            if not np.isnan(value):
                words = "its rounding error is not known: an intermediate value may overflow"
            yield CheckedClaim(claim, None, verdict, words)
            continue
        words = reason if verdict == DISAGREES else ""
        if not (np.isfinite(value) and np.isfinite(claim.number)):
            said = "" if verdict == AGREES else f"{value:g} is right"
            because = f"the first number that is not finite: {not_finite}"
            words = "; ".join(filter(None, (said, because if not np.isfinite(value) else "")))
        elif verdict == AGREES and abs(claim.number - value) > claim.unit / 2 + doubt:
            words = "within one unit of the last digit, but neither rounded nor cut"
        words = "; ".join(each for each in (words, taken) if each)
        yield CheckedClaim(claim, float(value), verdict, words)


def _diagnosis(
    net: ClaimedNet,
    quantity: Quantity,
    stated: Given,
    printed: Given,
    group: Sequence[Claim],
    right: Recomputed,
) -> str:
    """Return the simplest explanation of the printed numbers, given the recomputed ones."""
    numbers = np.array([claim.number for claim in group])
    unit = np.array([claim.unit for claim in group])
    for words, inputs in _other_inputs(net, quantity, stated, printed, group[0].given):
        try:
            other = net.recomputed(quantity, inputs, group)
        except UnclearClaimError:  # the net cannot have these
            continue
        if within_a_unit(numbers, unit, other.value, other.doubt):
            return words
    allowed, indices = unit + right.doubt, [claim.index for claim in group]
    shape = net.shape(quantity)
    if len(set(indices)) < len(indices) or len(indices) < math.prod(shape):
        names = [str(list(index)) for index in indices]
        return diagnose_claims(numbers, allowed, right.value, net.rows, names)
    order = np.lexsort(np.transpose(indices)[::-1]) if shape else [0]
    whole = [each[order].reshape(shape) for each in (numbers, allowed, right.value)]
    return diagnose_claims(whole[0], whole[1], whole[2], net.rows)


def _other_inputs(
    net: ClaimedNet, quantity: Quantity, stated: Given, printed: Given, given: str
) -> Iterator[tuple[str, Given]]:
    """Yield diagnoses with the inputs that a source may have used instead of the stated ones."""
    if printed:
        names = " and ".join(net.name(other) for other in printed)
        yield f"follows from {names} as recomputed, not as printed", stated
    for other in net.printed_before(quantity):
        if other not in stated | printed:
            words = f"follows from {net.name(other)} as printed, not as recomputed"
            yield words, stated | printed | {other: net.printed(other, given)}
