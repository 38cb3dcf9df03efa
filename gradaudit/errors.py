"""Every exception of gradaudit. Each message says what happened, what was expected, what to do."""

import difflib
from collections.abc import Iterable
from enum import StrEnum

_MANY = 20


class GapCode(StrEnum):
    """Why something cannot be judged. The values are stable: reports are filtered by them."""

    ACCUMULATION = "accumulation-on-replicas"
    ADD_LOSS = "add-loss"
    APPLICATIONS = "applications"
    APPLY_REPLACED = "apply-replaced"
    ASSIGNED_UNSEEN = "assigned-unseen"
    CAPTURE = "capture"
    DATA = "data"
    DISAGREEMENT = "oracles-disagree"
    EMPTY = "empty-batch"
    FAULT = "auditor-fault"
    INPUT = "input-kind"
    LOSS = "loss-option"
    NO_GRAPH = "no-graph"
    NO_OPTIMIZER = "no-optimizer"
    NO_RULE = "no-rule"
    NO_WEIGHTS = "no-trainable-weights"
    OP = "op"
    OPTION = "option"
    OVERRIDE = "overridden-method"
    PART = "part"
    REPLICAS = "replicas"
    SPARSE_PARTS = "sparse-parts"
    STATEFUL = "stateful"
    TRAIN_STEP = "train-step"
    UNSTEADY = "unsteady-trace"
    UNTRACEABLE = "untraceable"
    VALUES = "values"
    WEIGHT = "weight-unknown"


GAP_MEANINGS: dict[GapCode, str] = {
    GapCode.ACCUMULATION: "gradients are accumulated on several replicas",
    GapCode.ADD_LOSS: "a layer adds losses of its own (add_loss)",
    GapCode.APPLICATIONS: "optimizer.apply did not run exactly once in the step",
    GapCode.APPLY_REPLACED: "the optimizer's apply was replaced on the instance",
    GapCode.ASSIGNED_UNSEEN: "a layer assigns to a weight in the step, and the value is not known",
    GapCode.CAPTURE: "the step could not be captured",
    GapCode.DATA: "the batch holds something else than dense numbers",
    GapCode.DISAGREEMENT: "the derived rules and a trace of the code disagree",
    GapCode.EMPTY: "the batch has no rows",
    GapCode.FAULT: "the auditor itself failed: run.json has the traceback",
    GapCode.INPUT: "an input of the model is sparse, ragged or optional",
    GapCode.LOSS: "an option of a loss, its reduction or its weight is not derived",
    GapCode.NO_GRAPH: "a model is neither Sequential nor functional",
    GapCode.NO_OPTIMIZER: "the model was compiled without an optimizer",
    GapCode.NO_RULE: "there is no derived rule for a part of the model",
    GapCode.NO_WEIGHTS: "the model has no trainable weights",
    GapCode.OP: "an op of the traced code is not derived",
    GapCode.OPTION: "an option of a part is not derived by its rule",
    GapCode.OVERRIDE: "the model overrides a method of keras.Model",
    GapCode.PART: "a layer calls a part in a way that its rule does not cover",
    GapCode.REPLICAS: "several replicas move this variable, and only one batch was captured",
    GapCode.SPARSE_PARTS: "the optimizer applies a sparse gradient part by part",
    GapCode.STATEFUL: "a layer keeps state that is not captured",
    GapCode.TRAIN_STEP: "the model overrides train_step",
    GapCode.UNSTEADY: "tracing the model's code twice gave different results",
    GapCode.UNTRACEABLE: "the model's code could not be traced to a graph",
    GapCode.VALUES: "a rule does not cover the values of this step",
    GapCode.WEIGHT: "a weight, its constraint or its update is not derived",
}
"""What each code means; `gradaudit rules --gaps` prints it."""


class GradauditError(Exception):
    """Base of all gradaudit errors; the command line prints its text as one line."""

    exit_code = 2


class UsageError(GradauditError):
    """An argument or an option cannot be used as given."""


class UnknownNameError(UsageError):
    """A name is not among those known; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        if len(known) > _MANY:
            nearest = ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0.0))
            super().__init__(f"there is no {kind} {name!r}.{hint} The nearest names: {nearest}.")
        else:
            super().__init__(f"there is no {kind} {name!r}.{hint} Known: {', '.join(known)}.")


class DataError(UsageError):
    """A data file, or what it holds, cannot be trained on."""


class UnclearClaimError(GradauditError):
    """It cannot be told what a published number is, or what it was computed from."""


class FolderError(UsageError):
    """A report folder cannot be written to, or is not a run."""


class UnsupportedFunctionError(GradauditError, TypeError):
    """A NumPy function was called for which `Rounded` has no rounding rule."""


class RuleDefinitionError(GradauditError):
    """A rule does not have the shape that the registry asks for."""


class UnsupportedModelError(GradauditError):
    """Parts of a model cannot be derived; the message lists all of them.

    code: the kind of gap. part: the name of the layer, weight or op that it concerns.
    """

    exit_code = 3

    def __init__(self, message: str, code: GapCode = GapCode.VALUES, part: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.part = part


class TrainingError(GradauditError):
    """Keras could not train the model on the data."""

    exit_code = 3


class AuditFailure(GradauditError):
    """A gradient or an update is wrong, or could not be judged where that was asked for."""

    exit_code = 1


class CheckFailure(AssertionError):
    """A rule does not satisfy one of the checks that every rule must satisfy."""
