"""Sets attributes on instances of Keras's classes, and puts back what was there.

The only place that does so. Keras tracks what is assigned to a model or an optimizer, and would
save it; an entry of `__dict__` passes its tracking.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def patch(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute of an instance; return a function that puts back what was there."""
    own = owner.__dict__
    present = {name: own[name]} if name in own else {}
    own[name] = value

    def undo() -> None:
        own.pop(name, None)
        own.update(present)

    return undo


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an instance within a block."""
    undo = patch(owner, name, value)
    try:
        yield
    finally:
        undo()
