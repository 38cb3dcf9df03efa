"""Published numbers, recomputed: `published` and `check_claims`."""

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import ArrayLike

from gradaudit.capture import Replay
from gradaudit.compare import (
    AGREES,
    DISAGREES,
    NOT_CHECKED,
    claim_verdict,
    diagnose_claims,
    within_a_unit,
)
from gradaudit.models import NETS, Settings, compiled, net_named
from gradaudit.models.claims import published_claims
from gradaudit.models.precision import floats
from gradaudit.numerics import Rounded
from gradaudit.one_step import recorded
from gradaudit.records import CheckedClaim, Claim, StepRecord
from gradaudit.reference import Quantities, Quantity
from gradaudit.report import claims_table

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:\s+{_NUMBER})*")
_STATED = re.compile(
    rf"(?P<words>[a-z]\w*(?: \w+)*?)\s*[\s:=]\s*(?P<numbers>{_NUMBERS.pattern})", re.I
)
_PRINTED = re.compile(r"(?:the )?printed (?P<words>.+)", re.I)
_LONE_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w.])")
_EXAMPLE = re.compile(r"_(?:\w+_)?example$")
_SYNONYMS = {"step_size": "learning_rate", "x": "input"}

if TYPE_CHECKING:
    import pandas as pd

Given = dict[Quantity, np.ndarray]


def published(model: str | None = None) -> "pd.DataFrame":
    """Recompute the numbers that tutorials print for the built-in nets.

    Args:
        model: only those about this net.

    Returns:
        One row for each number, with the columns model, quantity, index, given, printed,
        recomputed, verdict (agrees, cut, disagrees, cannot be checked) and diagnosis.

    Raises:
        UnknownNameError: there is no such net.

    Example:
        >>> import gradaudit
        >>> table = gradaudit.published("deep_tanh")
        >>> table.loc[table["quantity"] == "loss", ["printed", "recomputed", "verdict"]].values
        array([[0.43, 0.439102223956744, 'cut']], dtype=object)
    """
    names = list(NETS) if model is None else [net_named(model).name]
    claims = [claim for claim in published_claims() if claim.model in names]
    groups = itertools.groupby(claims, lambda claim: claim.model)
    checked = [each for name, own in groups for each in check_published(list(own), name)]
    return claims_table(checked)


def check_published(claims: Sequence[Claim], name: str) -> list[CheckedClaim]:
    """Check numbers that were published for a built-in net, with the inputs of its worked example.

    What the example does not print, or where there is none, must be said in the claims' `given`;
    weights of a net without an example are those of seed 0.
    """
    net = NETS[name]
    with floats("float64"):
        model = compiled(net, Settings(net.optimizer, net.learning_rate, "float64"))
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

    A claim's `given` says what a number was computed from: parts with numbers, such as
    "probabilities 0.7 0.2 0.1" or "kernel 0.15, step size 0.25", replace the net's; "the printed
    logits" takes those of other claims; other words say nothing. What the net leaves open is taken
    as other claims print it.

    Args:
        x, y: the batch; NaN where it is not known.
        weights: by path, in place of the model's; NaN where they are not known.

    Returns:
        One result for each claim, in their order.

    Raises:
        UsageError: the model is not compiled.
        UnsupportedModelError: a part of the model has no rule.
    """
    record = recorded(model, np.nan_to_num(x), np.nan_to_num(y))
    record = replace(
        record,
        x=x,
        y=y,
        variables=record.variables | {p: np.asarray(v) for p, v in (weights or {}).items()},
    )
    net = _Net(claims, model, record)
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.quantity, claim.given), []).append(claim)
    found = {}
    for group in groups.values():
        found.update((id(checked.claim), checked) for checked in _check_group(net, group))
    return [found[id(claim)] for claim in claims]


class _NotUnderstoodError(Exception):
    """Why a claim cannot be checked, in words."""


class _Net:
    """One step of a net, and what is printed about it."""

    def __init__(self, claims: Sequence[Claim], model: keras.Model, record: StepRecord) -> None:
        self._model, self._record = model, record
        self._replay = Replay(record.jit)
        self._base = self.quantities({})
        self._claims = [(self._find(claim.quantity), claim) for claim in claims]

    @property
    def rows(self) -> int:
        return len(self._record.x)

    def shape(self, quantity: Quantity) -> tuple[int, ...]:
        return self._base[quantity].shape

    def quantities(self, given: Given) -> Quantities:
        """Return the numbers of the step where some are given."""
        return Quantities(self._model, self._record, self._replay, given)

    def _find(self, name: str) -> Quantity | None:
        names = self._base.names
        return names.get(name) or names.get(_EXAMPLE.sub("", name))

    def named(self, name: str) -> Quantity:
        """Return the quantity that a claim is about."""
        found = self._find(name)
        if found is None:
            near = difflib.get_close_matches(name, self._base.names, n=3, cutoff=0.0)
            raise _NotUnderstoodError(
                f"the net has no quantity {name!r}; the nearest are {', '.join(near)}"
            )
        return found

    def name(self, quantity: Quantity) -> str:
        """Return the shortest name of a quantity."""
        return min((n for n, q in self._base.names.items() if q == quantity), key=len)

    def given(self, group: Sequence[Claim]) -> tuple[Given, list[Quantity]]:
        """Return what the claims of a group were computed from: values, and printed quantities."""
        stated: list[tuple[str, list[float]]] = []
        printed = []
        for part in re.split(r"[,;]|\band\b", group[0].given):
            part = part.strip()
            if stated and _NUMBERS.fullmatch(part):
                stated[-1][1].extend(map(float, part.split()))
            elif found := _STATED.fullmatch(part):
                stated.append((found["words"], [float(n) for n in found["numbers"].split()]))
            elif _LONE_NUMBER.search(part):
                raise _NotUnderstoodError(
                    f"{part!r} in `given` is not a quantity followed by its numbers"
                )
            elif found := _PRINTED.fullmatch(part):
                printed.append(self._meant(found["words"], group[0]))
        values = {}
        for words, numbers in stated:
            quantity = self._meant(words, group[0])
            values[quantity] = self._placed(words, numbers, self.shape(quantity), group)
        return values, [quantity for quantity in printed if quantity not in values]

    def _meant(self, words: str, claim: Claim) -> Quantity:
        """Return the quantity that words in `given` stand for."""
        name = re.sub(r"^(?:(?:the|a|an|printed) )+", "", words.strip().lower()).replace(" ", "_")
        if name == "gradient":
            return replace(self.named(claim.quantity), updated=False, d=True)
        for form in (name, _SYNONYMS.get(name, ""), name.removesuffix("s"), f"{name[:-3]}y"):
            if form in self._base.names:
                return self._base.names[form]
        raise _NotUnderstoodError(f"{words!r} in `given` is no quantity of the net")

    @staticmethod
    def _placed(
        words: str, numbers: list[float], shape: tuple[int, ...], group: Sequence[Claim]
    ) -> np.ndarray:
        """Return an array of the numbers; a single one stands at the indices of the claims."""
        size = math.prod(shape)
        if len(numbers) == size:
            return np.reshape(numbers, shape)
        found = np.full(shape, np.nan)
        try:
            if len(numbers) > 1:
                raise IndexError
            for claim in group:
                found[claim.index] = numbers[0]
        except IndexError:
            raise _NotUnderstoodError(
                f"{len(numbers)} numbers are given for {words!r}, which has {size}"
            ) from None
        return found

    def printed(self, quantity: Quantity, given: str) -> np.ndarray:
        """Return a quantity as other claims print it; NaN where they do not, or contradictorily.

        given: where claims were computed from just that, the others do not count.
        """
        claims = [claim for known, claim in self._claims if known == quantity]
        claims = [claim for claim in claims if claim.given == given] or claims
        found = np.full(self.shape(quantity), np.nan)
        contradictory = np.zeros(found.shape, bool)
        for claim in claims:
            if _is_in(claim.index, found.shape):
                present = found[claim.index]
                contradictory[claim.index] |= not np.isnan(present) and present != claim.number
                found[claim.index] = claim.number
        found[contradictory] = np.nan
        return found

    def printed_before(self, quantity: Quantity) -> list[Quantity]:
        """Return the printed quantities that it may be computed from, the nearest first."""
        found = {known for known, _ in self._claims if known and known.rank < quantity.rank}
        return sorted(found, key=lambda each: each.rank, reverse=True)

    def values(
        self, quantity: Quantity, given: Given, group: Sequence[Claim]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the recomputed numbers of a group of claims, and by how much rounding moves them.

        What the net leaves open is taken as printed.
        """
        step = self.quantities(given)
        found = _at(step[quantity], group)
        if np.isnan(found[0]).any():
            open_ = {}
            for other in self.printed_before(quantity):
                known = given.get(other, np.full((), np.nan))
                printed = self.printed(other, group[0].given)
                fill = np.isnan(step[other].value) & np.isnan(known) & ~np.isnan(printed)
                if fill.any():
                    open_[other] = np.where(fill, printed, known)
            if open_:
                found = _at(self.quantities(given | open_)[quantity], group)
        return found

    def unknown(self) -> str:
        """Say what of the net is not known."""
        names = ("input", "target")
        raw = [self._base.names[name] for name in names if name in self._base.names]
        raw += [q for q in self._base.names.values() if q == Quantity("weight", path=q.path)]
        words = []
        for quantity in dict.fromkeys(raw):
            missing = np.isnan(self._base[quantity].value)
            if missing.any():
                words.append(f"{missing.sum()} of {missing.size} numbers of {self.name(quantity)}")
        return " and ".join(words) or "a number"


def _is_in(index: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(index) == len(shape) and all(i < n for i, n in zip(index, shape, strict=True))


def _at(values: Rounded, group: Sequence[Claim]) -> tuple[np.ndarray, np.ndarray]:
    doubt = values.doubt
    return tuple(np.array([part[claim.index] for claim in group]) for part in (values.value, doubt))


def _check_group(net: _Net, group: Sequence[Claim]) -> Iterator[CheckedClaim]:
    """Check the claims about one quantity that were computed from the same."""
    try:
        quantity = net.named(group[0].quantity)
        given, printed = net.given(group)
        shape = net.shape(quantity)
    except _NotUnderstoodError as error:
        for claim in group:
            yield CheckedClaim(claim, None, NOT_CHECKED, str(error))
        return
    for claim in group:
        if not _is_in(claim.index, shape):
            words = f"{claim.quantity} has the shape {shape}, and no index {claim.index}"
            yield CheckedClaim(claim, None, NOT_CHECKED, words)
    group = [claim for claim in group if _is_in(claim.index, shape)]
    if not group:
        return
    stated = given | {other: net.printed(other, group[0].given) for other in printed}
    values, doubts = net.values(quantity, stated, group)
    known = ~np.isnan(values)
    verdicts = [
        claim_verdict(claim.number, claim.unit, value, doubt) if known else NOT_CHECKED
        for claim, value, doubt, known in zip(group, values, doubts, known, strict=True)
    ]
    diagnosis = ""
    if DISAGREES in verdicts:
        judged = [claim for claim, is_known in zip(group, known, strict=True) if is_known]
        diagnosis = _diagnosis(net, quantity, given, stated, judged, values[known])
    for claim, value, doubt, verdict in zip(group, values, doubts, verdicts, strict=True):
        words = ""
        if verdict == DISAGREES:
            words = diagnosis
        elif verdict == NOT_CHECKED:
            words = f"it depends on what is not printed: {net.unknown()}"
        elif verdict == AGREES and abs(claim.number - value) > claim.unit / 2 + doubt:
            words = "within one unit of the last digit, but neither rounded nor cut"
        yield CheckedClaim(claim, None if verdict == NOT_CHECKED else float(value), verdict, words)


def _diagnosis(
    net: _Net,
    quantity: Quantity,
    given: Given,
    stated: Given,
    group: Sequence[Claim],
    values: np.ndarray,
) -> str:
    """Return what makes of the recomputed numbers those that are printed."""
    printed = np.array([claim.number for claim in group])
    unit = np.array([claim.unit for claim in group])
    for words, other in _other_inputs(net, quantity, given, stated, group[0].given):
        value, doubt = net.values(quantity, other, group)
        if within_a_unit(printed, unit, value, doubt):
            return words
    whole = np.full((3, *net.shape(quantity)), np.nan)
    for claim, value in zip(group, values, strict=True):
        whole[:, *claim.index] = claim.number, claim.unit, value
    if np.isnan(whole).any():
        return diagnose_claims(printed, unit, values, net.rows)
    return diagnose_claims(*whole, net.rows)


def _other_inputs(
    net: _Net, quantity: Quantity, given: Given, stated: Given, words: str
) -> Iterator[tuple[str, Given]]:
    """Yield inputs that a source may have computed with, other than those that it states."""
    as_printed = [net.name(other) for other in stated if other not in given]
    if as_printed:
        yield f"follows from {' and '.join(as_printed)} as recomputed, not as printed", given
    for other in net.printed_before(quantity):
        if other not in stated:
            name = net.name(other)
            yield (
                f"follows from {name} as printed, not as recomputed",
                stated | {other: net.printed(other, words)},
            )
