"""The structure of a Keras model as plain data, and back.

A step is judged by what the model was when the step was traced. So its structure is copied then:
layers, operations, the nodes of its graph, losses, optimizers and the metadata of variables, but no
value of a variable. Plain data can be written to a file; `restored` makes objects of the same
classes of it, with the same attributes. These answer what a derivation asks, and cannot be run.

An attribute that is not structure (a function, an object of the user's) is kept as it is, in
`Structure.live`. In a file it is a name, where it has one.

`restored` calls no class and no function that plain data names: objects and named tuples are made
without their constructors.
"""

import collections
import enum
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 by name once it is imported
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError

_PLAIN = (type(None), bool, int, float, str)
_RAW = "biufcmMSUV"
"""Kinds of dtypes whose arrays are bytes; others hold addresses."""


@dataclass(frozen=True)
class Structure:
    """Objects as plain data.

    root: the encoded value that was asked for.
    objects: pairs. For an object of a model, a place in `live`, of its class, and pairs of a name
        and an encoded attribute. For a container, its kind ("list", "set", "dict") and its encoded
        parts. Containers are among the objects since they may be shared, or hold themselves.
    arrays: numbers. live: classes, functions and whatever else is no structure.
    """

    root: Any
    objects: tuple[tuple[int | str, Any], ...]
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
            "derived rule. Judge the step in the process that trained, or build the model for it "
            "(gradaudit judge --model).",
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
    """Return the object that a structure describes, and all objects in the order of `objects`.

    Raises:
        ValueError, TypeError or LookupError: `structure` made no such plain data.
    """
    made = [_blank(kind, found.live) for kind, _ in found.objects]
    decoder = _Decoder(found, made)
    for instance, (kind, held) in zip(made, found.objects, strict=True):
        if not isinstance(instance, Missing):
            decoder.fill(instance, kind, held)
    return decoder.value(found.root), made


def dtype_name(dtype: np.dtype) -> str | None:
    """Return by which name NumPy knows a dtype; None where an array of it is not plain bytes."""
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.kind not in _RAW:
        return None
    for name in (dtype.str, dtype.name):  # that of bfloat16 is "<V2", which is raw bytes
        try:
            if np.dtype(name) == dtype:
                return name
        except TypeError:  # np.dtype knows dtype.str alone, as "|V8", or dtype.name alone
            continue
    return None


def dtype_of(name: str) -> np.dtype:
    """Return the dtype that `dtype_name` named.

    Raises:
        ValueError or TypeError: it names none.
    """
    dtype = np.dtype(_checked(name, str))
    if dtype_name(dtype) is None:
        raise ValueError(f"{name!r} is no dtype of plain bytes")
    return dtype


def _checked(x: Any, *kinds: type) -> Any:
    if type(x) not in kinds:
        raise TypeError(f"{x!r} is no {' or '.join(kind.__name__ for kind in kinds)}")
    return x


def _blank(kind: Any, live: tuple[Any, ...]) -> Any:
    """Return an object of a class of a structure, without attributes, or an empty container."""
    if isinstance(kind, str):
        return {"list": list, "set": set, "dict": dict}[kind]()
    own = live[kind]
    if isinstance(own, Missing):
        return own
    if not (isinstance(own, type) and issubclass(own, keras_compat.STRUCTURAL)):
        raise ValueError(f"{own!r} is no class of a model's structure")
    return object.__new__(own)


class _Encoder:
    def __init__(self) -> None:
        self.originals: list[Any] = []
        self.objects: dict[int, tuple[int | str, Any]] = {}
        self.arrays: list[np.ndarray] = []
        self.live: list[Any] = []
        self.waiting: collections.deque[int] = collections.deque()
        self._places: dict[int, int] = {}
        self._live_places: dict[int, int] = {}

    def encode(self, place: int) -> None:
        """Encode the attributes of an object, or the parts of a container."""
        original = self.originals[place]
        if isinstance(original, keras_compat.STRUCTURAL):
            attributes = keras_compat.attributes(original).items()
            pairs = [[name, self.value(held)] for name, held in attributes]
            self.objects[place] = self._live(type(original)), pairs
        elif isinstance(original, Mapping):
            items = [[self.value(key), self.value(held)] for key, held in original.items()]
            self.objects[place] = "dict", items
        else:
            kind = "set" if isinstance(original, set) else "list"
            self.objects[place] = kind, self._all(original)

    def value(self, x: Any) -> Any:
        """Encode a value: plain ones as they are, others as a dict with one key, its kind."""
        if type(x) in _PLAIN:
            return x
        if isinstance(x, (*keras_compat.STRUCTURAL, list, set, Mapping)):
            return {"object": self._object(x)}
        if isinstance(x, np.generic):
            return {"scalar": self._array(x)}
        if isinstance(x, np.ndarray) or _is_eager(x):
            return {"array": self._array(x)}
        if isinstance(x, enum.Enum) and x.name in type(x).__members__:
            return {"enum": [self._live(type(x)), x.name]}
        if isinstance(x, functools.partial):
            return {"partial": self._all((x.func, x.args, tuple(x.keywords.items())))}
        if isinstance(x, tf.TensorShape):
            return {"tensor_shape": None if x.rank is None else x.as_list()}
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return {"named": [self._live(type(x)), self._all(x)]}
        if isinstance(x, tuple):
            return {"tuple": self._all(x)}
        if isinstance(x, frozenset):
            return {"frozenset": self._all(x)}
        if isinstance(x, slice):
            return {"slice": self._all((x.start, x.stop, x.step))}
        if isinstance(x, range):
            return {"range": [x.start, x.stop, x.step]}
        if isinstance(x, tf.DType):
            return {"tensorflow_dtype": x.name}
        if isinstance(x, np.dtype) and dtype_name(x) is not None:
            return {"dtype": dtype_name(x)}
        if type(x) is complex:
            return {"complex": [x.real, x.imag]}
        if type(x) is bytes:
            return {"bytes": x.decode("latin-1")}
        if x is Ellipsis:
            return {"ellipsis": None}
        return {"live": self._live(x)}

    def _all(self, parts: Iterable[Any]) -> list[Any]:
        return [self.value(part) for part in parts]

    def _array(self, x: Any) -> int:
        self.arrays.append(np.array(x))
        return len(self.arrays) - 1

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
    """Makes values of plain data, which may come from a file that anybody wrote."""

    def __init__(self, found: Structure, made: list[Any]) -> None:
        self._found = found
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "object": made.__getitem__,
            "array": found.arrays.__getitem__,
            "scalar": lambda place: found.arrays[place][()],
            "live": found.live.__getitem__,
            "enum": self._enum,
            "partial": self._partial,
            "tensor_shape": tf.TensorShape,
            "named": self._named,
            "tuple": lambda held: tuple(self._all(held)),
            "frozenset": lambda held: frozenset(self._all(held)),
            "slice": lambda held: slice(*self._all(held)),
            "range": lambda held: range(*held),
            "tensorflow_dtype": lambda name: tf.as_dtype(_checked(name, str)),
            "dtype": dtype_of,
            "complex": lambda held: complex(*(_checked(part, float) for part in held)),
            "bytes": lambda text: _checked(text, str).encode("latin-1"),
            "ellipsis": lambda held: Ellipsis,
        }

    def value(self, encoded: Any) -> Any:
        if not isinstance(encoded, dict):
            return _checked(encoded, *_PLAIN)
        ((kind, held),) = encoded.items()
        return self._kinds[kind](held)

    def fill(self, instance: Any, kind: int | str, held: list[Any]) -> None:
        """Give an object its attributes, or a container its parts."""
        if kind == "list":
            instance.extend(self._all(held))
        elif kind == "set":
            instance.update(self._all(held))
        elif kind == "dict":
            instance.update((self.value(key), self.value(part)) for key, part in held)
        else:
            vars(instance).update((_checked(name, str), self.value(part)) for name, part in held)

    def _all(self, held: list[Any]) -> list[Any]:
        return [self.value(part) for part in _checked(held, list)]

    def _partial(self, held: list[Any]) -> Any:
        function, arguments, keywords = self._all(held)
        return functools.partial(function, *arguments, **dict(keywords))

    def _named(self, held: list[Any]) -> Any:
        place, parts = held
        kind, values = self._found.live[place], self._all(parts)
        if isinstance(kind, Missing):
            return kind
        if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
            raise ValueError(f"{kind!r} is no class of named tuples")
        if len(values) != len(kind._fields):
            raise ValueError(f"{kind!r} has {len(kind._fields)} fields, not {len(values)}")
        return tuple.__new__(kind, values)

    def _enum(self, held: list[Any]) -> Any:
        place, name = held
        kind = self._found.live[place]
        if isinstance(kind, Missing):
            return kind
        if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
            raise ValueError(f"{kind!r} is no enumeration")
        return kind.__members__[name]


def _is_eager(x: Any) -> bool:
    plain = isinstance(x, tf.Tensor) and not tf.is_symbolic_tensor(x)
    return plain and x.dtype not in (tf.resource, tf.variant)
