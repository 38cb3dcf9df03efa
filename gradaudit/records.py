"""The data that flows between the rooms. No logic.

Arrays are NumPy arrays. A "path" of a variable is its key, see `rules.variable_keys`: Keras's
`Variable.path`, with a suffix where several variables of the model have that.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradaudit.enums import DEFAULT_THRESHOLD as DEFAULT_THRESHOLD
from gradaudit.enums import FAILURES as FAILURES
from gradaudit.enums import Oracle as Oracle
from gradaudit.enums import Passed as Passed
from gradaudit.enums import Stage as Stage
from gradaudit.enums import Verdict as Verdict
from gradaudit.errors import GapCode

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, order=True)
class Provenance:
    """One thing that a cotangent passed, and where it is in the user's code.

    kind: `TRACED` for code that was traced; `NUMERIC` for a derivative by differences; `CUSTOM` for
        a gradient that the user wrote, `EXPECTED` for one that is taken as it is; `MISLED` for an
        op whose gradient in the framework is not the derivative.
    op: name of the op, op_type: its type. function: the user's function, or that of a library that
        is made of several ops. layer: the name scope.
    file, line, source: the innermost line outside libraries; "", 0 and "" where there is none.
    detail: for which values, a clause such as "where x is 0"; "" for all.
    """

    kind: Passed
    op: str = ""
    op_type: str = ""
    function: str = ""
    layer: str = ""
    file: str = ""
    line: int = 0
    source: str = ""
    detail: str = ""


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
    applications: how often `optimizer.apply` ran; None in a branch or a loop, where it is unknown.
    loss: as `compute_loss` returned it, or None. loss_scale: its factor in what the tape took.
    learning_rates: of this step, one for each of `rules.single_optimizers`.
    jit: compiled by XLA. tensorfloat32: float32 products use TF32. half_sums: an einsum of a half
        precision accumulates in it, and not in float32.
    capture_ms: time of the step, with all that its capture took: peeking, tracing, the second run
        under XLA, copies to NumPy. Several replicas share it equally.
    generators: states of Python's and of NumPy's own random generators as the code of the step
        began to be traced, or run; None where that is not known.
    trained: the variables after the step that trained, where Keras's own function ran beside the
        recorded one, from the same state, and left other values; None where it left the same.
    replica, replicas: its number, and how many are in sync: Keras divides the loss of each by it.
    stale: what of the compiled step is not what the model's code says, in words.
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
    half_sums: bool = False
    generators: Any = None
    trained: Arrays | None = None
    replica: int = 0
    replicas: int = 1
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """The settings of `keras.config` that a step was computed with, by their names there."""

    epsilon: float
    floatx: str
    image_data_format: str


@dataclass(frozen=True, eq=False)
class StepSpec:
    """What a judgement needs besides the numbers of the record, as it was when the step ran.

    model: the structure and the options of the model, and the metadata of its variables, without
        their values. optimizer: the same of its optimizer, None without one.
    config: settings of Keras.
    framework: draws random numbers again, and traces code; see `reference.framework.Framework`.
    versions: of Python and the packages, by name.
    """

    model: Any
    optimizer: Any
    config: Config
    framework: Any
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Estimate:
    """What a variable's gradient or change must be, and how far rounding may move it.

    value: float64. sigma: standard deviation of the rounding error, κ included.
    kink: what other branches at kinks could change, in size; None for nothing.
    kappa: the factor that the twin run measured. oracle: how the value was obtained.
    gaps: why it could not be compared with a second oracle that was asked for.
    provenance: what the cotangent passed that a report names: custom gradients, ops whose gradient
        in TensorFlow is not the derivative, derivatives by differences. The value is that of the
        true derivative, except through an `EXPECTED` gradient.
    noise: 2-norm of σ where `sigma` is a lower bound and that is known; None for that of `sigma`.
    """

    value: np.ndarray
    sigma: np.ndarray
    kink: np.ndarray | None
    kappa: float
    oracle: Oracle
    provenance: tuple[Provenance, ...] = ()
    gaps: tuple[Gap, ...] = ()
    noise: float | None = None


@dataclass(frozen=True)
class AtTies:
    """The gradients of a step by another choice at exact ties, without κ; by path."""

    words: str
    gradients: Mapping[str, Estimate]


@dataclass(frozen=True)
class Origin:
    """Where the first number of a step that is not finite comes from.

    words: a phrase for people, which names the op, layer, line, row and operand as far as they are
        known. skipped: it is the overflow of a scaled loss, for which the optimizer rightly skips
        the step.
    """

    words: str
    skipped: bool = False


def _nothing() -> Iterator[Any]:
    return iter(())


@dataclass(frozen=True)
class Reference:
    """What one step should have done.

    gradients: by path. updates: derives the change of each variable of the model and its optimizer
        over the step, one by one: a call gives an iterator of paths and estimates.
    trained: where the step that trained is not the one that was recorded (`StepRecord.trained`),
        derives the change that it must have made: that of the recorded step, but for the rounding
        errors of the gradients, which were others.
    unjudged: why there is no reference, by stage and path.
    origin: of what is not finite in the framework's step; None where all is finite.
    doubts: tells which ops choose within rounding errors. at_ties: gives the gradients by other
        choices at exact ties, which are as right. turned: gives the gradients with choices within
        rounding errors turned, each in some of several runs; kinks that are left have other
        reasons. overflow: tells which op may overflow.
    """

    loss: Estimate | None
    gradients: dict[str, Estimate]
    updates: Callable[[], Iterator[tuple[str, Estimate]]] = _nothing
    trained: Callable[[], Iterator[tuple[str, Estimate]]] = _nothing
    unjudged: Mapping[tuple[Stage, str], tuple[Gap, ...]] = field(default_factory=dict)
    origin: Origin | None = None
    doubts: Callable[[], str] = str
    at_ties: Callable[[], Iterator[AtTies]] = _nothing
    turned: Callable[[], Iterator[Mapping[str, Estimate]]] = _nothing
    overflow: Callable[[], Origin | None] = lambda: None


@dataclass(frozen=True)
class WeightRows:
    """Single weights of one tensor, compared: the rows that a report has of it.

    shape: of the tensor. place: positions in the flattened tensor, ascending; None for all of them.
    weight: the values before the step. tape, reference, sigma, z: z is that of the difference which
    no kink explains. verdict: positions in `list(Verdict)`. These are arrays of one length.
    """

    step: int
    replica: int
    stage: Stage
    path: str
    shape: tuple[int, ...]
    place: np.ndarray | None
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
    cause: what a failure looks like, or why the tensor was not judged.
    gaps: codes of the reasons, or of why a second oracle that was asked for was not available.
    provenance: that of the reference, see `Estimate`.
    rows: how many of its single weights a report has a row of.
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
    rows: int
    gaps: tuple[GapCode, ...] = ()
    provenance: tuple[Provenance, ...] = ()

    @property
    def count(self) -> int:
        """Number of weights of the tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Comparison:
    """One audited step of one replica, compared: its tensors, and its worst element.

    batch_size: rows of the batch; 0 where the batch could not be captured.
    capture_ms, reference_ms, update_ms, compare_ms, report_ms: the time of the capture, of deriving
        the gradients and the update, of the comparison, of writing the rows of single weights.
    judged_by: "sigma", or a "bound" of it that settled all verdicts.
    origin: where the first number that is not finite comes from, in words; "" where all are finite.
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
    report_ms: float = 0.0
    update_ms: float = 0.0
    judged_by: str = "sigma"
    origin: str = ""
