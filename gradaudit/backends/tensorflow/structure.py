"""The structure of a Keras model as plain data, and back.

A step is judged by what the model was when the step was traced. So its structure is copied then:
layers, operations, the nodes of its graph, losses, optimizers and the metadata of variables, but no
value of a variable. Plain data can be written to a file; `restored` makes objects of the same
classes of it, with the same attributes. These answer what a derivation asks, and cannot be run.

An attribute that is not structure (a function, an object of the user's) is kept as it is, in
`Structure.live`. In a file it is a name, where it has one.
"""

import collections
import functools
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError

_PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Structure:
    """Objects as plain data.

    root: the encoded value that was asked for. objects: pairs of a place in `live`, of a class, and
    encoded attributes. arrays: numbers. live: classes, functions and whatever else is no structure.
    """

    root: Any
    objects: tuple[tuple[int, Any], ...]
    arrays: tuple[np.ndarray, ...]
    live: tuple[Any, ...]


class Missing:
    """Stands for what a file could not hold; whoever asks for more than its name is refused."""

    def __init__(self, name: str) -> None:
        vars(self)["name"] = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refusal()

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise self._refusal()

    def _refusal(self) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"the recorded step does not hold {vars(self)['name']}. Expected parts that have a "
            "derived rule. Judge the step in the process that trained.",
            GapCode.UNTRACEABLE,
            vars(self)["name"],
        )


def structure(root: Any) -> tuple[Structure, list[Any]]:
    """Return the structure of an object, and the originals of `Structure.objects`."""
    encoder = _Encoder()
    encoded = encoder.value(root)
    while encoder.waiting:
        encoder.encode(encoder.waiting.popleft())
    objects = tuple(encoder.objects[i] for i in range(len(encoder.originals)))
    found = Structure(encoded, objects, tuple(encoder.arrays), tuple(encoder.live))
    return found, encoder.originals


def restored(found: Structure) -> tuple[Any, list[Any]]:
    """Return the object that a structure describes, and all objects in the order of `objects`."""
    made = [_blank(found.live[place]) for place, _ in found.objects]
    decoder = _Decoder(found, made)
    for instance, (_, attributes) in zip(made, found.objects, strict=True):
        if not isinstance(instance, Missing):
            vars(instance).update(decoder.value(attributes))
    return decoder.value(found.root), made


def _blank(kind: Any) -> Any:
    return kind if isinstance(kind, Missing) else object.__new__(kind)


class _Encoder:
    def __init__(self) -> None:
        self.originals: list[Any] = []
        self.objects: dict[int, tuple[int, Any]] = {}
        self.arrays: list[np.ndarray] = []
        self.live: list[Any] = []
        self.waiting: collections.deque[int] = collections.deque()
        self._places: dict[int, int] = {}
        self._live_places: dict[int, int] = {}

    def encode(self, place: int) -> None:
        """Encode the attributes of an object."""
        original = self.originals[place]
        attributes = keras_compat.attributes(original)
        encoded = [[name, self.value(held)] for name, held in attributes.items()]
        self.objects[place] = self._live(type(original)), {"dict": encoded}

    def value(self, x: Any) -> Any:
        """Encode a value: plain ones as they are, others as a dict with one key, its kind."""
        if type(x) in _PLAIN:
            return x
        if isinstance(x, keras_compat.STRUCTURAL):
            return {"object": self._object(x)}
        if isinstance(x, np.ndarray | np.generic) or _is_eager(x):
            self.arrays.append(np.array(x))
            return {"array": len(self.arrays) - 1}
        if isinstance(x, functools.partial):
            return {"partial": [self.value(part) for part in (x.func, x.args, x.keywords)]}
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return {"named": [self._live(type(x)), [self.value(part) for part in x]]}
        for kind, name in ((tuple, "tuple"), (list, "list"), (frozenset, "frozenset")):
            if isinstance(x, kind):
                return {name: [self.value(part) for part in x]}
        if isinstance(x, set):
            return {"set": [self.value(part) for part in x]}
        if isinstance(x, Mapping):
            return {"dict": [[self.value(key), self.value(held)] for key, held in x.items()]}
        if isinstance(x, slice):
            return {"slice": [self.value(part) for part in (x.start, x.stop, x.step)]}
        if x is Ellipsis:
            return {"ellipsis": None}
        return {"live": self._live(x)}

    def _object(self, x: Any) -> int:
        if id(x) not in self._places:
            self._places[id(x)] = len(self.originals)
            self.originals.append(x)
            self.waiting.append(self._places[id(x)])
        return self._places[id(x)]

    def _live(self, x: Any) -> int:
        if id(x) not in self._live_places:
            self._live_places[id(x)] = len(self.live)
            self.live.append(x)
        return self._live_places[id(x)]


class _Decoder:
    def __init__(self, found: Structure, made: list[Any]) -> None:
        self._found, self._made = found, made

    def value(self, encoded: Any) -> Any:
        if not isinstance(encoded, dict):
            return encoded
        ((kind, held),) = encoded.items()
        return getattr(self, f"_{kind}")(held)

    def _all(self, held: Iterable[Any]) -> list[Any]:
        return [self.value(part) for part in held]

    def _object(self, place: int) -> Any:
        return self._made[place]

    def _array(self, place: int) -> np.ndarray:
        return self._found.arrays[place]

    def _live(self, place: int) -> Any:
        return self._found.live[place]

    def _partial(self, held: list[Any]) -> Any:
        function, arguments, keywords = self._all(held)
        return functools.partial(function, *arguments, **keywords)

    def _named(self, held: list[Any]) -> Any:
        return self._found.live[held[0]](*self._all(held[1]))

    def _tuple(self, held: list[Any]) -> tuple:
        return tuple(self._all(held))

    def _list(self, held: list[Any]) -> list[Any]:
        return self._all(held)

    def _set(self, held: list[Any]) -> set[Any]:
        return set(self._all(held))

    def _frozenset(self, held: list[Any]) -> frozenset[Any]:
        return frozenset(self._all(held))

    def _dict(self, held: list[Any]) -> dict[Any, Any]:
        return {self.value(key): self.value(value) for key, value in held}

    def _slice(self, held: list[Any]) -> slice:
        return slice(*self._all(held))

    def _ellipsis(self, held: None) -> types.EllipsisType:
        return Ellipsis


def _is_eager(x: Any) -> bool:
    return isinstance(x, tf.Tensor) and not tf.is_symbolic_tensor(x) and x.dtype != tf.resource
