"""The register of rules: how a rule is declared, refused, and found."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from keras import Layer

from gradaudit.errors import RuleDefinitionError, UnsupportedModelError
from gradaudit.rules.declaration import Case, KeptLogits, Kind, Rule, UsedLogits

__all__ = ["Case", "Rule", "all_rules", "declared", "find_rule", "registered", "rule", "rule_for"]

_KINDS: dict[tuple[str, ...], Kind] = {
    ("call", "x"): "layer",
    ("call", "z"): "activation",
    ("call", "y_true", "y_pred"): "loss",
    ("call", "w"): "regularizer",
    ("call", "weight", "gradient", "slots"): "optimizer",
    ("call", "weight"): "constraint",
}
_SECTIONS: dict[Kind, tuple[str, ...]] = {
    "layer": ("Shapes:", "VJP:", "Kinks:"),
    "operation": ("Shapes:", "VJP:", "Kinks:"),
    "activation": ("Shapes:", "VJP:", "Kinks:"),
    "loss": ("Shapes:", "VJP:", "Kinks:"),
    "regularizer": ("Shapes:", "VJP:", "Kinks:"),
    "optimizer": ("Shapes:", "Update:"),
    "constraint": ("Shapes:",),
}


_RULES: dict[Any, Rule] = {}
_version = 0


def version() -> int:
    """Return a number that is another one after each change of the register."""
    _discover()
    return _version


def _register(target: Any, new: Rule | None) -> None:
    """Set the rule of a target, or remove it for None."""
    global _version
    _version += 1
    if new is None:
        del _RULES[target]
    else:
        _RULES[target] = new


def rule(
    target: Any,
    *,
    cases: Sequence[Case],
    source: str,
    weights: Sequence[str] = (),
    options: Sequence[str] | None = None,
    slots: Sequence[tuple[str, str]] = (),
    mask: Callable[..., Any] | None = None,
    integers: bool = False,
    autocast: bool = True,
    takes_masks: bool = False,
    gaps: Callable[[Any], list[str]] | None = None,
    ends_with_activation: bool = False,
    output_logits: Callable[[Any, int], KeptLogits | None] | None = None,
    assigns: Sequence[str] = (),
    uses_logits: Callable[[Mapping[str, Any]], UsedLogits | None] | None = None,
    weight_decay: Callable[[Any, Any], float | None] | None = None,
    elementwise: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the rule for a Keras class or function.

    The function's arguments say what it describes: `(call, x)` a layer, or an operation of
    keras.ops in a functional model, `(call, z)` an activation, `(call, y_true, y_pred)` a loss,
    `(call, w)` a regularizer, `(call, weight, gradient, slots)` an optimizer, `(call, weight)` a
    constraint. CONTRIBUTING.md has examples, and says what `call` can do.

    Args:
        target: the Keras class (or, for activations and losses, the function) that is described.
            A subclass needs a rule of its own.
        cases: configurations on which `gradaudit.testing.check_rule` checks the rule, at least one.
        source: the file that defines the target, for readers.
        weights: for a layer, the names of all variables that it may own itself, trained or not;
            a layer that owns another one is not judged. The variables of a part belong to the
            part's rule.
        options: for a loss or an activation, the keyword arguments of its function that the rule
            derives; another one that is not None is a gap. None for all.
        slots: for an optimizer, pairs of the name of a slot and the attribute that holds its
            variables: a list with one for each weight, or a single one for all.
        mask: for a layer with a compute_mask of its own, (call, x, mask) to the mask of its output:
            a boolean NumPy array, None, or a tuple of these for several outputs. By default the
            input's mask is passed on if the layer supports masking. For a loss that leaves elements
            out, (call, y_true, losses) to a boolean mask of the losses.
        integers: a layer takes integers as they are, as Embedding does; for other layers they are
            cast to the compute dtype.
        autocast: Keras casts the layer's float inputs to its dtype; if False, x comes as it is.
        takes_masks: the layer's call takes the masks off its tensors, as MultiHeadAttention does.
        gaps: for a layer or an operation, the object to one phrase for each of its options that
            the rule does not derive: what depends on it is not judged, and the phrase says why.
        ends_with_activation: for a layer, the rule ends with `call.activate(z)`. Where that is
            softmax or sigmoid, Keras keeps z, the logits, on the output, and some losses use them.
        output_logits: for a layer or an operation, (object, number of the output) to "input" where
            Keras keeps the input on that output as its logits, as for Softmax; to "unknown" where
            it keeps logits that the rule does not return, as for attention scores (a loss that
            uses logits is then not judged by rules); to None elsewhere.
        assigns: for a layer, the names of those trainable weights to which the rule assigns, as
            SpectralNormalization does to its kernel: the optimizer moves them on from there.
        uses_logits: for a loss, its keyword arguments to "takes" where Keras computes it from the
            logits of y_pred alone (the rule is then called with them and from_logits=True), to
            "reads" where it needs both (`call.logits`; the VJP returns the cotangents of both), to
            None where it needs y_pred alone.
        weight_decay: for an optimizer that does not decay weights as Keras's base class does,
            (optimizer, variable) to the decay of that weight, None for none.
        elementwise: for an optimizer, each element of the new weight and slots depends on that
            element alone, and on numbers that all share.

    Returns:
        A decorator that registers the function and returns it as it is.

    Raises:
        RuleDefinitionError: the target has a rule already, the arguments fit no kind, there are no
            cases, or a section of the docstring is missing.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
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
        new = Rule(
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
            ends_with_activation,
            output_logits,
            tuple(assigns),
            uses_logits,
            weight_decay,
            elementwise,
        )
        _register(target, new)
        return function

    return register


def _runs_again(present: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Return whether a function replaces itself, as when a notebook's cell runs again."""
    own = (function.__module__, function.__qualname__)
    return own[0] == "__main__" and own == (present.__module__, present.__qualname__)


@contextmanager
def registered(changed: Rule) -> Iterator[None]:
    """Register a rule for its target within a `with` block, in place of any other."""
    present = _RULES.get(changed.target)
    _register(changed.target, changed)
    try:
        yield
    finally:
        _register(changed.target, present)


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

    target: an instance of a layer, loss, regularizer, optimizer or constraint, or a function. The
        rule of a class does not cover its subclasses: what they override is not known.
    """
    _discover()
    return declared(target)


def rule_for(target: Any) -> Rule:
    """Return the rule for a Keras object that must have one; see `find_rule`.

    Raises:
        UnsupportedModelError: it has none.
    """
    found = find_rule(target)
    if found is None:
        raise UnsupportedModelError(
            f"{target!r} has no derived rule. Expected an object of Keras that `gradaudit rules` "
            "lists as derived. Register a rule with gradaudit.rule."
        )
    return found


def declared(target: Any) -> Rule | None:
    """Return what `find_rule` does, among the rules of the modules that are imported by now."""
    if isinstance(target, functools.partial):
        target = target.func
    key = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    return _RULES.get(key)
