"""What the entry of an op is given besides the values of its inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Passed, Provenance
from gradaudit.rules.tape import Provenances
from gradaudit.tracing.graph import Op
from gradaudit.tracing.values import Value, by_convention, decided

if TYPE_CHECKING:
    from gradaudit.tracing.interpreter import Interpretation


@dataclass(frozen=True)
class Node:
    """An op in a run.

    op: with its attributes. run: which the op is part of.
    wanted: for each input, whether a gradient may go to it. read: for each output, whether an op
        or the caller reads it.
    """

    op: Op
    run: "Interpretation"
    wanted: Sequence[bool] = ()
    read: Sequence[bool] = ()
    _passed: set[Provenance] = field(default_factory=set)

    def attribute(self, name: str) -> Any:
        return self.op.attributes[name]

    @property
    def dtype(self) -> str:
        """The dtype of the first output."""
        return self.op.dtypes[0].name

    def array(self, value: Any) -> Array:
        """Return constants in the dtype of the first output."""
        return self.run.arithmetic.array(value, self.dtype)

    def numbers(self, x: Value) -> np.ndarray:
        """Return bare numbers, for decisions that do not depend on rounding."""
        return numbers(x)

    def zeros(self, shape: Sequence[int]) -> Value:
        """Return zeros as an item of the op's list."""
        dtype = self.attribute("element_dtype")
        return self.run.value(np.zeros(shape, dtype.as_numpy_dtype), dtype)

    def number(self, place: int, x: Value) -> float | None:
        """Return an input as a number if it is a scalar constant, else None."""
        return float(self.numbers(x)) if self.op.numbers[place] else None

    def whole(self, x: Value) -> np.ndarray:
        """Return integers or booleans as a bare array.

        Raises:
            UnsupportedModelError: they come from a comparison whose outcome depends on rounding.
        """
        return decided(self.op, x)

    def call(
        self, name: str, inputs: Sequence[Value], wanted: Sequence[bool] | None = None
    ) -> tuple[list[Value], Callable]:
        """Run a function of the graph; see Interpretation.run."""
        return self.run.run(self.op.function(name), inputs, wanted)

    def holds(self, name: str, inputs: Sequence[Value]) -> bool:
        """Return whether a condition holds that a function of the graph decides.

        No gradient passes. Other choices at ties are none of it: a loop might never end.
        """
        own = [by_convention(x, None) for x in inputs]
        outcome = self.run.by_own_choices().run(self.op.function(name), own, [False] * len(own))
        return bool(self.whole(outcome[0][0]).item())

    def passes(self, kind: Passed, detail: str = "") -> None:
        """Note what a cotangent passes in the op."""
        self._passed.add(self.op.provenance(kind, detail))

    def misleads(self, where: str = "", places: np.ndarray | None = None) -> None:
        """Note that TensorFlow's gradient of the op is not the derivative for such values.

        where: a clause, such as "where x is 0". places: a mask of the places of which that is true,
            so that the first is named; nothing is noted where it is none.
        """
        if places is not None:
            if not places.any():
                return
            first = np.argwhere(places)[0].tolist()
            where += f", as at {first}" if first else ""
        self.passes(Passed.MISLED, where)

    @property
    def provenance(self) -> Provenances:
        """What a cotangent passes in the op."""
        custom = self.op.custom_gradient
        return frozenset(self._passed if custom is None else {custom, *self._passed})

    def unsupported(self, what: str) -> UnsupportedModelError:
        return self.op.unsupported(what)
