"""The numbers of one step under the names that textbooks give them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnclearClaimError, UnknownNameError, UnsupportedModelError
from gradaudit.numerics import Rounded, Rounding
from gradaudit.records import StepRecord
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.backprop import backprop
from gradaudit.reference.gaps import model_gaps, several_tensors
from gradaudit.reference.update import updated
from gradaudit.reference.walk import Application, Replay, Walk
from gradaudit.rules import apply_activation

_INVERSES = {
    keras.activations.softmax: np.log,  # up to a constant, which softmax does not see
    keras.activations.sigmoid: lambda y: np.log(y) - np.log1p(-y),
    keras.activations.tanh: np.arctanh,
    keras.activations.relu: lambda y: np.where(y > 0, y, -1.0),  # any z below 0 makes y = 0
}
NOT_ELEMENTWISE = (
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sparsemax,
    keras.activations.glu,
)
"""Activation functions of which one output depends on several pre-activations."""
_PER_ROW = ("input", "target", "preactivation", "derivative", "activation")
_FORWARD, _LOSS, _BACKWARD, _UPDATE = range(4)


@dataclass(frozen=True)
class Quantity:
    """One array of a step.

    part: "input", "target", "loss", "learning_rate", "weight", or of the `call`-th call of a layer
        its "preactivation", its "activation" or the "derivative" of its activation function.
    path: of a weight. d: ∂loss/∂ it. updated: the weight after the step.
    """

    part: str
    call: int = -1
    path: str = ""
    d: bool = False
    updated: bool = False

    @property
    def rank(self) -> tuple[int, ...]:
        """What is computed from other quantities has a higher rank than they."""
        if self.updated or self.part == "learning_rate":
            return (_UPDATE, int(self.updated))
        if self.part in ("target", "loss"):
            return (_LOSS, int(self.part == "loss"))
        parts = ("input", "weight", "preactivation", "derivative", "activation")
        order = parts.index(self.part)
        return (_BACKWARD, -self.call, -order) if self.d else (_FORWARD, self.call, order)


class Quantities:
    """The numbers of one step of a model, by name.

    The layers that have weights are numbered in the order in which the model calls them. With S for
    `_1`, `_2`, ... or for `_` and the layer's name, and for nothing where only one has weights:

    - `input`, `target`, `loss`, `learning_rate`
    - `kernelS`, `biasS` and so on: the weights before the step; `updated_kernelS`: after it
    - `preactivationS`, `activationS`: what the layer makes, before and after its activation
      function; `tanh_derivativeS`: the derivative of that function, here tanh, at that point
    - `logit`, `probability` and `output`: of the layer that makes the model's only output
    - with `d` before weights, pre-activations and activations: ∂loss/∂ it

    Arrays have the framework's shapes; where the batch is one row, what has a row for each sample
    is without that axis.

    Args:
        model: a built Keras model, compiled with losses that have been computed once.
        record: of a step; what is not known of its inputs, targets and weights is NaN.
        given: quantities that are to have other values than the step's; NaN where they are not.

    Attributes: `names` to what they stand for; `applications`, the calls of layers in their order;
    `rows` of the batch.

    Raises:
        UnsupportedModelError: a part of the model has no rule, or the data are of a kind that the
            rules do not take.
        UnclearClaimError: an activation is given of which it is not known what makes it.
    """

    def __init__(
        self,
        model: keras.Model,
        record: StepRecord,
        replay: Replay,
        given: Mapping[Quantity, np.ndarray] | None = None,
    ) -> None:
        if gaps := model_gaps(model):
            words = "; ".join(gap.message for gap in gaps)
            raise UnsupportedModelError(
                f"{words}. Expected a model every part of which has a derived rule. "
                "Register one with gradaudit.rule."
            )
        if gaps := several_tensors(model):
            raise UnsupportedModelError(
                f"{'; '.join(gaps)}. Expected layers of one tensor each: numbers are named, and "
                "a path is told, from one layer to the next."
            )
        self._model, self._given = model, given or {}
        self.rows = len(tree.flatten(record.x)[0])
        self._arithmetic = Rounding(tensorfloat32=record.tensorfloat32)
        self.applications: list[Application] = []
        self._variables = {
            path: self._overlaid(Quantity("weight", path=path), value)
            for path, value in record.variables.items()
        }
        self._record = replace(
            record,
            x=self._overlaid(Quantity("input"), record.x),
            y=self._overlaid(Quantity("target"), record.y),
        )
        targets = [np.asarray(part, np.float64) for part in tree.flatten(self._record.y)]
        self._target_known = not any(np.isnan(target).any() for target in targets)
        self._walk = Walk(self._variables, self._arithmetic, replay, self._watch)
        with np.errstate(all="ignore"):
            self._loss = backprop(model, self._record, self._walk)
        self.names = _names(model, self.applications)

    @property
    def penalized(self) -> bool:
        """Whether regularizers add to the loss."""
        return bool(self._walk.penalties)

    def find(self, name: str) -> Quantity:
        """Return the quantity that a name stands for.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self.names:
            raise UnknownNameError("quantity", name, self.names)
        return self.names[name]

    def __getitem__(self, quantity: Quantity) -> Rounded:
        """Return the values of a quantity, with their rounding errors; NaN where not known."""
        value = self.by_row(quantity)
        squeezed = self.rows == 1 and quantity.part in _PER_ROW and value.ndim
        return value[0] if squeezed else value

    def by_row(self, quantity: Quantity) -> Rounded:
        """Return the values of a quantity with the batch's axis, also where it is one row."""
        with np.errstate(all="ignore"):
            value = self._value(quantity)
        if value is None:
            return self._array(np.full(self.by_row(replace(quantity, d=False)).shape, np.nan))
        if self._needs_target(quantity) and not self._target_known:
            return self._array(np.full(value.shape, np.nan))
        return value

    def _array(self, value: Any) -> Rounded:
        return self._arithmetic.array(value, keras.config.floatx())

    def _needs_target(self, quantity: Quantity) -> bool:
        return quantity.part == "loss" or quantity.d or quantity.updated

    def _overlaid(self, quantity: Quantity, value: Any) -> Any:
        """Return values with those that are given in their place."""
        given = self._given.get(quantity)
        if given is None:
            return value
        given = np.asarray(given, np.float64).reshape(np.shape(value))
        return np.where(np.isnan(given), value, given)

    def _watch(self, application: Application, part: str, made: Tensor) -> Tensor:
        """Put what is given in the place of what the step made."""
        call = len(self.applications)
        if part == "preactivation":
            made = self._replaced(Quantity("preactivation", call), made)
            application.z = self._inverted(application, Quantity("activation", call), made)
            return application.z
        slope = Quantity("derivative", call)
        if slope in self._given:
            made = self._with_slope(application, slope, made)
        application.y = self._replaced(Quantity("activation", call), made)
        self.applications.append(application)
        return application.y

    def _with_slope(self, application: Application, slope: Quantity, made: Tensor) -> Tensor:
        """Return the output of an activation whose derivative is given."""
        z = application.z
        _, vjp = apply_activation(application.layer.activation, z.value)
        own = vjp(self._arithmetic.array(np.ones(z.value.shape), z.dtype))
        given = self._arithmetic.array(self._overlaid(slope, own.value), z.dtype)
        return self._walk.apply(z, (made.value, lambda dy: dy * given), made.dtype)

    def _replaced(self, quantity: Quantity, made: Tensor) -> Tensor:
        value = made.value
        if quantity in self._given:
            given = self._overlaid(quantity, value.value)
            value = self._arithmetic.array(given, made.dtype)
        cotangent = self._given.get(replace(quantity, d=True))
        if value is made.value and cotangent is None:
            return made

        def vjp(dy: Rounded) -> Rounded:
            if cotangent is None:
                return dy
            given = self._overlaid(replace(quantity, d=True), dy.value)
            return self._arithmetic.array(given, made.dtype)

        replaced = self._walk.apply(made, (value, vjp), made.dtype)
        if cotangent is None:  # which a loss that is computed from the logits does not send
            replaced.logits = made.logits
        return replaced

    def _inverted(self, application: Application, quantity: Quantity, z: Tensor) -> Tensor:
        """Return the pre-activation that makes the given activation, where one does."""
        if quantity not in self._given:
            return z
        activation = activation_of(application.layer)
        inverse = _INVERSES.get(activation)
        if inverse is None:
            raise UnclearClaimError(
                f"the output of {activation.__name__} is given, and not what makes it: give the "
                "preactivation"
            )
        present, _ = apply_activation(application.layer.activation, z.value)
        given = self._overlaid(quantity, present.value)
        value = self._arithmetic.array(inverse(given), z.dtype)
        return self._walk.apply(z, (value, lambda dz: dz), z.dtype)

    def _value(self, quantity: Quantity) -> Rounded | None:
        record = self._record
        if quantity.updated:
            return self._after(quantity.path)
        if quantity.part in ("input", "target"):
            return self._array(record.x if quantity.part == "input" else record.y)
        if quantity.part == "loss":
            return self._loss.value
        if quantity.part == "learning_rate":
            return self._array(self._learning_rate())
        if quantity.part == "weight":
            if quantity.d:
                found = self._walk.cotangents.get(quantity.path)
                shape = np.shape(self._variables[quantity.path])
                return self._array(np.zeros(shape)) if found is None else found
            return self._array(self._variables[quantity.path])
        application = self.applications[quantity.call]
        z = application.y if application.z is None else application.z
        if quantity.part == "derivative":
            _, vjp = apply_activation(application.layer.activation, z.value)
            return vjp(self._arithmetic.array(np.ones(z.value.shape), z.dtype))
        tensor = z if quantity.part == "preactivation" else application.y
        return tensor.cotangent if quantity.d else tensor.value

    def _learning_rate(self) -> float:
        given = self._given.get(Quantity("learning_rate"))
        return self._record.learning_rates[0] if given is None else float(given)

    def _after(self, path: str) -> Rounded:
        """Return a weight after the optimizer's update by the gradient of this run."""
        variables = self._model.trainable_variables
        gradients = {
            v.path: self._value(Quantity("weight", path=v.path, d=True)) for v in variables
        }
        gradients = {
            each: self._overlaid(Quantity("weight", path=each, d=True), value.value)
            for each, value in gradients.items()
        }
        rates = (self._learning_rate(), *self._record.learning_rates[1:])
        before = self._variables | self._record.optimizer_variables
        given = self._model.optimizer, variables, before, (gradients,), rates, self._arithmetic
        updates = updated(*given, keras.config.epsilon())
        return next(after[path] for after in updates if path in after)


def _names(model: keras.Model, applications: list[Application]) -> dict[str, Quantity]:
    """Return what every name stands for."""
    named = {part: Quantity(part) for part in ("input", "target", "loss")}
    numbers: dict[int, int] = {}
    alone = len({id(a.layer) for a in applications if a.paths}) == 1
    for call, application in enumerate(applications):
        ends = [f"_{application.layer.name}"]
        if application.paths:
            number = numbers.setdefault(id(application.layer), len(numbers) + 1)
            ends += [f"_{number}"] + [""] * alone
        for name, quantity in _of_call(application, call).items():
            for end in ends:
                named.setdefault(name + end, quantity)  # of several calls of a layer, the first
    if len(model.outputs) == 1:
        last = len(applications) - 1
        named["logit"] = Quantity("preactivation", last)
        named["output"] = named["probability"] = Quantity("activation", last)
    found = dict(named)
    for name, quantity in named.items():
        if quantity.part in ("weight", "preactivation", "activation"):
            found[f"d{name}"] = replace(quantity, d=True)
        if quantity.part == "weight" and model.optimizer is not None:
            found[f"updated_{name}"] = replace(quantity, updated=True)
    if model.optimizer is not None:
        found["learning_rate"] = Quantity("learning_rate")
    return found


def _of_call(application: Application, call: int) -> dict[str, Quantity]:
    found = {name: Quantity("weight", path=path) for name, path in application.paths.items()}
    found["preactivation"] = Quantity("preactivation", call)
    found["activation"] = Quantity("activation", call)
    activation = activation_of(application.layer)
    if application.z is not None and activation not in NOT_ELEMENTWISE:
        found[f"{activation.__name__}_derivative"] = Quantity("derivative", call)
    return found


def activation_of(layer: Any) -> Callable | None:
    """Return a layer's activation function without its options; None where it has none."""
    activation = getattr(layer, "activation", None)
    return activation.func if isinstance(activation, functools.partial) else activation
