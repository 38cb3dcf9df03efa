"""The runs of one step's rules in several arithmetics, and the estimates that they give."""

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradaudit import keras_compat
from gradaudit.numerics import (
    PRECISIONS,
    Arithmetic,
    Plain,
    Reordering,
    Rounded,
    Rounding,
    Simulating,
    as_rounded,
    numbers,
)
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.ties import Convention
from gradaudit.records import Arrays, Estimate, Oracle, StepRecord, StepSpec
from gradaudit.reference.backprop import backprop
from gradaudit.reference.bounds import Bounded
from gradaudit.reference.found import Found, with_provenance
from gradaudit.reference.framework import Traces
from gradaudit.reference.graph import is_float
from gradaudit.reference.kappa import UNITS, kappa, refined, step_beside
from gradaudit.reference.losses import loss_terms
from gradaudit.reference.update import updated
from gradaudit.reference.walk import Walk
from gradaudit.rules.tape import Provenances
from gradaudit.tracing.watch import OpWatch

_FLOAT32 = Rounding(uniform=PRECISIONS["float32"])


@dataclass(frozen=True)
class Runs:
    """Runs the rules of one step.

    traces: of the step's code. traced: ids of the parts that have no derived rule.
    whole: the whole step is traced. bound, twin: see `Policy`.
    """

    record: StepRecord
    spec: StepSpec
    traces: Traces
    traced: Collection[int]
    whole: bool
    bound: bool = False
    twin: bool = False

    def loss(self, record: StepRecord | None = None) -> tuple[float, dict[str, Array]]:
        """Return the loss and what layers assign to, in plain float64.

        record: another one than the step's own.
        """
        record = record or self.record
        walk = self._walk(record, Plain(np.float64))
        with np.errstate(all="ignore"):
            loss = backprop(self.spec.model, record, walk, self.whole)
        return float(numbers(loss.value)), walk.assigned

    def gradients(self) -> Found:
        """Derive the loss, the gradients, and the changes of what layers assign to.

        Raises:
            UnsupportedModelError: the rules, or the trace, do not cover the values of this step.
        """
        record, model = self.record, self.spec.model
        dtype_of = {v.path: v.dtype for v in model.variables}
        with np.errstate(all="ignore"):  # what is not finite here is compared like the rest
            walks = [self._gradients(record, a) for a in self.arithmetics()]
            floats = [
                {path: after for path, after in w[1].items() if is_float(dtype_of[path])}
                for w in walks
            ]
            assigned = [dict(each) for each in floats]
            passed = walks[0][2]
            found = self._combined([w[0] for w in walks])
            found = self._looked_again(0, found, {"": record.loss, **record.gradients})
            for path in passed.keys() & found.keys():
                found[path] = with_provenance(found[path], passed[path])
            moved = self._combined(floats, before=record.variables)
            moved = self._looked_again(1, moved, self._changes(moved))
        for path in walks[0][1].keys() - moved.keys():  # whole numbers, which are exact
            change = np.subtract(walks[0][1][path], record.variables[path], dtype=np.float64)
            moved[path] = Estimate(change, np.zeros(change.shape), None, 1.0, self.oracle)
        return Found(found.pop(""), found, moved, assigned)

    def watched(
        self, record: StepRecord, arithmetic: Arithmetic, watch: OpWatch
    ) -> dict[str, Array]:
        """Run the trace of the whole step, forward and back, under a watch.

        Returns the gradients by path, and the loss under the empty path.

        Raises:
            UnsupportedModelError: the step cannot be traced, or its ops do not cover its values.
        """
        walk = self._walk(record, arithmetic)
        walk.op_watch = watch
        loss = backprop(self.spec.model, record, walk, traced=True)
        return {"": loss.value, **walk.cotangents}

    def rounded_gradients(self, ties: Convention | None = None) -> dict[str, Rounded]:
        """Return the gradients with their rounding errors, the loss under the empty path.

        ties: which subgradient exact ties take; None for the framework's.
        """
        with np.errstate(all="ignore"):
            found = self._gradients(self.record, self.rounding(ties))[0]
        return {path: as_rounded(value) for path, value in found.items()}

    def updates(self, assigned: Sequence[dict[str, Array]]) -> Iterator[dict[str, Estimate]]:
        """Yield the changes over the step: of one weight and its slots at a time.

        The runs go side by side, weight by weight, so that little is held at once.

        assigned: what layers assigned to weights before, in each of the arithmetics; or empty.
        """
        record = self.record
        arithmetics = [self.rounding()] if self.bound else self.arithmetics()
        before = record.variables | record.optimizer_variables
        after = record.variables_after | record.optimizer_variables_after
        starts = assigned or [{}] * len(arithmetics)
        if self.bound:  # of another precision than the rounding of updates
            array = arithmetics[0].array
            starts = [{path: array(numbers(v), "float32") for path, v in starts[0].items()}]
        runs = [
            updated(
                self.spec.optimizer,
                self.spec.model.trainable_variables,
                before,
                record.replica_gradients,
                record.learning_rates,
                arithmetic,
                self.spec.config.epsilon,
                start,
                after if self.bound else None,
            )
            for arithmetic, start in zip(arithmetics, starts, strict=True)
        ]
        while True:
            with np.errstate(all="ignore"):
                made = [each for run in runs if (each := next(run, None)) is not None]
                if not made:
                    return
                found = self._combined(made, before=before)
            del made  # before the next weight's arrays are made
            yield found

    def nothing(self, variable: Any) -> Estimate:
        """Return the estimate for a weight that the loss does not depend on."""
        zero = np.zeros(tuple(variable.shape))
        return Estimate(zero, zero, None, 1.0, self.oracle)

    @property
    def oracle(self) -> Oracle:
        return Oracle.TRACED if self.whole else Oracle.DERIVED

    @functools.cached_property
    def layer_names(self) -> set[str]:
        return {layer.name for layer in keras_compat.all_layers(self.spec.model)}

    def rounding(self, ties: Convention | None = None) -> Rounding:
        """Return the arithmetic with the rounding errors of the step; ties: see `Rounding`."""
        record = self.record
        return Rounding(tensorfloat32=record.tensorfloat32, half_sums=record.half_sums, ties=ties)

    def arithmetics(self) -> list[Arithmetic]:
        """Return the arithmetics to run rules in: with rounding errors, as a twin, and in float32.

        The third is there where κ is measured by it, or what XLA may leave out.
        """
        reference = self.rounding()
        if self.bound:
            return [Rounding(bound=True), *([Plain(np.float32)] if self.twin else [])]
        if self.has_halves:
            return [reference, self.simulating, *([_FLOAT32] if self.record.jit else [])]
        differs = self.dtypes != {"float32"} or self.record.tensorfloat32
        return [reference, Plain(np.float32), *([_FLOAT32] if differs else [])]

    @property
    def simulating(self) -> Simulating:
        """The arithmetic of the step's half precisions."""
        return Simulating(half_sums=self.record.half_sums)

    def _walk(self, record: StepRecord, arithmetic: Arithmetic) -> Walk:
        return Walk(
            record.variables,
            arithmetic,
            self.spec.framework.draw,
            config=self.spec.config,
            traces=self.traces,
            traced=self.traced,
            jit=record.jit,
        )

    def _gradients(
        self, record: StepRecord, arithmetic: Arithmetic
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, Provenances]]:
        """Return the gradient of each variable by path, with the loss under the empty path.

        The second dict has the new values of what layers assign to, the third the provenance of
        each gradient.
        """
        walk = self._walk(record, arithmetic)
        loss = backprop(self.spec.model, record, walk, self.whole)
        return {"": loss.value, **walk.cotangents}, walk.assigned, walk.provenance

    def _looked_again(
        self, place: int, estimates: dict[str, Estimate], taken: Mapping[str, ArrayLike | None]
    ) -> dict[str, Estimate]:
        """Return estimates, with the σ of further twins where what the framework has is far off.

        place: 0 for gradients, 1 for what layers assign to; as `_gradients` returns them.
        """
        if self.bound:
            return estimates
        known = {path: v for path, v in taken.items() if v is not None and path in estimates}
        weights = [v.path for v in self.spec.model.trainable_variables]
        unit = max(UNITS.get(dtype, 1) for dtype in self.dtypes)
        scales: list[Arrays] = []

        def errors(number: int) -> Arrays:
            if not scales:  # the first twin
                scales.append(self._scale(place, estimates))
            moved = step_beside(self.record, weights, number, unit)
            right, wrong = self._beside_in(number)
            twin, near = (self._gradients(moved, each)[place] for each in (wrong, right))
            made = {path: numbers(twin.pop(path)) - numbers(near.pop(path)) for path in known}
            return {path: error * scales[0].get(path, 1.0) for path, error in made.items()}

        return refined(estimates, known, errors)

    def _beside_in(self, number: int) -> tuple[Arithmetic, Arithmetic]:
        """Return the arithmetics of the right values beside those of the step, and of a twin."""
        if self._mixed:
            return self.arithmetics()[0], self.simulating
        return Plain(np.float64), Reordering(number)

    def _scale(self, place: int, estimates: Mapping[str, Estimate]) -> Arrays:
        """Return by what float32 errors are multiplied in the precision of the audited step.

        It is the quotient of the two σ, by path; empty where the twins are in that precision.
        """
        scale: Arrays = {}
        if self._mixed or len(self.arithmetics()) == 2:
            return scale
        singles = self._gradients(self.record, _FLOAT32)[place]
        for path, estimate in estimates.items():
            single = as_rounded(singles[path]).sigma
            own = estimate.sigma / estimate.kappa
            scale[path] = np.divide(own, single, out=np.zeros(own.shape), where=single > 0)
        return scale

    def _changes(self, paths: Iterable[str]) -> Arrays:
        """Return by how much variables changed over the step, of those that were read after it."""
        before, after = self.record.variables, self.record.variables_after
        return {
            path: np.subtract(after[path], before[path], dtype=np.float64)
            for path in paths
            if path in after
        }

    def _combined(
        self, runs: list[dict[str, Any]], before: Arrays | None = None
    ) -> dict[str, Estimate]:
        """Combine the runs in the `arithmetics`. They are used up: large models need the memory.

        before: where given, the estimates are of the changes since these values.
        """
        estimates = {}
        for path in list(runs[0]):
            value, *others = [run.pop(path) for run in runs]
            if self.bound:
                right = numbers(value)
                if before is not None:
                    right = right - before[path]
                factor = kappa(others[0], as_rounded(value)) if others else 1.0
                sigma = value.sigma if factor == 1.0 else factor * value.sigma
                if not np.isfinite(np.max(sigma, initial=0.0)):  # what overflows bounds nothing
                    sigma = np.where(np.isfinite(sigma), sigma, 0.0)
                noise = value.noise if isinstance(value, Bounded) else None
                estimates[path] = Estimate(right, sigma, None, factor, self.oracle, noise=noise)
                continue
            reference = as_rounded(value)
            twin, *rest = others
            single = as_rounded(rest[0]) if rest else reference
            compared = reference if self.has_halves else single
            factor = kappa(twin, compared)
            sigma = factor * reference.sigma
            if self.has_halves and self.record.jit:
                # XLA may leave out casts to a half precision and back (xla_allow_excess_precision).
                sigma = np.hypot(sigma, reference.value - single.value)
            right = reference.value
            if before is not None:
                right = right - np.asarray(before[path], np.float64)
            estimates[path] = Estimate(right, sigma, reference.kink, factor, self.oracle)
        return estimates

    @property
    def has_bound(self) -> bool:
        """Whether there is a lower bound of σ, as there is for steps in float32 throughout."""
        return self.dtypes == {"float32"} and not self.record.tensorfloat32

    @functools.cached_property
    def dtypes(self) -> set[str]:
        model = self.spec.model
        return {
            *(layer.compute_dtype for layer in keras_compat.all_layers(model)),
            *(v.dtype for v in model.trainable_variables),
            *(term.dtype for term in loss_terms(model)),
        }

    @property
    def _mixed(self) -> bool:
        """Whether a few errors of a narrow precision may outweigh those of a wide one beside it."""
        return self.has_halves or len(self.dtypes) > 1

    @functools.cached_property
    def has_halves(self) -> bool:
        return bool(self.dtypes & {"float16", "bfloat16"})
