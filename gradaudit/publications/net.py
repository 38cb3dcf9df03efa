"""A net about which numbers are published: one step of it, and what claims say about it."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import keras
import numpy as np

from gradaudit.backends import backend_of
from gradaudit.errors import UnclearClaimError
from gradaudit.publications.claims_file import Stated, stated
from gradaudit.publications.records import Claim, Recomputed
from gradaudit.records import Config, StepRecord
from gradaudit.reference import (
    Quantities,
    Quantity,
    activation_of,
    first_not_finite,
    known,
    loss_terms,
)
from gradaudit.report.tables import index_text

_EXAMPLE = re.compile(r"_(?:\w+_)?example$")
_BINARY = 1e-9
"""Decimals that add up to 1 miss it by at most this as binary numbers."""
_SYNONYMS = {"step_size": "learning_rate", "x": "input"}

Given = dict[Quantity, np.ndarray]
"""Values to use instead of the net's; NaN keeps the net's."""


class ClaimedNet:
    """One step of a net, and what claims say about it.

    Args:
        claims: about this net.
        model: a compiled model.
        record: of a step.
        config: settings of Keras in the step.
        unknown: masks of the numbers that are not known, whatever the record has there.
    """

    def __init__(
        self,
        claims: Sequence[Claim],
        model: keras.Model,
        record: StepRecord,
        config: Config,
        unknown: Mapping[Quantity, np.ndarray],
    ) -> None:
        self._model, self._record, self._config = model, record, config
        self._unknown = unknown
        self._replay = backend_of(model).Replay(record.jit)
        self._base = self._step({})
        self._claims = [(self._find(claim.quantity), claim) for claim in claims]
        self.rows = self._base.rows

    def _step(self, given: Given) -> Quantities:
        return Quantities(
            self._model, self._record, self._replay, self._config, given, self._unknown
        )

    def _with(self, given: Given) -> Quantities:
        """Return the step with some quantities given.

        Raises:
            UnclearClaimError: numbers given for the output of a softmax do not add up to 1.
        """
        step = self._step(given)
        for quantity in given:
            if quantity.part == "activation" and not quantity.d:
                layer = step.calls[quantity.call].layer
                total = step[quantity].value.sum(axis=-1)
                if activation_of(layer) is keras.activations.softmax and np.any(
                    np.abs(total - 1) > _BINARY
                ):
                    raise UnclearClaimError(
                        f"the numbers for {self.name(quantity)} add up to {np.max(total):.10g}; "
                        "those of a softmax add up to 1"
                    )
        return step

    def _find(self, name: str) -> Quantity | None:
        names = self._base.names
        return names.get(name) or names.get(_EXAMPLE.sub("", name))

    def shape(self, quantity: Quantity) -> tuple[int, ...]:
        """Return the shape of a quantity."""
        return self._base[quantity].shape

    def name(self, quantity: Quantity) -> str:
        """Return the name that claims use for a quantity, or else its shortest name."""
        used = [claim.quantity for known, claim in self._claims if known == quantity]
        names = [name for name, own in self._base.names.items() if own == quantity]
        return used[0] if used else min(names, key=len)

    def quantity(self, name: str) -> Quantity:
        """Return the quantity that a claim is about.

        Raises:
            UnclearClaimError: the net has none of that name.
        """
        found = self._find(name)
        if found is None:
            near = difflib.get_close_matches(name, self._base.names, n=3, cutoff=0.0)
            raise UnclearClaimError(
                f"the net has no quantity {name!r}; the nearest are {', '.join(near)}"
            )
        return found

    def given(self, group: Sequence[Claim]) -> tuple[Given, Given]:
        """Return what claims were computed from: the numbers that they state, and printed ones.

        Raises:
            UnclearClaimError: their `given` cannot be understood.
        """
        said = stated(group[0].given)
        values: Given = {}
        for words, numbers in said.values:
            quantity = self._input(words, group[0])
            values[quantity] = self._placed(words, numbers, self.shape(quantity), group)
            if quantity.part == "target":
                self._check_classes(numbers)
        meant = [self._input(words, group[0]) for words in said.printed]
        return values, {q: self.printed(q) for q in meant if q not in values}

    def _input(self, words: str, claim: Claim) -> Quantity:
        """Return the quantity that words in `given` mean; the claim's must depend on it."""
        found, about = self._meant(words, claim), self.quantity(claim.quantity)
        if not found.is_raw and (found.part == "loss" or found.rank >= about.rank):
            raise UnclearClaimError(
                f"{words!r} in `given` is not what {claim.quantity} is computed from"
            )
        return found

    def _meant(self, words: str, claim: Claim) -> Quantity:
        """Return the quantity that words in `given` mean."""
        name = re.sub(r"^(?:(?:the|a|an|printed) )+", "", words.strip().lower()).replace(" ", "_")
        if name.removesuffix("s") == "gradient":
            return replace(self.quantity(claim.quantity), updated=False, d=True)
        for form in (name, _SYNONYMS.get(name, ""), name.removesuffix("s"), f"{name[:-3]}y"):
            if form in self._base.names:
                return self._base.names[form]
        raise UnclearClaimError(f"{words!r} in `given` is no quantity of the net")

    def _check_classes(self, numbers: Sequence[float]) -> None:
        takes_classes = any(
            term.rule is not None and term.rule.cases[0].targets == "integer"
            for term in loss_terms(self._model)
        )
        count = self._model.output_shape[-1]
        if takes_classes and not all(n.is_integer() and 0 <= n < count for n in numbers):
            raise UnclearClaimError(
                f"the target given is {numbers[0]:g}, and the loss takes classes from 0 to "
                f"{count - 1}"
            )

    @staticmethod
    def _placed(
        words: str, numbers: Sequence[float], shape: tuple[int, ...], group: Sequence[Claim]
    ) -> np.ndarray:
        """Return the numbers as an array; a single one goes to the indices of the claims."""
        size = math.prod(shape)
        if len(numbers) == size:
            return np.reshape(numbers, shape)
        if len(numbers) > 1 or not all(is_in(claim.index, shape) for claim in group):
            raise UnclearClaimError(
                f"the numbers given for {words!r} are {len(numbers)}, and it has {size}"
            )
        found = np.full(shape, np.nan)
        for claim in group:
            found[claim.index] = numbers[0]
        return found

    def printed(self, quantity: Quantity, given: str | None = None) -> np.ndarray:
        """Return a quantity as claims print it; NaN where none does, or where claims differ.

        A claim that prints NaN prints no number to go on with.

        given: use only claims that were computed from the same.
        """
        claims = [claim for known, claim in self._claims if known == quantity]
        if given is not None:
            claims = [claim for claim in claims if _stated(claim.given) == _stated(given)]
        found = np.full(self.shape(quantity), np.nan)
        for index in {claim.index for claim in claims if is_in(claim.index, found.shape)}:
            numbers = {claim.number for claim in claims if claim.index == index}
            found[index] = numbers.pop() if len(numbers) == 1 else np.nan
        return found

    def printed_before(self, quantity: Quantity) -> list[Quantity]:
        """Return the printed quantities that a quantity may depend on, the nearest first."""
        found = {
            other
            for other, _ in self._claims
            if other and other.rank < quantity.rank and other.part != "loss"
        }
        return sorted(found, key=lambda each: each.rank, reverse=True)

    def recomputed(self, quantity: Quantity, given: Given, group: Sequence[Claim]) -> Recomputed:
        """Recompute the numbers of a group of claims; what the net leaves open is taken as printed.

        Raises:
            UnclearClaimError: the net cannot have the values that are given.
        """
        step = self._with(given)
        found = _at(step, quantity, group)
        if found.known.all():
            return found
        taken: Given = {}
        for other in [quantity] * quantity.is_raw + self.printed_before(quantity):
            present = given.get(other, np.full((), np.nan))
            printed = self.printed(other)
            is_open = ~known(step, other) & np.isnan(present)
            if (is_open & ~np.isnan(printed)).any():
                more = taken | {other: np.where(is_open, printed, present)}
                try:
                    now = _at(self._with(given | more), quantity, group)
                except UnclearClaimError:  # the net cannot have these values
                    continue
                in_part = (is_open & np.isnan(printed)).any() and not other.is_raw
                if in_part and now.known.sum() <= found.known.sum():
                    continue  # the rest of it would hide what else is printed
                found, taken = now, more
                if found.known.all():
                    break
        doubt = found.doubt + self._doubt_of_print(quantity, given, taken, group, found.value)
        names = tuple(self.name(other) for other in taken)
        return Recomputed(found.value, doubt, found.known, names)

    def _doubt_of_print(
        self,
        quantity: Quantity,
        given: Given,
        taken: Given,
        group: Sequence[Claim],
        value: np.ndarray,
    ) -> np.ndarray:
        """Return how far half a unit of each printed number that was used moves the values."""
        doubt = np.zeros(value.shape)
        for other, claim in self._claims:
            if other in taken and taken[other][claim.index] == claim.number:
                moved = taken[other].copy()
                moved[claim.index] += claim.unit / 2
                step = self._step(given | taken | {other: moved})
                doubt += np.abs(_at(step, quantity, group).value - value)
        return doubt

    def not_finite(self, given: Given) -> str:
        """Return, in words, the first number of the step that is not finite; "" for none."""
        first = first_not_finite(self._with(given))
        if first is None:
            return ""
        name, _, index, value = first
        place = index_text(index[1:] if self.rows == 1 and len(index) > 1 else index)
        return f"{name}[{place}] is {value}" if place else f"{name} is {value}"

    def unknown(self) -> str:
        """Return, in words, which numbers of the net are not known."""
        names = self._base.names
        inputs = [names[name] for name in ("input", "target") if name in names]
        weights = [q for q in names.values() if q == Quantity("weight", path=q.path)]
        words = []
        for quantity in dict.fromkeys(inputs + weights):
            missing = ~known(self._base, quantity)
            if missing.any():
                words.append(f"{missing.sum()} of {missing.size} numbers of {self.name(quantity)}")
        return " and ".join(words) or "what Keras computes from the logits"


def is_in(index: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether an array of a shape has an element at an index."""
    return len(index) == len(shape) and all(i < n for i, n in zip(index, shape, strict=True))


def _stated(given: str) -> Stated | None:
    """Return what a `given` says; None where that is not clear."""
    try:
        return stated(given)
    except UnclearClaimError:
        return None


def _at(step: Quantities, quantity: Quantity, group: Sequence[Claim]) -> Recomputed:
    values = step[quantity]
    parts = (values.value, values.doubt, known(step, quantity))
    value, doubt, is_known = (np.array([part[c.index] for c in group]) for part in parts)
    return Recomputed(value, doubt, is_known)
