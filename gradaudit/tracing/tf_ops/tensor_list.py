"""TensorFlow's list of tensors, as loops fill and read it."""

from collections.abc import Iterable, Sequence
from typing import Any


class TensorList(Sequence[Any]):
    """Values of one dtype, or cotangents; None stands for zeros, or for what was never set."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        return self._items[place]

    def __add__(self, other: "TensorList") -> "TensorList":
        """Return the sums of the cotangents in two lists."""
        return TensorList(map(_sum, self, other))

    def unset(self) -> "TensorList":
        """Return a list of this length in which nothing is set."""
        return TensorList([None] * len(self))

    def with_item(self, place: int, item: Any) -> "TensorList":
        """Return the list with another item at a place."""
        return TensorList([*self[:place], item, *self[place + 1 :]])


def _sum(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a + b
