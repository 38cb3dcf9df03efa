"""The register of rules: how a rule is declared, refused, and found."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from keras import Layer
from numpy.typing import ArrayLike

from gradaudit.errors import RuleDefinitionError

_KINDS: dict[tuple[str, ...], str] = {
    ("call", "x"): "layer",
    ("call", "z"): "activation",
    ("call", "y_true", "y_pred"): "loss",
    ("call", "w"): "regularizer",
    ("call", "weight", "gradient", "slots"): "optimizer",
    ("call", "weight"): "constraint",
}
_SECTIONS = {
    "layer": ("Shapes:", "VJP:", "Kinks:"),
    "operation": ("Shapes:", "VJP:", "Kinks:"),
    "activation": ("Shapes:", "VJP:", "Kinks:"),
    "loss": ("Shapes:", "VJP:", "Kinks:"),
    "regularizer": ("Shapes:", "VJP:", "Kinks:"),
    "optimizer": ("Shapes:", "Update:"),
    "constraint": ("Shapes:",),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One configuration on which every check is run.

    Args:
        name: says what is special about it; `gradaudit rules NAME` prints it.
        build: returns the Keras object: a layer, an operation, an activation, a loss, a
            regularizer, an optimizer or a constraint. It is called with no arguments.
        shape: of the input with its batch axis, or a tuple of shapes for several (of y_pred for a
            loss, of the weight for a regularizer, an optimizer or a constraint).
        kinks: inputs at which the derivative jumps: each a number for all elements, or an array
            that is broadcast to the (first) shape.
        targets: for a loss, "real", "one_hot", "integer", "binary" or "probability".
        inputs: values that the input takes: "real", "probability" (positive, rows sum to 1; rows of
            one column lie between 0 and 1), "offset" (a mean of 100 deviations), or "index"
            (integers from 0 to 3).
        training: whether the layer is called as in training.
        arguments: what a layer's call is given besides: numbers, or arrays with the batch's axis
            first.
        apply: calls the layer, (layer, *tensors, **arguments) to its outputs; left out: with its
            tensor, or with a list of several.
        ties: inputs are rounded to whole numbers, so that many are equal.
        compiled: in float64 the checks call Keras's layer under XLA: TensorFlow has no other kernel
            for it on a CPU.
        vanishing: how the names of those weights end whose gradient is 0, whatever the cotangent:
            of terms of about 1 only rounding is left, and that is compared with 1.
    """

    name: str
    build: Callable[[], Any]
    shape: tuple[int, ...] | tuple[tuple[int, ...], ...]
    kinks: tuple[ArrayLike, ...] = ()
    targets: str = "real"
    inputs: str = "real"
    training: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    apply: Callable | None = None
    ties: bool = False
    compiled: bool = False
    vanishing: tuple[str, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all inputs."""
        several = bool(self.shape) and isinstance(self.shape[0], tuple)
        return self.shape if several else (self.shape,)

    def call(self, target: Any, tensors: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
        """Return what the Keras object makes of tensors and further arguments."""
        if self.apply is not None:
            return self.apply(target, *tensors, **arguments)
        return target(tensors[0] if len(tensors) == 1 else list(tensors), **arguments)


@dataclass(frozen=True)
class Rule:
    """A registered rule.

    target: the Keras class or function that the rule describes.
    kind: "layer", "operation", "activation", "loss", "regularizer", "optimizer" or "constraint".
    function: the rule itself.
    weights: names of the variables that a layer may own; another one means a feature not derived.
    options: keyword arguments of a loss or activation that are derived; None for all.
    mask: what the layer's own compute_mask does, (call, x, mask) to the mask of its output; or what
        a loss leaves out, (call, y_true, losses) to a mask of these. None for neither.
    integers: whether a layer takes integers as they are; others are cast to its dtype.
    autocast: whether Keras casts the layer's float inputs to its dtype; if not, x comes as it is.
    takes_masks: whether a layer takes the masks off its tensors, as MultiHeadAttention does.
    gaps: what of an object's options is not derived, in words.
    slots: for an optimizer, the name of each slot and the attribute that holds its variables: a
        list with one for each weight, or a single one for all.
    source: the file in Keras's repository that the target is defined in.
    """

    target: Any
    kind: str
    function: Callable
    cases: tuple[Case, ...]
    source: str
    weights: tuple[str, ...]
    options: tuple[str, ...] | None
    slots: tuple[tuple[str, str], ...]
    mask: Callable | None = None
    integers: bool = False
    autocast: bool = True
    takes_masks: bool = False
    gaps: Callable[[Any], list[str]] | None = None

    @property
    def name(self) -> str:
        return self.target.__name__


_RULES: dict[Any, Rule] = {}


def rule(
    target: Any,
    *,
    cases: Sequence[Case],
    source: str,
    weights: Sequence[str] = (),
    options: Sequence[str] | None = None,
    slots: Sequence[tuple[str, str]] = (),
    mask: Callable | None = None,
    integers: bool = False,
    autocast: bool = True,
    takes_masks: bool = False,
    gaps: Callable[[Any], list[str]] | None = None,
) -> Callable[[Callable], Callable]:
    """Register the decorated function as the rule for a Keras class or function.

    The function's arguments say what it describes: `(call, x)` a layer, or an operation of
    keras.ops that stands in a functional model by itself, `(call, z)` an activation,
    `(call, y_true, y_pred)` a loss, `(call, w)` a regularizer, `(call, weight, gradient, slots)`
    an optimizer, `(call, weight)` a constraint. CONTRIBUTING.md has examples, and says what `call`
    can do.

    Args:
        target: the Keras class (or, for activations and losses, the function) that is described.
            Subclasses of it are not.
        cases: configurations on which `gradaudit.testing.check_rule` checks the rule, at least one.
        source: the file that the target is defined in, for readers.
        weights: for a layer, the names of all variables that it may own itself, trained or not;
            one that has others is unjudged. Those of its parts belong to the rules of the parts.
        options: for a loss or an activation, the keyword arguments of its function that the rule
            derives; another one that is not None is unjudged. None for all.
        slots: for an optimizer, pairs of the name of a slot and the attribute that holds its
            variables: a list with one for each weight, or a single one for all.
        mask: for a layer with a compute_mask of its own, (call, x, mask) to the mask of its output:
            a boolean NumPy array, None, or a tuple of these for several outputs. Left out, the
            input's mask goes on where the layer supports masking. For a loss that leaves elements
            out, (call, y_true, losses) to a boolean mask of these.
        integers: whether a layer takes integers as they are, as Embedding does; for others they are
            cast to its compute dtype.
        autocast: whether Keras casts the layer's float inputs to its dtype; if not, x comes as it
            is.
        takes_masks: whether the layer's call takes the masks off its tensors, as that of
            MultiHeadAttention does.
        gaps: for a layer or an operation, the object to words for each of its options that the
            rule does not derive: what depends on it is unjudged, with these words.

    Returns:
        A decorator that registers the function and returns it as it is.

    Raises:
        RuleDefinitionError: the target has a rule already, the arguments fit no kind, there are no
            cases, or a section of the docstring is missing.
    """

    def register(function: Callable) -> Callable:
        name = f"the rule {function.__name__} for {getattr(target, '__name__', target)}"
        arguments = tuple(inspect.signature(function).parameters)
        if arguments not in _KINDS:
            expected = " or ".join(f"({', '.join(known)})" for known in _KINDS)
            raise RuleDefinitionError(
                f"{name} takes ({', '.join(arguments)}); expected {expected}. Rename its arguments."
            )
        kind = _KINDS[arguments]
        if kind == "layer" and not issubclass(target, Layer):
            kind = "operation"
        missing = [s for s in _SECTIONS[kind] if s not in (function.__doc__ or "")]
        if missing:
            raise RuleDefinitionError(
                f"{name} has no section {', '.join(missing)} in its docstring. A reader checks the "
                "derivation there: add it."
            )
        if not cases:
            raise RuleDefinitionError(f"{name} has no cases, so nothing would check it. Add some.")
        if target in _RULES and not _runs_again(_RULES[target].function, function):
            raise RuleDefinitionError(
                f"{name}: {_RULES[target].function.__module__} has a rule for it already. "
                "Remove one of the two."
            )
        _RULES[target] = Rule(
            target,
            kind,
            function,
            tuple(cases),
            source,
            tuple(weights),
            None if options is None else tuple(options),
            tuple(slots),
            mask,
            integers,
            autocast,
            takes_masks,
            gaps,
        )
        return function

    return register


def _runs_again(present: Callable, function: Callable) -> bool:
    """Return whether a function takes its own place, as where a notebook's cell runs again."""
    own = (function.__module__, function.__qualname__)
    return own[0] == "__main__" and own == (present.__module__, present.__qualname__)


@contextmanager
def registered(changed: Rule) -> Iterator[None]:
    """Let a rule stand in the register for its target for a while, in place of any other."""
    present = _RULES.get(changed.target)
    _RULES[changed.target] = changed
    try:
        yield
    finally:
        if present is None:
            del _RULES[changed.target]
        else:
            _RULES[changed.target] = present


@functools.cache
def _discover() -> None:
    package = importlib.import_module("gradaudit.rules")
    for module in pkgutil.walk_packages(package.__path__, "gradaudit.rules."):
        importlib.import_module(module.name)


def all_rules() -> list[Rule]:
    """Return every registered rule, by kind and name."""
    _discover()
    return sorted(_RULES.values(), key=lambda known: (known.kind, known.name))


def find_rule(target: Any) -> Rule | None:
    """Return the rule for a Keras object, or None.

    target: an instance of a layer, loss, regularizer, optimizer or constraint, or a function. A
        subclass has no part in its parent's rule: what it overrides is not known.
    """
    _discover()
    return declared(target)


def declared(target: Any) -> Rule | None:
    """Return what `find_rule` does, among the rules of the modules that are imported by now."""
    if isinstance(target, functools.partial):
        target = target.func
    key = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    return _RULES.get(key)
