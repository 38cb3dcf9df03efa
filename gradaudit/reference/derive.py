"""From a StepRecord to its Reference: three runs of the same rules, and κ.

A batch with repeated rows has further runs, for κ.
"""

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import (
    PRECISIONS,
    Arithmetic,
    Plain,
    Rounded,
    Rounding,
    Simulated,
    Simulating,
)
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import STAGES, Arrays, Estimate, Reference, StepRecord
from gradaudit.reference.backprop import backprop
from gradaudit.reference.gaps import model_gaps, step_gaps, traced_layers, update_gaps
from gradaudit.reference.graph import is_float
from gradaudit.reference.losses import loss_terms
from gradaudit.reference.traces import Traces
from gradaudit.reference.update import takes_parts, updated
from gradaudit.reference.walk import TRACED, Replay, Walk
from gradaudit.rules import assigned_weights, moved_by
from gradaudit.tracing import NUMERIC

_IN_PARTS = (
    "the gradient came as tf.IndexedSlices with an index more than once, and Keras takes the parts "
    "one by one (a² + b² for the square of a + b): what the update and the slots must be is not "
    "derived"
)
_OF_REPLICAS = (
    "the model runs on several replicas, whose batches all move this variable: a replica's record "
    "has its own batch only"
)
_UNSEEN = (
    "a layer assigns to this weight before the optimizer moves it, and what it assigned is not "
    "known"
)
_UNSTEADY = (
    "the model's code is traced to other numbers each time, and those of the step are not known: "
    "it draws from a generator of its own, say, or counts in Python. Draw with keras.random and a "
    "keras.random.SeedGenerator, and count in a weight"
)
_FLOAT32 = Rounding(uniform=PRECISIONS["float32"])

REPETITION = 4.0
"""A batch in which a row stands this many times in the mean has further twins.

Its rows make the same errors throughout, and where few roundings make up a gradient's error, one
twin may happen to have small ones.
"""
FURTHER_TWINS = 5


class Derivation:
    """Derives the reference of each audited step of one model.

    Args:
        model: a built, compiled Keras model.
        replay: repeats a random draw, as `gradaudit.backends.tensorflow.replay` does.
        wanted: whether a weight is asked for, by its path. stages: which stages are.
        oracle: "derived", "traced" or "both"; expect: names of functions and layers whose custom
            gradients are taken for right; see GradientAudit.
    """

    def __init__(
        self,
        model: keras.Model,
        replay: Replay,
        wanted: Callable[[str], bool] = lambda path: True,
        stages: Sequence[str] = STAGES,
        oracle: str = "derived",
        expect: Collection[str] = (),
    ) -> None:
        self._model = model
        self._wanted = wanted
        self._stages = stages
        self._replay = replay
        self._step_gaps = step_gaps(model)
        self._model_gaps = model_gaps(model)
        self._expect = expect
        self._traces = Traces(model, expect)
        layers = traced_layers(model) if self._model_gaps else []
        self._whole = layers is None or oracle == "traced"
        self._both = oracle == "both" and not self._whole
        self._traced = frozenset(map(id, layers or ()))
        self._update_gaps = update_gaps(model)
        self._dtype_of = {v.path: v.dtype for v in model.variables}
        self._dtypes = {layer.compute_dtype for layer in model._flatten_layers()}
        self._dtypes |= {v.dtype for v in model.trainable_variables}
        self._dtypes |= {term.dtype for term in loss_terms(model)}

    def __call__(self, record: StepRecord) -> Reference:
        """Return the reference of one step; its updates are derived as they are read."""
        start = time.perf_counter()
        variables = [v for v in self._model.trainable_variables if self._wanted(v.path)]
        unjudged: dict[tuple[str, str], str] = {}
        loss, gradients, moved, assigned = None, {}, {}, None
        gaps = self._step_gaps
        if not gaps:
            try:
                loss, gradients, moved, assigned = self._known_gradients(record, variables)
                if self._is_unsteady(record, loss):
                    raise UnsupportedModelError(_UNSTEADY)
                if self._both:
                    unjudged.update(self._disputed(record))
                    gradients = {
                        path: dataclasses.replace(estimate, oracle="both")
                        for path, estimate in gradients.items()
                        if ("gradient", path) not in unjudged
                    }
            except UnsupportedModelError as error:  # what only the data of a step shows
                loss, gradients, moved, assigned = None, {}, {}, None
                gaps = [*self._model_gaps, str(error)]
        unjudged.update({("gradient", v.path): "; ".join(gaps) for v in variables if gaps})
        if "update" not in self._stages:
            return Reference(loss, gradients, (), unjudged, _milliseconds(start))
        gaps = list(self._update_gaps)
        if record.applications is None:
            gaps.append("optimizer.apply stands in a branch or a loop of train_step")
        elif record.applications != 1:
            gaps.append(f"optimizer.apply ran {record.applications} times in the step, not once")
        unjudged.update({("update", v.path): "; ".join(gaps) for v in variables if gaps})
        updates = [] if assigned is None else self._moved_by_layers(record, moved, unjudged)
        if not gaps:
            in_parts = self._moved_by_parts(record)
            unjudged.update(
                {("update", v.path): _IN_PARTS for v in variables if v.path in in_parts}
            )
            unknown = in_parts | self._assigned_unseen(record, assigned, unjudged)
            updates = itertools.chain(self._updates(record, unknown, assigned or []), updates)
        return Reference(loss, gradients, updates, unjudged, _milliseconds(start))

    def rewound(self, record: StepRecord) -> StepRecord:
        """Return the record of a step whose forward has run, with whole numbers as before it.

        Such as the seeds that it drew from.

        Raises:
            UnsupportedModelError: the loss depends on other variables that the forward assigns to.
        """
        try:
            loss, assigned = self._loss(record)
        except UnsupportedModelError:
            return record  # why nothing can be judged is told of the step itself
        floats = {path for path in assigned if is_float(self._dtype_of[path])}
        shifted = {path: record.variables[path] * 1.01 + 0.01 for path in floats}
        moved = dataclasses.replace(record, variables={**record.variables, **shifted})
        if floats and self._loss(moved)[0] != loss:
            raise UnsupportedModelError(
                f"the loss depends on {', '.join(sorted(floats))}, which the forward has changed "
                "already: what it was before is not known"
            )
        before = {
            path: 2 * record.variables[path] - assigned[path] for path in assigned.keys() - floats
        }
        return dataclasses.replace(record, variables={**record.variables, **before})

    def _is_unsteady(self, record: StepRecord, loss: Estimate) -> bool:
        """Return whether the model's code does something else each time that it is traced.

        That is looked at where the loss is not the step's.
        """
        beyond = 8 * loss.sigma + (0.0 if loss.kink is None else loss.kink)
        if record.loss is None or not np.abs(record.loss - loss.value) > beyond:
            return False
        first, self._traces = self._traces, Traces(self._model, self._expect)
        again, _ = self._loss(record)
        self._traces = first
        return again != self._loss(record)[0]

    def _loss(self, record: StepRecord) -> tuple[float, dict[str, Array]]:
        """Return the loss, and what layers assign to, in plain numbers."""
        walk = self._walk(record, Plain(np.float64))
        with np.errstate(all="ignore"):
            loss = backprop(self._model, record, walk, self._whole)
        return float(loss.value), walk.assigned

    def _known_gradients(self, record: StepRecord, variables: list[Any]) -> tuple[Any, ...]:
        """Return what `_derived_gradients` does, by a trace where the data show a gap of the rules.

        Raises:
            UnsupportedModelError: neither rules nor a trace can tell.
        """
        try:
            return self._derived_gradients(record, variables)
        except UnsupportedModelError:
            if self._whole:
                raise
        self._whole, self._both = True, False
        return self._derived_gradients(record, variables)

    def _derived_gradients(
        self, record: StepRecord, variables: list[Any]
    ) -> tuple[Estimate, dict[str, Estimate], dict[str, Estimate], list[dict[str, Array]]]:
        """Return the loss, the gradients, and the changes of what layers assign to.

        Last, what they assign to in each of the `_arithmetics`.
        """
        with np.errstate(all="ignore"):  # what is not finite here is compared like the rest
            walks = [self._gradients(record, a) for a in self._arithmetics(record)]
            floats = [
                {path: after for path, after in w[1].items() if is_float(self._dtype_of[path])}
                for w in walks
            ]
            assigned = [dict(each) for each in floats]
            passed = walks[0][2]
            found = self._combined(record, [w[0] for w in walks], self._further_errors(record))
            for path in passed.keys() & found.keys():
                oracle = next((o for o in (NUMERIC, TRACED) if o in passed[path]), "derived")
                custom = tuple(sorted(passed[path] - {NUMERIC, TRACED}))
                found[path] = dataclasses.replace(found[path], oracle=oracle, custom=custom)
            moved = self._combined(record, floats, before=record.variables)
        for path in walks[0][1].keys() - moved.keys():  # whole numbers, which are exact
            change = np.subtract(walks[0][1][path], record.variables[path], dtype=np.float64)
            moved[path] = Estimate(change, np.zeros(change.shape), None, 1.0, self._oracle)
        loss = found.pop("")
        return (
            loss,
            {v.path: found.get(v.path) or self._nothing(v) for v in variables},
            moved,
            assigned,
        )

    def _assigned_unseen(
        self, record: StepRecord, assigned: Any, unjudged: dict[tuple[str, str], str]
    ) -> set[str]:
        """Return the weights that the optimizer moves on from an assignment that is not known."""
        if assigned is not None and record.replicas == 1:
            return set()
        paths = {
            path for layer in self._model._flatten_layers() for path in assigned_weights(layer)
        }
        unjudged.update({("update", path): _UNSEEN for path in paths if self._wanted(path)})
        return paths

    def _moved_by_layers(
        self, record: StepRecord, moved: dict[str, Estimate], unjudged: dict[tuple[str, str], str]
    ) -> list[tuple[str, Estimate]]:
        """Return the changes of the weights that no gradient moves; those that must stay, too.

        Of weights that rightly stayed as they were, such as those of a frozen layer, nothing is
        said: there may be many.
        """
        changes = []
        for variable in self._model.non_trainable_weights:
            path = variable.path
            if not self._wanted(path) or path not in record.variables_after:
                continue
            before, after = record.variables[path], record.variables_after[path]
            if path in moved and record.replicas > 1:
                unjudged["update", path] = _OF_REPLICAS
            elif path in moved:
                changes.append((path, moved[path]))
            elif not np.array_equal(before, after):
                changes.append((path, self._nothing(variable)))
        return changes

    def _further_errors(self, record: StepRecord) -> list[Arrays]:
        """Return the errors of further twins, if rows repeat: at weights beside those of the step.

        There other roundings are made, and errors as large.
        """
        if self._halves or _repetition(record.x) < REPETITION:
            return []
        rng, errors = np.random.default_rng(0), []
        for _ in range(FURTHER_TWINS):
            beside = {
                v.path: np.asarray(
                    record.variables[v.path] * (1 + 1e-3 * rng.uniform(-1, 1, v.shape)), np.float32
                )
                for v in self._model.trainable_variables
            }
            moved = dataclasses.replace(record, variables={**record.variables, **beside})
            twin = self._gradients(moved, Plain(np.float32))[0]
            right = self._gradients(moved, Plain(np.float64))[0]
            errors.append({path: twin[path] - right.pop(path) for path in list(right)})
        return errors

    def _gradients(
        self, record: StepRecord, arithmetic: Arithmetic
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, frozenset[str]]]:
        """Return the gradient of each variable by path, with the loss under the empty path.

        The second dict has the new values of what layers assign to, the third what stood on the
        way back to a variable: see Walk.passed.
        """
        walk = self._walk(record, arithmetic)
        loss = backprop(self._model, record, walk, self._whole)
        return {"": loss.value, **walk.cotangents}, walk.assigned, walk.passed

    def _walk(self, record: StepRecord, arithmetic: Arithmetic) -> Walk:
        return Walk(
            record.variables,
            arithmetic,
            self._replay,
            traces=self._traces,
            traced=self._traced,
            jit=record.jit,
        )

    def _disputed(self, record: StepRecord) -> dict[tuple[str, str], str]:
        """Return the gradients on which the derived rules and a trace of the whole step differ.

        By more than the rounding errors of the step's own precision: numbers that are constants in
        a graph were rounded to it.
        """
        runs, arithmetic = [], self._arithmetics(record)[0]
        with np.errstate(all="ignore"):
            for traced in (False, True):
                walk = self._walk(record, arithmetic)
                loss = backprop(self._model, record, walk, traced)
                runs.append({"": loss.value, **walk.cotangents})
        derived, traced = runs
        where = "forward" if _differ(derived[""], traced[""]) else "on the way back"
        words = f"the derived rules and a trace of the model's code do not agree, {where}"
        return {
            ("gradient", path): words
            for path in derived.keys() | traced.keys()
            if path and _differ(derived.get(path), traced.get(path))
        }

    def _moved_by_parts(self, record: StepRecord) -> set[str]:
        """Return the weights whose update is not that of their gradient, but of its parts."""
        optimizer = self._model.optimizer
        weights = self._model.trainable_variables
        found = {
            v.path for v in weights if v.path in record.repeating and takes_parts(optimizer, v)
        }
        norms = [moved_by(optimizer, v) for v in weights if v.path in found]
        shared = [single for single in norms if single.global_clipnorm]
        return found | {v.path for v in weights if moved_by(optimizer, v) in shared}

    def _updates(
        self, record: StepRecord, left_out: set[str], assigned: Sequence[dict[str, Array]]
    ) -> Iterator[tuple[str, Estimate]]:
        """Yield the change of each variable; the runs go side by side, weight by weight.

        left_out: weights that are not asked for, with their slots. assigned: what layers made of
        weights, in each of the `_arithmetics`; empty for none.
        """
        optimizer, variables = self._model.optimizer, self._model.trainable_variables
        before = record.variables | record.optimizer_variables
        weights = {v.path for v in variables}
        given = optimizer, variables, before, record.replica_gradients, record.learning_rates
        arithmetics = self._arithmetics(record)
        starts = assigned or [{}] * len(arithmetics)
        runs = [updated(*given, a, start) for a, start in zip(arithmetics, starts, strict=True)]
        while True:
            with np.errstate(all="ignore"):
                after = [next(run, None) for run in runs]
                if after[0] is None:
                    return
                found = self._combined(record, after, before=before)
            del after  # so that the next weight does not begin beside it
            if all(self._wanted(p) and p not in left_out for p in found.keys() & weights):
                yield from found.items()

    def _arithmetics(self, record: StepRecord) -> list[Arithmetic]:
        """Return the arithmetics to run rules in: with rounding errors, as a twin, and in float32.

        The third is there where κ, or what XLA may leave out, is measured by it.
        """
        reference = Rounding(tensorfloat32=record.tensorfloat32)
        if self._halves:
            return [reference, Simulating(), *([_FLOAT32] if record.jit else [])]
        differs = self._dtypes != {"float32"} or record.tensorfloat32
        return [reference, Plain(np.float32), *([_FLOAT32] if differs else [])]

    def _combined(
        self,
        record: StepRecord,
        runs: list[dict[str, Array]],
        further: Sequence[Arrays] = (),
        before: Arrays | None = None,
    ) -> dict[str, Estimate]:
        """Combine the runs in the `_arithmetics`, which are used up: large models need the memory.

        further: errors of further twins, which κ is measured by, too.
        before: where given, the estimates are of the changes since these values.
        """
        estimates = {}
        for path in list(runs[0]):
            reference, twin, *rest = [run.pop(path) for run in runs]
            single = rest[0] if rest else reference
            compared = reference if self._halves else single
            kappa = _kappa(twin, compared)
            for errors in further:
                kappa = max(kappa, _kappa(compared.value + errors.pop(path), compared))
            sigma = kappa * reference.sigma
            if self._halves and record.jit:
                # XLA may leave out casts to a half precision and back (xla_allow_excess_precision).
                sigma = np.hypot(sigma, reference.value - single.value)
            value = reference.value
            if before is not None:
                value = value - np.asarray(before[path], np.float64)
            estimates[path] = Estimate(value, sigma, reference.kink, kappa, self._oracle)
        return estimates

    def _nothing(self, variable: Any) -> Estimate:
        """Return the estimate for a weight that the loss does not depend on."""
        zero = np.zeros(tuple(variable.shape))
        return Estimate(zero, zero, None, 1.0, self._oracle)

    @property
    def _oracle(self) -> str:
        return "traced" if self._whole else "derived"

    @property
    def _halves(self) -> bool:
        return bool(self._dtypes & {"float16", "bfloat16"})


def _milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def _repetition(x: Any) -> float:
    """Return how often a row of the batch stands in it, in the mean over rows."""
    inputs = [np.asarray(leaf) for leaf in tree.flatten(x)]
    rows = Counter(tuple(part.tobytes() for part in row) for row in zip(*inputs, strict=False))
    return sum(count**2 for count in rows.values()) / max(rows.total(), 1)


def _kappa(twin: np.ndarray | Simulated, reference: Rounded) -> float:
    """Return κ = max(1, rms(|twin − reference| / σ)) over the elements that no kink dominates.

    The twin is the same rules run once more, in float32, or in simulated half precision. For
    float64 both are float32: κ is a ratio.
    """
    error = np.asarray(getattr(twin, "value", twin), np.float64) - reference.value
    sigma = reference.sigma
    usable = (sigma > 0) & np.isfinite(error)
    if reference.kink is not None:
        usable = usable & (reference.kink <= sigma)
    if not usable.any():
        return 1.0
    error = error[usable]  # one by one: each is as large as the weights
    sigma = sigma[usable]
    return max(1.0, float(np.sqrt(np.mean((error / sigma) ** 2))))


def _differ(a: Rounded | None, b: Rounded | None) -> bool:
    """Return whether two runs differ by more than rounding errors may."""
    if a is None or b is None:
        other = a if b is None else b
        return bool(np.any(np.abs(other.value) > other.doubt))
    with np.errstate(all="ignore"):
        apart = np.abs(a.value - b.value) > a.doubt + b.doubt
    return bool(np.any(apart & ~(np.isnan(a.value) & np.isnan(b.value))))
