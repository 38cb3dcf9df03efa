"""What an object is to the code that reads it, and what it holds; none of the user's code runs."""

import functools
import hashlib
import random
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradaudit import keras_compat

PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
_LIBRARIES = sys.stdlib_module_names | {
    *("gradaudit", "keras", "matplotlib", "numpy", "pandas", "pytest", "scipy", "tensorflow")
}

Parts = Iterator[tuple[str, Any]]


def plain(x: Any) -> str:
    """Return a plain value in words, by its own kind: a user's class may have a way of its own."""
    kind: Any = next(kind for kind in PLAIN if isinstance(x, kind))
    return str(kind.__repr__(x))


def name_of(key: Any, number: int) -> str:
    """Return how a key of a dict is called; number: its place. No code of the user's runs."""
    return plain(key) if type(key) in PLAIN else f"{type(key).__qualname__} {number}"


def member(x: Any) -> str:
    """Return what a member of a set is called."""
    return plain(x) if isinstance(x, PLAIN) else f"{type(x).__qualname__} {id(x)}"


def identity(x: Any) -> Any:
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


def parts_of(x: Any, where: str) -> Parts:
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
        if is_users(x.__module__ or ""):
            yield f"{where}.__defaults__", (x.__defaults__, x.__kwdefaults__)
            yield from _named(x.__code__, x.__globals__)


def imports_random(kind: type) -> bool:
    """Return whether the module of a class imports a random generator, as that of AugMix does."""
    module = sys.modules.get(kind.__module__)
    held = [] if module is None else [*vars(module).values()]
    return any(each is random or each is np.random for each in held)


def names_random(x: Any) -> bool:
    """Return whether a function draws from Python's or NumPy's generator, as far as names tell."""
    if (getattr(x, "__module__", None) or "").startswith(("random", "numpy.random")):
        return True
    if not isinstance(x, types.FunctionType) or not is_users(x.__module__ or ""):
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
            modules += [found] if is_users(found.__name__) else []
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


def named_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in code, and in the functions that it makes."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from named_in(inner)


def attributes_of(kind: type, where: str) -> Parts:
    """Yield the attributes of a class, and its methods."""
    for name, part in list(vars(kind).items()):
        if not name.startswith("__") or name in ("__call__", "__init__"):
            yield f"{where}.{name}", part


@functools.cache
def is_users(module: str) -> bool:
    """Return whether a module is none of the libraries that a model's code rests on."""
    return module.partition(".")[0] not in _LIBRARIES


def is_bag(x: Any) -> bool:
    """Return whether an object is nothing but its attributes."""
    return isinstance(x, types.SimpleNamespace)


def digest(x: np.ndarray) -> str:
    """Return a digest of the numbers of an array."""
    held = repr(x.tolist()).encode() if x.dtype.hasobject else x.tobytes()
    return hashlib.blake2b(held, digest_size=16).hexdigest()
