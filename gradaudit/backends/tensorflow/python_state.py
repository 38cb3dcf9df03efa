"""The Python values that a model's code may read while it is traced: a trace makes them constants.

They are those in reach of the model, its layers, losses and optimizer: attributes, lists and dicts,
attributes of classes, what functions hold from around them, and the globals that they name.
"""

import functools
import hashlib
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
_LIBRARIES = sys.stdlib_module_names | {
    *("gradaudit", "keras", "matplotlib", "numpy", "pandas", "pytest", "scipy", "tensorflow")
}
_MOST = 100_000
"""Most objects that are looked at: a layer may hold a table of data."""

Parts = Iterator[tuple[str, Any]]

Changes = frozenset[tuple[str, Any]]
"""What differs between two moments: each place, with what is there at the later one."""


class PythonState:
    """The values at one moment.

    values: what each is, by where it is, such as "model.layers[1].beta": hashable. What is met in
    a second place is there as the name of the first.
    """

    def __init__(self, model: keras.Model) -> None:
        self.values: dict[str, Any] = {}
        self._undo: list[Callable[[], None]] = []
        self._rewind: list[Callable[[], None]] = []
        self._generators: set[str] = set()
        self.names_random = False
        self._seen: dict[int, tuple[str, Any]] = {}
        self._growing: set[int] = set()
        waiting: deque[tuple[str, Any]] = deque([("model", model)])
        while waiting and len(self._seen) < _MOST:
            where, x = waiting.popleft()
            if isinstance(x, _PLAIN):
                self.values[where] = type(x).__name__, _plain(x)
            elif id(x) in self._seen:
                self.values[where] = "is", self._seen[id(x)][0]
            else:
                self._seen[id(x)] = where, x
                waiting.extend(self._parts(where, x))

    def changed(self, since: "PythonState") -> frozenset[str]:
        """Return where there are other values than at an earlier moment."""
        mine, theirs = self.values, since.values
        return frozenset(
            where
            for where in mine.keys() | theirs.keys()
            if mine.get(where, _parts_of) != theirs.get(where, _parts_of)
        )

    def changes(self, since: "PythonState") -> Changes:
        """Return what is other than at an earlier moment, with what it is now."""
        return frozenset((where, self.values.get(where)) for where in self.changed(since))

    def has_drawn(self, since: "PythonState") -> bool:
        """Return whether a generator that the code holds has drawn since an earlier moment."""
        return bool(self.changed(since) & self._generators)

    @property
    def may_draw(self) -> bool:
        """Whether the code in reach holds a random generator, or names one of Python's or NumPy's.

        NumPy's module counts where the code names "random", too.
        """
        return bool(self._generators) or self.names_random

    def put_back(self) -> None:
        """Give everything the values of this moment, but what was not built then."""
        for undo in (*self._undo, *self._rewind):
            undo()

    def rewind(self) -> None:
        """Give the random generators that the code holds their states of this moment."""
        for rewind in self._rewind:
            rewind()

    def _parts(self, where: str, x: Any) -> Parts:
        """Yield what is in an object; note what is known of it otherwise."""
        if isinstance(x, np.ndarray):
            self.values[where] = x.shape, x.dtype.str, _digest(x)
        elif isinstance(x, tf.Tensor):
            self.values[where] = "symbolic" if tf.is_symbolic_tensor(x) else id(x)
        elif isinstance(x, random.SystemRandom):
            pass  # draws from the machine, and has no state
        elif isinstance(x, (np.random.Generator, np.random.RandomState, random.Random)):
            self._generators.add(where)
            self.values[where] = repr(self._state(x))
        elif isinstance(x, dict):
            if id(x) not in self._growing:
                self._keep_mapping(x)
            self.values[where] = len(x)
            yield from (
                (f"{where}[{_name(key, number)}]", part)
                for number, (key, part) in enumerate(list(x.items()))
            )
        elif isinstance(x, (list, tuple, deque)):
            if isinstance(x, list) and id(x) not in self._growing:
                self._keep_list(x)
            self.values[where] = len(x)
            yield from ((f"{where}[{i}]", part) for i, part in enumerate(x))
        elif isinstance(x, (set, frozenset)):
            self.values[where] = tuple(sorted(map(_member, x)))
        elif isinstance(x, type):
            self.values[where] = x.__module__, x.__qualname__
            if _is_users(x.__module__):
                self._keep_class(x)
                yield from _code(x, where)
        elif keras_compat.is_structural(x) or _is_users(type(x).__module__) or _is_bag(x):
            held = keras_compat.plain_attributes(x)
            if getattr(x, "built", True):
                self._keep_mapping(vars(x), frozenset(held)) if held else None
            else:  # it keeps what building gives it
                self._growing.update(map(id, held.values()))
            self.values[where] = _identity(x), tuple(sorted(held))
            yield from ((f"type({where})", kind) for kind in type(x).__mro__)
            yield from ((f"{where}.{name}", part) for name, part in held.items())
        else:
            self.values[where] = _identity(x)
            self.names_random |= _names_random(x)
            yield from _parts_of(x, where)

    def _state(self, generator: Any) -> Any:
        if isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            state: Any = bits.state
            self._rewind.append(lambda: setattr(bits, "state", state))
        elif isinstance(generator, np.random.RandomState):
            state = generator.get_state()
            self._rewind.append(lambda: generator.set_state(state))
        else:
            state = generator.getstate()
            self._rewind.append(lambda: generator.setstate(state))
        return state

    def _keep_mapping(
        self, held: MutableMapping[Any, Any], names: frozenset[str] | None = None
    ) -> None:
        """Note what is in a dict, or in those places of the attributes of an object."""
        held = getattr(held, "__wrapped__", held)  # past TensorFlow's proxies, which track
        before = {name: part for name, part in held.items() if names is None or name in names}

        def undo() -> None:
            for name in [*held] if names is None else []:
                if name not in before:
                    del held[name]
            for name, part in before.items():
                if name not in held or held[name] is not part:
                    held[name] = part

        self._undo.append(undo)

    def _keep_list(self, held: list[Any]) -> None:
        before = list(held)

        def undo() -> None:
            if [*map(id, held)] != [*map(id, before)]:
                held[:] = before

        self._undo.append(undo)

    def _keep_class(self, kind: type) -> None:
        before = {name: part for name, part in vars(kind).items() if isinstance(part, _PLAIN)}

        def undo() -> None:
            for name, part in before.items():
                if not name.startswith("__") and vars(kind).get(name) is not part:
                    setattr(kind, name, part)

        self._undo.append(undo)


def _plain(x: Any) -> str:
    """Return a plain value in words, by its own kind: a user's class may have a way of its own."""
    kind: Any = next(kind for kind in _PLAIN if isinstance(x, kind))
    return str(kind.__repr__(x))


def _name(key: Any, number: int) -> str:
    """Return how a key of a dict is called; number: its place. No code of the user's runs."""
    return _plain(key) if type(key) in _PLAIN else f"{type(key).__qualname__} {number}"


def _member(x: Any) -> str:
    return _plain(x) if isinstance(x, _PLAIN) else f"{type(x).__qualname__} {id(x)}"


def _identity(x: Any) -> Any:
    """Return what tells an object from another one in its place, by its parts aside.

    A function is its code. Methods and partial functions, made anew each time, are their parts.
    """
    if isinstance(x, types.FunctionType):
        return x.__module__, x.__code__
    kind = type(x)
    named = kind.__module__, kind.__qualname__
    if keras_compat.is_structural(x) or isinstance(x, tf.Variable):
        return *named, id(x)
    if isinstance(x, (types.BuiltinFunctionType, np.ufunc)):
        return *named, x.__name__
    return named


def _parts_of(x: Any, where: str) -> Parts:
    """Yield what a function holds, and the globals that it names."""
    if isinstance(x, types.MethodType):
        yield where, x.__func__
        yield f"{where}.__self__", x.__self__
    elif isinstance(x, functools.partial):
        yield from ((where, x.func), (f"{where}.args", x.args), (f"{where}.keywords", x.keywords))
    elif isinstance(x, (staticmethod, classmethod)):
        yield where, x.__func__
    elif isinstance(x, property):
        yield where, x.fget
    elif isinstance(x, types.FunctionType):
        for cell, name in zip(x.__closure__ or (), x.__code__.co_freevars, strict=True):
            if cell != types.CellType():
                yield f"{where}.{name}", cell.cell_contents
        if _is_users(x.__module__ or ""):
            yield f"{where}.__defaults__", (x.__defaults__, x.__kwdefaults__)
            yield from _named(x.__code__, x.__globals__)


def _names_random(x: Any) -> bool:
    """Return whether a function draws from Python's or NumPy's generator, as far as names tell."""
    if (getattr(x, "__module__", None) or "").startswith(("random", "numpy.random")):
        return True
    if not isinstance(x, types.FunctionType) or not _is_users(x.__module__ or ""):
        return False
    names = x.__code__.co_names
    if "rvs" in names:  # of SciPy's distributions, which draw from NumPy's
        return True
    named = [x.__globals__.get(name) for name in names]
    modules = [part.__name__ for part in named if isinstance(part, types.ModuleType)]
    return any(
        name in ("random", "numpy.random") or (name == "numpy" and "random" in names)
        for name in modules
    )


def _named(code: types.CodeType, names: dict[str, Any]) -> Parts:
    """Yield the globals that code names, and what it may name of the user's own modules."""
    modules = []
    for name in code.co_names:
        found = names.get(name)
        if isinstance(found, types.ModuleType):
            modules += [found] if _is_users(found.__name__) else []
        elif found is not None:
            yield f"{names.get('__name__')}.{name}", found
    for module in modules:
        yield from (
            (f"{module.__name__}.{name}", vars(module)[name])
            for name in code.co_names
            if name in vars(module)
        )
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _named(inner, names)


def _code(kind: type, where: str) -> Parts:
    """Yield the attributes of a class, and its methods."""
    for name, part in list(vars(kind).items()):
        if not name.startswith("__") or name in ("__call__", "__init__"):
            yield f"{where}.{name}", part


@functools.cache
def _is_users(module: str) -> bool:
    """Return whether a module is none of the libraries that a model's code rests on."""
    return module.partition(".")[0] not in _LIBRARIES


def _is_bag(x: Any) -> bool:
    return isinstance(x, types.SimpleNamespace)


def _digest(x: np.ndarray) -> str:
    held = repr(x.tolist()).encode() if x.dtype.hasobject else x.tobytes()
    return hashlib.blake2b(held, digest_size=16).hexdigest()
