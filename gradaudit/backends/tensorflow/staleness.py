"""What a compiled function still does, and what the model's code says now."""

from collections.abc import Iterator
from typing import Any

import keras

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.graph_form import Form, Piece

_MOST = 5
"""Most differences that are told of one trace: the first one often makes the others."""
_LONGEST = 400


def brief(error: Exception) -> str:
    """Return an error in one line: Keras's may hold all values of a variable."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def differences(model: keras.Model, compiled: Form, now: Form) -> tuple[str, ...]:
    """Return in words how a compiled function differs from a trace of the model's code now.

    The variables that only one of the two assigns to, the constants that differ, and, where there
    are none, the first ops that only one of the two has.
    """
    if compiled.key == now.key:
        return ()
    words = list(_assigned(model, compiled, now))  # what else differs follows from it
    words = words or list(_constants(model, compiled, now))
    words = words or list(_operations(model, compiled, now))
    words = words or ["the compiled step has other ops than the model's code makes now"]
    words = list(dict.fromkeys(words))
    more = [f"and {len(words) - _MOST} more"] if len(words) > _MOST else []
    return (*words[:_MOST], *more)


def drawn(model: keras.Model, compiled: Form, again: Form) -> tuple[str, ...]:
    """Return in words which constants are random numbers.

    again: the form of the same code, traced when its generators had gone on.
    """
    pairs = list(_pairs(compiled, again))
    words = [
        "numbers drawn from NumPy or Python while the step is traced are a constant of it, the "
        f"same in each step: {_number(held)}{_where(model, piece)}. Draw with keras.random and a "
        "keras.random.SeedGenerator"
        for piece, _ in pairs
        if (held := piece.constant) is not None
    ]
    if compiled.key != again.key and not words:
        words = ["numbers drawn from NumPy or Python while the step is traced decide what it does"]
    return tuple(words[:_MOST])


def _assigned(model: keras.Model, compiled: Form, now: Form) -> Iterator[str]:
    weights, others = _variables(model)
    for handle, variable in weights.items():
        if handle in compiled.assigned - now.assigned:
            why = "which the model's code does not now"
            if not variable.trainable:
                why = "which is frozen now (trainable=False)"
            yield f"the compiled step moves {variable.path}, {why}: compile the model again"
        if handle in now.assigned - compiled.assigned:
            yield (
                f"the compiled step does not move {variable.path}, which the model's code moves "
                "now: compile the model again"
            )
    if not (compiled.assigned ^ now.assigned) & weights.keys():
        for handle, path in others.items():
            if handle in compiled.assigned - now.assigned:
                yield f"the compiled step assigns to {path}, and the model's code does not now"
            if handle in now.assigned - compiled.assigned:
                yield f"the compiled step does not assign to {path}, and the model's code does now"


def _variables(model: keras.Model) -> tuple[dict[int, Any], dict[int, str]]:
    """Return a model's weights, and the paths of its other variables, by the ids of handles."""
    strategy = model.distribute_strategy
    weights: dict[int, Any] = {}
    others: dict[int, str] = {}
    for variable in model.weights:
        for local in strategy.experimental_local_results(variable.value):
            weights[id(local.handle)] = variable
    optimizer = [] if model.optimizer is None else model.optimizer.variables
    for variable in (*model.variables, *model.metrics_variables, *optimizer):
        for local in strategy.experimental_local_results(variable.value):
            others[id(local.handle)] = variable.path
    return weights, {handle: path for handle, path in others.items() if handle not in weights}


def _constants(model: keras.Model, compiled: Form, now: Form) -> Iterator[str]:
    for old, new in _pairs(compiled, now):
        used = _used(compiled, old)
        yield (
            f"the compiled step {used} {_number(old.constant)} where the model's code now has "
            f"{_number(new.constant)}{_where(model, new)}"
        )


def _pairs(compiled: Form, now: Form) -> Iterator[tuple[Piece, Piece]]:
    """Yield constants of a compiled function with those that stand in their place now.

    Where both have the same ops in the same order, these are the places; else the ops' names are.
    """
    kinds = [[piece.operation.type for piece in form.pieces] for form in (compiled, now)]
    if kinds[0] == kinds[1]:
        found = list(zip(compiled.pieces, now.pieces, strict=True))
    else:
        places = {piece.operation.name: piece for piece in _first(now, compiled)}
        found = [
            (piece, places[piece.operation.name])
            for piece in _first(compiled, now)
            if piece.operation.name in places
        ]
    for old, new in found:
        if old.operation.type == new.operation.type == "Const" and old.key != new.key:
            yield old, new


def _operations(model: keras.Model, compiled: Form, now: Form) -> Iterator[str]:
    for mine, other, words in (
        (compiled, now, "the compiled step has {} that the model's code does not have now"),
        (now, compiled, "the compiled step does not have {} that the model's code has now"),
    ):
        for piece in _first(mine, other):
            value = piece.constant
            what = f"the op {piece.operation.type}"
            if value is not None:
                what = f"the constant {_number(value)}"
            if piece.place.file:  # not one of a library's own, which follow
                yield words.format(f"{what}{_where(model, piece)}")


def _first(mine: Form, other: Form) -> list[Piece]:
    """Return the ops that only one of two functions has, of which the other has all operands."""
    known = set(mine.given)
    only = []
    for piece in mine.pieces:
        if piece.key in other.keys:
            known.update(piece.makes)
        else:
            only.append(piece)
    return [piece for piece in only if known.issuperset(piece.reads)]


def _used(form: Form, constant: Piece) -> str:
    kinds = {p.operation.type for p in form.pieces if set(constant.makes) & set(p.reads)}
    verbs = {"Mul": "multiplies by", "AddV2": "adds", "Sub": "subtracts", "RealDiv": "divides by"}
    own = [verb for kind, verb in verbs.items() if kind in kinds]
    return f"{own[0]} the constant" if len(own) == 1 else "holds the constant"


def _number(value: Any) -> str:
    if value is None:
        return "another value"
    if value.size == 1:
        return str(value.ravel()[0])
    first = ", ".join(str(number) for number in value.ravel()[:3])
    return f"[{first}, ...] of shape {value.shape}"


def _where(model: keras.Model, piece: Piece) -> str:
    names = {layer.name for layer in keras_compat.all_layers(model)} - {model.name}
    layer = next((part for part in reversed(piece.scope) if part in names), "")
    scope = "/".join(piece.scope[-2:])
    words = f" in layer {layer!r}" if layer else f" in {scope!r}" if scope else ""
    place = piece.place
    return words + (f" at {place}" if place.file else "")
