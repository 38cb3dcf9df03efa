"""What Keras has, and which of it has a rule; knows no maths.

What is derived is read from the register. The table at the end lists what is not, with the reason.
What is in neither, as a class that a new Keras brings, is unknown.
"""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from gradaudit.errors import UnknownNameError
from gradaudit.rules.registry import Rule, all_rules, find_rule

ROOMS = {
    "layer": keras.layers,
    "loss": keras.losses,
    "activation": keras.activations,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
    "optimizer": keras.optimizers,
}
DERIVED, TRACED, NOT_DIFFERENTIABLE, UNKNOWN = STATUSES = (
    "derived", "traced-only", "not differentiable", "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A class or a function of Keras, or a class of another module that has a rule.

    kind: a key of `ROOMS`, or "operation". aliases: its further names. status: one of `STATUSES`.
    reason: why it is not derived, or where else than in a rule of its own. source: its file.
    rule: that which it is derived by.
    """

    kind: str
    name: str
    aliases: tuple[str, ...]
    status: str
    reason: str
    source: str
    target: Any
    rule: Rule | None

    @property
    def names(self) -> set[str]:
        """All names that it can be asked for by."""
        return {self.name, self.target.__name__, *self.aliases}

    @property
    def room(self) -> str:
        """The module of Keras that it is listed in, or "elsewhere"."""
        room = ROOMS.get(self.kind)
        if room is None or getattr(room, self.name, None) is not self.target:
            return "elsewhere"
        return room.__name__

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.target)


def catalogue() -> list[Entry]:
    """Return every public class and function of the rooms of Keras, and what else has a rule."""
    found = [entry for kind, room in ROOMS.items() for entry in _of_room(kind, room)]
    listed = {id(entry.target) for entry in found}
    others = [known for known in all_rules() if id(known.target) not in listed]
    return found + [
        Entry(known.kind, known.name, (), DERIVED, "", known.source, known.target, known)
        for known in others
    ]


def named(name: str) -> list[Entry]:
    """Return what has a name, or an alias: of a layer and of a function, say.

    Raises:
        UnknownNameError: nothing has.
    """
    entries = catalogue()
    found = [entry for entry in entries if name in entry.names]
    if not found:
        known = {known for entry in entries for known in entry.names}
        raise UnknownNameError("class or function of Keras", name, known)
    return found


def _of_room(kind: str, room: Any) -> Iterator[Entry]:
    names: dict[int, list[str]] = {}
    for name, value in vars(room).items():
        if not name.startswith("_") and callable(value):
            names.setdefault(id(value), []).append(name)
    for exported in sorted(names.values(), key=lambda several: several[0].lower()):
        target = getattr(room, exported[0])
        name = target.__name__ if target.__name__ in exported else exported[0]
        aliases = tuple(sorted(set(exported) - {name}))
        known, reason = _rule_of(room, target)
        if known is not None:
            yield Entry(kind, name, aliases, DERIVED, reason, known.source, target, known)
        else:
            status, reason = _REASONS.get((kind, name), (UNKNOWN, _UNKNOWN_REASON))
            yield Entry(kind, name, aliases, status, reason, _source(target), target, None)


def _rule_of(room: Any, target: Any) -> tuple[Rule | None, str]:
    """Return the rule that a class or function is derived by, and in what way, if not directly."""
    known = find_rule(target)
    if known is not None:
        return known, ""
    if room is keras.losses and inspect.isclass(target):
        function = _wrapped(target)
        return find_rule(function), f"by its function {getattr(function, '__name__', '')}"
    if room is keras.layers and not inspect.isclass(target):
        for layer in vars(room).values():
            same_file = getattr(layer, "__module__", None) == target.__module__
            if same_file and layer.__name__.lower() == target.__name__ and layer is not target:
                return find_rule(layer), f"makes and calls the layer {layer.__name__}"
    return None, ""


def _wrapped(loss: type) -> Any:
    """Return the function that a loss class wraps, or None."""
    try:
        return getattr(loss(), "fn", None)
    except TypeError:  # it must be given something
        return None


def _source(target: Any) -> str:
    path = Path(getattr(sys.modules[target.__module__], "__file__", None) or "")
    parts = path.parts
    return str(Path(*parts[parts.index("keras") :])) if "keras" in parts else str(path)


_UNKNOWN_REASON = "there is no rule, and no reason why not in gradaudit/rules/coverage.py"
_BASE = "a base class, to be subclassed: it computes nothing"
_OF_CONFIGURATION = "makes objects of names and configurations: it computes nothing"
_STEP = "by the derivation of the whole update, gradaudit/reference/update.py"
_AUGMENTATION = "an augmentation of images by a random transformation, which is not derived"
_STEPS = "makes whole numbers of its input, which small changes of it do not change"

_TABLE = (
    # what is derived without a rule of its own
    ("layer", "InputLayer", DERIVED, "by the walk of a model, which hands its tensor on"),
    ("optimizer", "LossScaleOptimizer MultiOptimizer", DERIVED, _STEP),
    # what has a gradient that is not derived
    ("layer", "Lambda", TRACED, "calls code of its own: there is no definition to derive from"),
    ("layer", "TFSMLayer", TRACED, "calls a saved function: there is no definition to derive from"),
    ("layer", "FlaxLayer JaxLayer", TRACED, "calls JAX: there is no definition to derive from"),
    (
        "layer",
        "Pipeline",
        TRACED,
        "calls the layers that it is given, for tf.data; a Sequential of them is derived",
    ),
    (
        "layer",
        "ConvLSTM1D ConvLSTM2D ConvLSTM3D",
        TRACED,
        "a recurrence of convolutions, which is not derived",
    ),
    (
        "layer",
        "MelSpectrogram STFTSpectrogram",
        TRACED,
        "a Fourier transform of windows, which is not derived",
    ),
    (
        "layer",
        "Resizing CenterCrop RandomCrop",
        TRACED,
        "resizes images, or those that are too small, by interpolation, which is not derived",
    ),
    (
        "layer",
        "AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration "
        "RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur "
        "RandomGrayscale RandomInvert RandomPerspective RandomRotation RandomSharpness RandomShear "
        "RandomTranslation RandomZoom Solarization",
        TRACED,
        _AUGMENTATION,
    ),
    ("layer", "AutoContrast", TRACED, "stretches images to the whole range, which is not derived"),
    (
        "layer",
        "RandomColorJitter",
        TRACED,
        f"{_AUGMENTATION}; with a saturation or a hue it is not differentiable",
    ),
    (
        "loss",
        "CTC ctc",
        TRACED,
        "a dynamic program over all alignments of two sequences, which is not derived",
    ),
    # what has no gradient
    ("layer", "Layer Wrapper", NOT_DIFFERENTIABLE, _BASE),
    ("loss", "Loss", NOT_DIFFERENTIABLE, _BASE),
    ("regularizer", "Regularizer", NOT_DIFFERENTIABLE, _BASE),
    ("constraint", "Constraint", NOT_DIFFERENTIABLE, _BASE),
    ("optimizer", "Optimizer", NOT_DIFFERENTIABLE, _BASE),
    ("layer", "deserialize serialize", NOT_DIFFERENTIABLE, _OF_CONFIGURATION),
    *(
        (kind, "deserialize get serialize", NOT_DIFFERENTIABLE, _OF_CONFIGURATION)
        for kind in ROOMS
        if kind != "layer"
    ),
    ("layer", "InputSpec", NOT_DIFFERENTIABLE, "says which inputs fit: it computes nothing"),
    ("layer", "Input", NOT_DIFFERENTIABLE, "makes a model's input: it computes nothing"),
    (
        "optimizer",
        "OptimizerMap",
        NOT_DIFFERENTIABLE,
        "says which optimizer of a MultiOptimizer moves a weight: it computes nothing",
    ),
    (
        "layer",
        "StringLookup TextVectorization",
        NOT_DIFFERENTIABLE,
        "takes strings, which have no gradient",
    ),
    (
        "layer",
        "CategoryEncoding HashedCrossing Hashing IntegerLookup",
        NOT_DIFFERENTIABLE,
        "takes integers or strings, which have no gradient",
    ),
    ("layer", "Discretization", NOT_DIFFERENTIABLE, _STEPS),
    (
        "layer",
        "ContrastLimitedAdaptiveHistogramEqualization Equalization RandomPosterization",
        NOT_DIFFERENTIABLE,
        "makes whole grey levels of its input and looks them up: its derivative is 0",
    ),
    (
        "layer",
        "RandomHue RandomSaturation",
        NOT_DIFFERENTIABLE,
        "goes from HSV to RGB by an operation that TensorFlow has no gradient of",
    ),
    (
        "layer",
        "MaxNumBoundingBoxes",
        NOT_DIFFERENTIABLE,
        "cuts or fills lists of bounding boxes, and leaves images as they are",
    ),
    (
        "layer",
        "TorchModuleWrapper",
        NOT_DIFFERENTIABLE,
        "calls PyTorch, which Keras can do with no backend but that",
    ),
)

_REASONS = {
    (kind, name): (status, reason)
    for kind, names, status, reason in _TABLE
    for name in names.split()
}
