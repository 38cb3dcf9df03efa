"""One case of a rule as a differentiable function, beside Keras's own."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.numerics import Plain
from gradaudit.records import Provenance
from gradaudit.testing.steps import SubjectStep
from gradaudit.tracing import trace

Primals = dict[str, np.ndarray]
Arrays = Mapping[str, Any]
"""Arrays of any arithmetic, by name."""

Vjp = Callable[[Arrays], dict[str, Any]]
"""Cotangents of the outputs to those of the primals, both by name."""


class Run(NamedTuple):
    """One computation of a subject.

    y: outputs by name.
    vjp: cotangents of these to those of the primals.
    assigned: new values of variables that no gradient moves, by name.
    passed: what the rule says of TensorFlow's gradient: see `LayerCall.misleads`.
    mask: that of the output of a layer which makes one; None for all.
    """

    y: dict[str, Any]
    vjp: Vjp
    assigned: dict[str, Any]
    passed: frozenset[Provenance] = frozenset()
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Subject:
    """One case of the rules for one Keras object, in one dtype.

    primals: random inputs and weights by name, exactly representable in the dtype.
    inputs: names of the inputs among them.
    differentiable: names of the inputs and trainable weights: each has a cotangent.
    run: (rule, arithmetic, primals, fixed) to what the rule makes of them. fixed: values of
        variables by name that replace what the rule assigns to them; of layers alone.
    framework: primals as tensors to Keras's outputs, and what it assigns, by name.
    states: those of the seed generators that Keras draws from.
    """

    primals: Primals
    inputs: tuple[str, ...]
    differentiable: tuple[str, ...]
    run: Callable[..., Run]
    framework: Callable[
        [Mapping[str, tf.Tensor]], tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]
    ]
    states: tuple[keras.Variable, ...] = ()

    @functools.cached_property
    def traced(self) -> Run:
        """What a trace of Keras's own code makes of the primals, in float64.

        The cotangent of a variable that Keras assigns to is that of its value before.
        """
        names = tuple(self.primals)

        def outputs(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            made = self.framework(dict(zip(names, tensors, strict=True)))[0]
            masks = {f"{name}, its mask": keras_compat.mask_of(y) for name, y in made.items()}
            return {**made, **{name: mask for name, mask in masks.items() if mask is not None}}

        found = trace(outputs, list(self.primals.values()), self.states)
        step = SubjectStep({v.path: np.asarray(v.value) for v in self.states}, {}, "float64", {})
        with np.errstate(all="ignore"):  # branches that are not taken may be infinite
            ys, vjp = found.run(list(self.primals.values()), step, Plain(np.float64), jit=False)
        order = sorted(found.structure)  # as TensorFlow flattens a dict

        def vjp_by_name(dys: Arrays) -> dict[str, Any]:
            with np.errstate(all="ignore"):
                back = vjp([dys.get(name) for name in order]).of_inputs
            return {
                name: np.zeros(self.primals[name].shape) if dx is None else dx
                for name, dx in zip(names, back, strict=True)
            }

        made = {name: y for name, y in zip(order, ys, strict=True) if y.dtype.kind == "f"}
        return Run(made, vjp_by_name, {})

    def tape(self, primals: Primals) -> Run:
        """Return Keras's outputs and the tape's VJP, as float64.

        As TensorFlow carries no gradient through an assignment, a variable that is assigned to has
        the cotangent of its new value.
        """
        return self._own_tape if primals is self.primals else self._taped(primals)

    @functools.cached_property
    def _own_tape(self) -> Run:
        return self._taped(self.primals)

    def _taped(self, primals: Primals) -> Run:
        tensors = {name: tf.constant(value) for name, value in primals.items()}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(tensors)
            ys, assigned = self.framework(tensors)

        def vjp(dys: Arrays) -> dict[str, Any]:
            given = {name: tf.constant(dy, ys[name].dtype) for name, dy in dys.items()}
            sources = {**tensors, **assigned}
            found = tape.gradient(ys, sources, given, unconnected_gradients="zero")
            return _doubles({name: tf.convert_to_tensor(d) for name, d in found.items()})

        return Run(_doubles(ys), vjp, _doubles(assigned))


def _doubles(values: Arrays) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


Draw = Callable[[np.random.Generator], Subject]
"""From a generator of random numbers to a subject with these as its primals."""
