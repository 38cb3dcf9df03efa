"""What a rule declares of itself, and the cases that it is checked on.

One job: hold the knowledge of a Keras class in one place, its rule. Whoever runs rules reads these
fields. Rejected: lists of classes in the modules that run rules, which a user's own rule could not
join.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from numpy.typing import ArrayLike

Kind = Literal["layer", "operation", "activation", "loss", "regularizer", "optimizer", "constraint"]
Targets = Literal["real", "one_hot", "integer", "binary", "probability"]
Inputs = Literal["real", "probability", "offset", "index"]
KeptLogits = Literal["input", "unknown"]
UsedLogits = Literal["takes", "reads"]


@dataclass(frozen=True, eq=False)
class Case:
    """One configuration on which every check is run.

    Args:
        name: says what is special about it; `gradaudit rules NAME` prints it.
        build: returns the Keras object: a layer, an operation, an activation, a loss, a
            regularizer, an optimizer or a constraint. It is called with no arguments.
        shape: of the input with its batch axis, or a tuple of shapes for several (of y_pred for a
            loss, of the weight for a regularizer, an optimizer or a constraint).
        kinks: inputs at which the derivative jumps: each a number for all elements, or an array
            that is broadcast to the (first) shape.
        targets: for a loss, "real", "one_hot", "integer", "binary" or "probability".
        inputs: values that the input takes: "real", "probability" (positive, rows sum to 1; rows of
            one column lie between 0 and 1), "offset" (a mean of 100 deviations), or "index"
            (integers from 0 to 3).
        training: whether the layer is called as in training.
        arguments: what a layer's call is given besides: numbers, or arrays with the batch's axis
            first.
        apply: calls the layer, (layer, *tensors, **arguments) to its outputs; left out: with its
            tensor, or with a list of several.
        ties: inputs are rounded to whole numbers, so that many are equal.
        compiled: in float64 the checks call Keras's layer under XLA: TensorFlow has no other kernel
            for it on a CPU.
        vanishing: how the names of those weights end whose gradient is 0, whatever the cotangent:
            of terms of about 1 only rounding is left, and that is compared with 1.
    """

    name: str
    build: Callable[[], Any]
    shape: tuple[int, ...] | tuple[tuple[int, ...], ...]
    kinks: tuple[ArrayLike, ...] = ()
    targets: Targets = "real"
    inputs: Inputs = "real"
    training: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    apply: Callable[..., Any] | None = None
    ties: bool = False
    compiled: bool = False
    vanishing: tuple[str, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all inputs."""
        if self.shape and isinstance(self.shape[0], tuple):
            return self.shape
        return (cast(tuple[int, ...], self.shape),)

    def call(self, target: Any, tensors: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
        """Return what the Keras object makes of tensors and further arguments."""
        if self.apply is not None:
            return self.apply(target, *tensors, **arguments)
        return target(tensors[0] if len(tensors) == 1 else list(tensors), **arguments)


@dataclass(frozen=True)
class Rule:
    """A registered rule: see `gradaudit.rule`, which makes it.

    target: the Keras class or function that the rule describes.
    kind: what the target is. function: the rule itself. source: the file that defines the target.
    weights: names of the variables that a layer may own; another one is a gap.
    options: keyword arguments of a loss or activation that are derived; None for all.
    slots: of an optimizer, the name of each slot and the attribute that holds its variables.
    mask, integers, autocast, takes_masks, gaps, ends_with_activation, output_logits, assigns,
    uses_logits, weight_decay, elementwise: as the arguments of `gradaudit.rule` by these names.
    """

    target: Any
    kind: Kind
    function: Callable[..., Any]
    cases: tuple[Case, ...]
    source: str
    weights: tuple[str, ...]
    options: tuple[str, ...] | None
    slots: tuple[tuple[str, str], ...]
    mask: Callable[..., Any] | None = None
    integers: bool = False
    autocast: bool = True
    takes_masks: bool = False
    gaps: Callable[[Any], list[str]] | None = None
    ends_with_activation: bool = False
    output_logits: Callable[[Any, int], KeptLogits | None] | None = None
    assigns: tuple[str, ...] = ()
    uses_logits: Callable[[Mapping[str, Any]], UsedLogits | None] | None = None
    weight_decay: Callable[[Any, Any], float | None] | None = None
    elementwise: bool = False

    @property
    def name(self) -> str:
        return self.target.__name__
