"""Operations on the tensors of a step, recorded on a tape."""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from gradaudit.numerics import numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.graph import is_float
from gradaudit.reference.state import State
from gradaudit.rules.tape import Gradients, Provenances, Tape

Vjp = Callable[[Array], Array]


@dataclass
class Operations(State):
    """A run of a step in one arithmetic, with the tape of its operations."""

    _gradients: Gradients = field(default_factory=Gradients, init=False)
    _tape: Tape = field(init=False)

    def __post_init__(self) -> None:
        self._tape = Tape(self._gradients)

    @property
    def cotangents(self) -> dict[str, Array]:
        """Those of the trainable variables, by path; complete after `backward`."""
        return self._gradients.totals()

    @property
    def provenance(self) -> dict[str, Provenances]:
        """What the cotangent of each variable passed, by path; complete after `backward`."""
        return self._gradients.provenance

    def backward(self) -> None:
        """Carry every cotangent back to the variables. The tape is used up on the way."""
        self._tape.backward()

    def record(
        self,
        xs: Sequence[Tensor],
        values: Sequence[Array],
        dtype: str | Sequence[str],
        vjp: Callable[..., Sequence[Array | None]],
        passed: Provenances = frozenset(),
    ) -> list[Tensor]:
        """Return the tensors that one operation made of others.

        dtype: that of all floats among them, or of each. vjp: takes a cotangent for each of them
        and returns one for each of xs; those for integers, or None, are dropped. passed: what a
        cotangent passes in the operation.
        """
        dtypes = [dtype] * len(values) if isinstance(dtype, str) else dtype
        ys = [Tensor(v, _dtype(v, d)) for v, d in zip(values, dtypes, strict=True)]
        self._tape.record([x if is_float(x.dtype) else None for x in xs], ys, vjp, passed)
        return ys

    def apply(self, x: Tensor, found: tuple[Array, Vjp], dtype: str) -> Tensor:
        """Return the tensor that an operation made of x; found is its value and the VJP to x."""
        value, vjp = found
        (y,) = self.record([x], [value], dtype, lambda dy: (vjp(dy),))
        return y

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return x after the framework's cast to a dtype."""
        if dtype == x.dtype:
            return x  # the very tensor, with its logits: a cast hides them
        if not is_float(dtype):
            bare = numbers(x.value)
            whole = bare != 0 if dtype == "bool" else np.trunc(bare)
            return Tensor(whole.astype(dtype), dtype, mask=x.mask)
        if not is_float(x.dtype):
            exact = self.arithmetic.array(numbers(x.value), "float64")
            return Tensor(self.arithmetic.cast(exact, dtype), dtype, mask=x.mask)
        value = self.arithmetic.cast(x.value, dtype)
        y = self.apply(x, (value, lambda dy: self.arithmetic.cast(dy, x.dtype)), dtype)
        y.mask = x.mask
        return y

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """Return x times a constant of its dtype."""
        constant = self.arithmetic.array(factor, x.dtype)
        return self.apply(x, (x.value * constant, lambda dy: dy * constant), x.dtype)

    def total(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the sum of scalars of one dtype."""
        value = functools.reduce(operator.add, (term.value for term in terms))
        (y,) = self.record(terms, [value], terms[0].dtype, lambda dy: [dy] * len(terms))
        return y

    def of_rank(self, rank: int, x: Tensor) -> Tensor:
        """Add or drop a last axis of length 1, so that x has the rank of a model's Input."""
        shape = x.value.shape
        if len(shape) == rank:
            return x
        wanted = (*shape, 1) if len(shape) < rank else shape[:-1]
        if not is_float(x.dtype):
            return Tensor(x.value.reshape(wanted), x.dtype, mask=x.mask)
        y = self.apply(x, (x.value.reshape(wanted), lambda dy: dy.reshape(shape)), x.dtype)
        y.mask = x.mask
        return y

    def tensor(self, leaf: Any) -> Tensor:
        """Return a variable, or an array of constants, as a tensor of this run."""
        if isinstance(leaf, keras.Variable):
            return self.of_variable(leaf, self.read(leaf, leaf.dtype), lambda dy: dy)
        array = np.asarray(leaf)
        dtype = array.dtype.name
        return Tensor(self.arithmetic.array(array, dtype) if is_float(dtype) else array, dtype)

    def of_variable(self, variable: Any, value: Array, vjp: Vjp) -> Tensor:
        """Return a tensor that was made of a variable alone; vjp gives the variable's cotangent."""

        def carry(dy: Array) -> tuple[()]:
            self.collect(variable, vjp(dy))
            return ()

        (made,) = self.record([], [value], variable.dtype, carry)
        return made

    def collect(self, variable: Any, cotangent: Array, passed: Provenances = frozenset()) -> None:
        """Add a part of a variable's cotangent, if a gradient moves the variable."""
        if variable.trainable:
            self._gradients.add(variable.path, cotangent, passed)


def _dtype(value: Array, dtype: str) -> str:
    """Return the dtype of what an operation made: integers stay what they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        return value.dtype.name
    return dtype
