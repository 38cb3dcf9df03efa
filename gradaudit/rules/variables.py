"""Names of variables."""

from collections.abc import Iterable
from typing import Any


def keyed(variables: Iterable[Any]) -> dict[str, Any]:
    """Return Keras variables by path, in their order; of a path's second the key ends in #2.

    An optimizer may call several of its variables alike, as Adafactor does with row and column.
    """
    found: dict[str, Any] = {}
    for variable in variables:
        key, count = variable.path, 1
        while key in found:
            count += 1
            key = f"{variable.path}#{count}"
        found[key] = variable
    return found
