"""The Python values that a model's code may read while it is traced: a trace makes them constants.

They are those in reach of the model, its layers, losses and optimizer: attributes, lists and dicts,
attributes of classes, what functions hold from around them, and the globals that they name.
"""

import random
import types
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.python_parts import (
    PLAIN,
    Parts,
    attributes_of,
    digest,
    identity,
    imports_random,
    is_bag,
    is_users,
    member,
    name_of,
    named_in,
    names_random,
    parts_of,
    plain,
)

_LARGEST = 1 << 16
"""Bytes of the largest array that is put back: a layer may hold all the data."""
_MOST = 100_000
"""Most objects that are looked at: a layer may hold a table of data."""

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
            if isinstance(x, PLAIN):
                self.values[where] = type(x).__name__, plain(x)
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
            if mine.get(where, parts_of) != theirs.get(where, parts_of)
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
            self.values[where] = x.shape, x.dtype.str, digest(x)
            if x.nbytes <= _LARGEST and x.flags.writeable:
                self._keep_array(x)
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
                (f"{where}[{name_of(key, number)}]", part)
                for number, (key, part) in enumerate(list(x.items()))
            )
        elif isinstance(x, (list, tuple, deque)):
            if isinstance(x, list) and id(x) not in self._growing:
                self._keep_list(x)
            self.values[where] = len(x)
            yield from ((f"{where}[{i}]", part) for i, part in enumerate(x))
        elif isinstance(x, (set, frozenset)):
            if isinstance(x, set):
                self._keep_set(x)
            self.values[where] = tuple(sorted(map(member, x)))
        elif isinstance(x, type):
            self.values[where] = x.__module__, x.__qualname__
            self.names_random |= imports_random(x)
            if is_users(x.__module__):
                self._keep_class(x)
                yield from attributes_of(x, where)
        elif keras_compat.is_structural(x) or is_users(type(x).__module__) or is_bag(x):
            held = keras_compat.plain_attributes(x)
            if getattr(x, "built", True):
                self._keep_mapping(vars(x), frozenset(held)) if held else None
            else:  # it keeps what building gives it
                self._growing.update(map(id, held.values()))
            self.values[where] = identity(x), tuple(sorted(held))
            yield from ((f"type({where})", kind) for kind in type(x).__mro__)
            yield from ((f"{where}.{name}", part) for name, part in held.items())
        else:
            self.values[where] = identity(x)
            self.names_random |= names_random(x)
            if isinstance(x, types.FunctionType) and is_users(x.__module__ or ""):
                self._keep_outside(x)
            yield from parts_of(x, where)

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

    def _keep_set(self, held: set[Any]) -> None:
        before = set(held)

        def undo() -> None:
            held.intersection_update(before)
            held.update(before)

        self._undo.append(undo)

    def _keep_array(self, held: np.ndarray) -> None:
        before = held.copy()
        self._undo.append(lambda: np.copyto(held, before))

    def _keep_outside(self, function: types.FunctionType) -> None:
        """Note the plain values that a function may set: of the code around it, and globals."""
        names = function.__globals__
        globals_ = {name: names[name] for name in named_in(function.__code__) if name in names}
        globals_ = {name: part for name, part in globals_.items() if isinstance(part, PLAIN)}
        filled = [each for each in function.__closure__ or () if each != types.CellType()]
        cells = [(each, each.cell_contents) for each in filled]

        def undo() -> None:
            names.update(globals_)
            for cell, part in cells:
                if isinstance(part, PLAIN):
                    cell.cell_contents = part

        self._undo.append(undo)

    def _keep_class(self, kind: type) -> None:
        before = {name: part for name, part in vars(kind).items() if isinstance(part, PLAIN)}

        def undo() -> None:
            for name, part in before.items():
                if not name.startswith("__") and vars(kind).get(name) is not part:
                    setattr(kind, name, part)

        self._undo.append(undo)
