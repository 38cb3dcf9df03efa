"""Every exception of gradaudit. Each message says what happened, what was expected, what to do."""

import difflib
from collections.abc import Iterable

_MANY = 20


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
    """Parts of a model cannot be derived; the message lists all of them."""

    exit_code = 3


class TrainingError(GradauditError):
    """Keras could not train the model on the data."""

    exit_code = 3


class AuditFailure(GradauditError):
    """A gradient or an update is wrong, or could not be judged where that was asked for."""

    exit_code = 1


class CheckFailure(AssertionError):
    """A rule does not satisfy one of the checks that every rule must satisfy."""
