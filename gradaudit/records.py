"""The data that flows between the rooms. No logic.

Arrays are NumPy arrays. Variables are keyed by Keras's `Variable.path`, which is unique within a
model; `Variable.name` is not.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from gradaudit.errors import GapCode

Arrays = dict[str, np.ndarray]


class Verdict(StrEnum):
    """The verdict on a weight, a tensor, a step or a run."""

    PASS = "pass"
    KINK = "kink"
    UNRESOLVED = "unresolved"
    FAIL = "fail"
    UNJUDGED = "unjudged"


class Stage(StrEnum):
    """What is audited of a step: the gradients that the optimizer got, and the update it made."""

    GRADIENT = "gradient"
    UPDATE = "update"


class Oracle(StrEnum):
    """How a reference value was obtained. A user may ask for the first three."""

    DERIVED = "derived"
    TRACED = "traced"
    BOTH = "both"
    NUMERIC = "numeric"


class Passed(StrEnum):
    """What kind of thing a cotangent passed on its way to a variable."""

    TRACED = "traced"
    NUMERIC = "numeric"
    CUSTOM = "custom"
    EXPECTED = "expected"
    MISLED = "misled"


@dataclass(frozen=True, order=True)
class Provenance:
    """One thing that a cotangent passed, and where it is in the user's code.

    kind: `TRACED` for code that was traced; `NUMERIC` for a derivative by differences; `CUSTOM` for
        a gradient that the user wrote, `EXPECTED` for one that is taken as it is; `MISLED` for an
        op whose gradient in the framework is not the derivative.
    op: name of the op, op_type: its type. function: the user's function. layer: the name scope.
    file, line, source: the innermost line outside libraries; "", 0 and "" where there is none.
    """

    kind: Passed
    op: str = ""
    op_type: str = ""
    function: str = ""
    layer: str = ""
    file: str = ""
    line: int = 0
    source: str = ""


@dataclass(frozen=True)
class Gap:
    """Why something cannot be derived.

    code: stable, see `errors.GAP_MEANINGS`. part: name of the layer, weight or op concerned.
    message: one sentence for people.
    """

    code: GapCode
    part: str
    message: str


@dataclass(frozen=True)
class StepRecord:
    """One training step as it happened.

    step, epoch: counted from 0.
    x, y, sample_weight: the batch, in the structure that the model was given.
    variables, optimizer_variables: before the step; *_after: after it.
    gradients: as `optimizer.apply` received them, still scaled under loss scaling; None where the
        framework has none.
    replica_gradients: those of all replicas in sync, this one's among them.
    repeating: paths of the gradients that came as `tf.IndexedSlices` with an index more than once.
    applications: how many times `optimizer.apply` ran in the step; None where that is not known,
        since it stands in a branch or a loop.
    loss: as `compute_loss` returned it; None where it is not known.
    loss_scale: the tape differentiated the loss times this.
    learning_rates: of this step, one for each of `rules.single_optimizers`.
    jit: compiled by XLA. tensorfloat32: float32 products use TF32.
    capture_ms: time of the step, with all that its capture took: peeking, tracing, the second run
        under XLA, copies to NumPy. Several replicas share it equally.
    generators: states of Python's and of NumPy's own random generators as the code of the step
        began to be traced, or run; None where that is not known.
    replica, replicas: its number, and how many are in sync: Keras divides the loss of each by it.
    """

    step: int
    epoch: int
    x: Any
    y: Any
    sample_weight: Any
    variables: Arrays
    optimizer_variables: Arrays
    variables_after: Arrays
    optimizer_variables_after: Arrays
    gradients: dict[str, np.ndarray | None]
    replica_gradients: tuple[dict[str, np.ndarray | None], ...]
    repeating: frozenset[str]
    applications: int | None
    loss: float | None
    loss_scale: float
    learning_rates: tuple[float, ...]
    jit: bool
    tensorfloat32: bool
    capture_ms: float
    generators: Any = None
    replica: int = 0
    replicas: int = 1


@dataclass(frozen=True, eq=False)
class StepSpec:
    """What a judgement needs besides the numbers of the record, as it was when the step ran.

    model: the structure and the options of the model, and the metadata of its variables, without
        their values. optimizer: the same of its optimizer, None without one.
    epsilon: `keras.config.epsilon()`.
    framework: draws random numbers again, and traces code; see `reference.framework.Framework`.
    versions: of Python and the packages, by name.
    """

    model: Any
    optimizer: Any
    epsilon: float
    framework: Any
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Estimate:
    """What a variable's gradient or change must be, and how far rounding may move it.

    value: float64. sigma: standard deviation of the rounding error, κ included.
    kink: what other branches at kinks could change, in size; None for nothing.
    kappa: the factor that the twin run measured. oracle: how the value was obtained.
    custom: in words, what the cotangent passed: gradients that the user wrote
        (tf.custom_gradient), gradients of TensorFlow that are not the derivative, derivatives by
        differences. The value is that of the true derivative.
    """

    value: np.ndarray
    sigma: np.ndarray
    kink: np.ndarray | None
    kappa: float
    oracle: Oracle
    custom: tuple[str, ...] = ()


def _no_updates() -> Iterator[tuple[str, Estimate]]:
    return iter(())


@dataclass(frozen=True)
class Reference:
    """What one step should have done.

    gradients: by path. updates: derives the change of each variable of the model and its optimizer
        over the step, one by one: a call gives an iterator of paths and estimates.
    unjudged: why there is no reference, by stage and path.
    """

    loss: Estimate | None
    gradients: dict[str, Estimate]
    updates: Callable[[], Iterator[tuple[str, Estimate]]] = _no_updates
    unjudged: Mapping[tuple[Stage, str], tuple[Gap, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightComparisons:
    """Single weights of one tensor, compared: arrays of one length.

    index: int, shape (n, axes of the tensor). weight: the value before the step. tape, reference,
    sigma, z: float64; z is that of the difference which no kink explains. verdict: str.
    """

    index: np.ndarray
    weight: np.ndarray
    tape: np.ndarray
    reference: np.ndarray
    sigma: np.ndarray
    z: np.ndarray
    verdict: np.ndarray


@dataclass(frozen=True)
class TensorComparison:
    """One tensor of one stage of one step, compared.

    tape_norm, reference_norm: 2-norms. max_abs_diff, rel_l2_diff: of tape − reference.
    max_z, worst_index: the largest score and where it is; NaN and () where nothing was judged.
    detectable_rel: a larger relative error of the whole tensor fails for certain.
    kinks: number of elements that depend on a choice at a kink.
    counts: number of weights by verdict.
    cause: what a failure looks like, or why the tensor was not judged. gaps: codes of the reasons.
    weights: its single weights; of a large tensor only those with the largest z.
    """

    stage: Stage
    path: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    oracle: str
    tape_norm: float
    reference_norm: float
    max_abs_diff: float
    rel_l2_diff: float
    max_z: float
    worst_index: tuple[int, ...]
    kappa: float
    detectable_rel: float
    kinks: int
    counts: Mapping[Verdict, int]
    verdict: Verdict
    cause: str
    weights: WeightComparisons
    gaps: tuple[GapCode, ...] = ()

    @property
    def count(self) -> int:
        """Number of weights of the tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Comparison:
    """One audited step of one replica, compared: its tensors, and its worst element.

    batch_size: rows of the batch; 0 where the batch could not be captured.
    capture_ms, reference_ms, compare_ms: time that it took to capture the step, to derive the
        reference, and to compare the two.
    """

    step: int
    epoch: int
    replica: int
    batch_size: int
    loss_tape: float | None
    loss_reference: float
    loss_z: float
    tensors: tuple[TensorComparison, ...]
    max_z: float
    worst_path: str
    worst_index: tuple[int, ...]
    verdict: Verdict
    capture_ms: float
    reference_ms: float = 0.0
    compare_ms: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A number that somebody published about a net.

    model, quantity, index: which number; index is () for a single one, or counted from 0.
    printed: as text. decimals: how many digits behind the point it is meant to. given: what it was
    computed from, in words.
    """

    model: str
    quantity: str
    index: tuple[int, ...]
    printed: str
    decimals: int
    given: str

    @property
    def number(self) -> float:
        """The printed number."""
        return float(self.printed)

    @property
    def unit(self) -> float:
        """One in the last digit."""
        return 10.0**-self.decimals


@dataclass(frozen=True)
class CheckedClaim:
    """A claim, recomputed.

    recomputed: None where that cannot be done. verdict: "agrees", "cut" (off by less than one unit
        in the last digit, towards zero), "disagrees" or "cannot be checked".
    diagnosis: what a disagreement looks like, or why it cannot be checked.
    """

    claim: Claim
    recomputed: float | None
    verdict: str
    diagnosis: str


@dataclass(frozen=True)
class Symbol:
    """How a formula writes a quantity: W₂, or ∂L/∂W₂ where d is set.

    sub: "" for none. at: the index of one element, in text, or "".
    """

    letter: str
    sub: str = ""
    d: bool = False
    at: str = ""


Formula = tuple[Symbol | str, ...]


@dataclass(frozen=True)
class PathStep:
    """One array on the path of a gradient: what it is, how it is made, and its numbers.

    layer: the name of the layer that makes it, "" for what none makes.
    """

    symbol: Symbol
    formula: Formula
    layer: str
    value: np.ndarray


@dataclass(frozen=True)
class PathTerms:
    """How one call of a layer carries the gradient to a weight: a sum of products.

    names: of the factors. outputs: (n, axes) index of the layer's output that each product goes
    through, its row first. factors: (n, factors). The sum of their products is the gradient's
    part, `value`, up to rounding.
    last_factor: in the row that is shown, its own products, symbol and number, symbol and number;
    empty where they are more than a reader wants to see.
    """

    layer: str
    names: tuple[Formula, ...]
    outputs: np.ndarray
    factors: np.ndarray
    value: float
    last_factor: tuple[tuple[Symbol, float, Symbol, float], ...] = ()


@dataclass(frozen=True)
class GradientPath:
    """The path of one weight's gradient through one step, with all numbers.

    path, index, symbol, weight: which weight, and its value before the step.
    row, rows: the row of the batch whose numbers `forward` and `backward` show, of how many.
    terms: one for each call of the layer that owns the weight.
    penalty: the regularizer's part of the gradient.
    loss, loss_name: of the whole batch. loss_scale: by which the framework multiplied it.
    tape, reference, sigma, z, verdict: of the gradient.
    update_reference: what the step adds to the weight, after: what the framework made of it; NaN
    where there is no optimizer. is_plain: the step is −η ∂L/∂w and nothing else.
    rules: name, VJP section and source of each rule on the way.
    """

    model: str
    step: int
    path: str
    index: tuple[int, ...]
    symbol: Symbol
    weight: float
    row: int
    rows: int
    forward: tuple[PathStep, ...]
    loss: float
    loss_name: str
    loss_scale: float
    backward: tuple[PathStep, ...]
    terms: tuple[PathTerms, ...]
    penalty: float
    tape: float
    reference: float
    sigma: float
    z: float
    verdict: str
    optimizer: str
    is_plain: bool
    learning_rate: float
    update_reference: float
    after: float
    rules: tuple[tuple[str, str, str], ...]

    @property
    def chain(self) -> tuple[Symbol, ...]:
        """What the gradient goes through, from the output back."""
        return tuple(step.symbol for step in self.backward)
