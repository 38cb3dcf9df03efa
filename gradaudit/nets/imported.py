"""Imports the function that builds a user's own net."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from gradaudit.errors import UnknownNameError, UsageError


def import_build(name: str) -> Callable[[], Any]:
    """Return the function that `package.module:function` names; the working folder is searched.

    Raises:
        UsageError: the name has another form, or the module cannot be imported.
        UnknownNameError: the module has no such function.
    """
    module_name, _, function = name.partition(":")
    if not module_name or not function.isidentifier():
        raise UsageError(
            f"the model {name!r} is not of the form package.module:function, such as nets:build."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the module {error.name!r} was not found while importing {name!r}. Expected a "
            "module in the working folder or among the installed packages."
        ) from error
    except Exception as error:
        raise UsageError(
            f"the module {module_name!r} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    build = getattr(module, function, None)
    if not callable(build):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise UnknownNameError(f"function in {module_name}", function, known)
    return build
