"""Every layer and loss of Keras that has a gradient and no derived rule passes an audit."""

import keras
import numpy as np
import pytest
from keras import layers, losses

import gradaudit
from gradaudit.rules.coverage import TRACED, catalogue
from suite import by_default

UNIT = {"value_range": (0, 1)}
IMAGE = (8, 8, 3)
LAYERS = {
    "AugMix": lambda: layers.AugMix(seed=1, **UNIT),
    "AutoContrast": lambda: layers.AutoContrast(**UNIT),
    "CenterCrop": lambda: layers.CenterCrop(4, 5),
    "CenterCrop of small images": lambda: layers.CenterCrop(11, 12),
    "ConvLSTM1D": lambda: layers.ConvLSTM1D(2, 3),
    "ConvLSTM2D": lambda: layers.ConvLSTM2D(2, 3, return_sequences=True),
    "ConvLSTM3D": lambda: layers.ConvLSTM3D(2, 2),
    "CutMix": lambda: layers.CutMix(seed=1),
    "Lambda": lambda: layers.Lambda(lambda x: keras.ops.sin(x) * x),
    "MelSpectrogram": lambda: layers.MelSpectrogram(
        num_mel_bins=8, fft_length=64, sequence_stride=32, sampling_rate=8000
    ),
    "MixUp": lambda: layers.MixUp(seed=1),
    "Pipeline": lambda: layers.Pipeline([layers.RandomFlip(seed=1), layers.Rescaling(0.5)]),
    "RandAugment": lambda: layers.RandAugment(seed=1, **UNIT),
    "RandomBrightness": lambda: layers.RandomBrightness(0.3, seed=1, **UNIT),
    "RandomColorDegeneration": lambda: layers.RandomColorDegeneration(0.5, seed=1, **UNIT),
    "RandomColorJitter": lambda: layers.RandomColorJitter(
        brightness_factor=0.3, contrast_factor=0.3, seed=1, **UNIT
    ),
    "RandomContrast": lambda: layers.RandomContrast(0.3, seed=1, **UNIT),
    "RandomCrop": lambda: layers.RandomCrop(5, 6, seed=1),
    "RandomCrop of small images": lambda: layers.RandomCrop(10, 12, seed=1),
    "RandomElasticTransform": lambda: layers.RandomElasticTransform(factor=1.0, seed=1, **UNIT),
    "RandomErasing": lambda: layers.RandomErasing(factor=1.0, seed=1, **UNIT),
    "RandomFlip": lambda: layers.RandomFlip(seed=1),
    "RandomGaussianBlur": lambda: layers.RandomGaussianBlur(factor=1.0, seed=1, **UNIT),
    "RandomGrayscale": lambda: layers.RandomGrayscale(0.5, seed=1),
    "RandomInvert": lambda: layers.RandomInvert(0.5, seed=1, **UNIT),
    "RandomPerspective": lambda: layers.RandomPerspective(factor=1.0, seed=1),
    "RandomRotation": lambda: layers.RandomRotation(0.2, seed=1),
    "RandomRotation to nearest": lambda: layers.RandomRotation(
        0.2, interpolation="nearest", fill_mode="constant", seed=1
    ),
    "RandomSharpness": lambda: layers.RandomSharpness(0.5, seed=1, **UNIT),
    "RandomShear": lambda: layers.RandomShear(0.3, 0.3, seed=1),
    "RandomTranslation": lambda: layers.RandomTranslation(0.2, 0.2, fill_mode="wrap", seed=1),
    "RandomZoom": lambda: layers.RandomZoom(0.2, seed=1),
    "Resizing": lambda: layers.Resizing(5, 11),
    "Resizing by cubes": lambda: layers.Resizing(5, 11, interpolation="bicubic"),
    "Resizing by lanczos3": lambda: layers.Resizing(5, 11, interpolation="lanczos3"),
    "Resizing to nearest": lambda: layers.Resizing(5, 11, interpolation="nearest"),
    "Solarization": lambda: layers.Solarization(addition_factor=0.3, seed=1, **UNIT),
    "STFTSpectrogram": lambda: layers.STFTSpectrogram(
        mode="log", frame_length=32, frame_step=16, fft_length=32
    ),
}
SHAPES = {
    "ConvLSTM1D": (4, 6, 2),
    "ConvLSTM2D": (3, 5, 5, 2),
    "ConvLSTM3D": (3, 3, 3, 3, 2),
    "MelSpectrogram": (200,),
    "STFTSpectrogram": (200, 1),
}
MISLED = {
    "AugMix", "RandAugment", "RandomPerspective", "RandomRotation", "RandomRotation to nearest",
    "RandomShear", "RandomTranslation", "RandomZoom",
}  # fmt: skip
"""Those that TensorFlow's gradient is not the derivative of: weights in front of them fail."""
NOT_COMPILED = {
    "CutMix", "MixUp", "RandomElasticTransform", "Resizing by cubes", "Resizing by lanczos3",
    "Resizing to nearest",
}  # fmt: skip
"""Those that XLA does not compile with their gradient, though Keras takes them for such as it does.
"""
ELSEWHERE = {
    "CTC",
    "ctc",
    "TFSMLayer",
    "FlaxLayer",  # which needs flax, which needs JAX
    "JaxLayer",
}
"""Classes with a test of their own below, or that need what is not installed."""


def test_every_class_is_here():
    names = {name.partition(" ")[0] for name in LAYERS}
    known = {entry.name for entry in catalogue() if entry.status == TRACED}
    assert names | ELSEWHERE == known
    assert LAYERS.keys() >= MISLED | NOT_COMPILED


def _audited(name, jit, in_front):
    """Audit a layer between two with weights, or the first of a model."""
    keras.utils.set_random_seed(3)
    shape = SHAPES.get(name, IMAGE)
    x = h = keras.Input(shape)
    if in_front:
        rows = (*shape, 1) if len(shape) == 1 else shape
        h = layers.Dense(rows[-1], activation="sigmoid", name="front")(layers.Reshape(rows)(h))
        h = layers.Reshape(shape)(h)
    h = LAYERS[name]()(h)
    h = layers.GlobalAveragePooling2D()(h) if "RandomCrop" in name else layers.Flatten()(h)
    model = keras.Model(x, layers.Dense(2)(h))
    model.compile("sgd", "mse", jit_compile=jit)
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.05, 0.95, (6, *shape)).astype(np.float32)
    return gradaudit.check(model, rows, rng.standard_normal((6, 2)), oracle="traced")


MODES = [(name, False) for name in LAYERS] + [
    (name, True)
    for name, build in LAYERS.items()
    if all(part.supports_jit for part in build()._flatten_layers()) and name not in NOT_COMPILED
]


def _require_pass(run):
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    assert run.run["max_z"] < 4


BETWEEN = [mode for mode in MODES if mode[0] not in MISLED]
FIRST = [("CutMix", False), ("RandomRotation", False)]
OTHERS = [
    ("Lambda", True),
    ("RandomContrast", False),
    ("Resizing", False),
]


@pytest.mark.parametrize(("name", "jit"), by_default(MODES, chosen=FIRST))
def test_the_first_layer_of_a_model_passes(name, jit):
    _require_pass(_audited(name, jit, in_front=False))


@pytest.mark.parametrize(("name", "jit"), by_default(BETWEEN, chosen=OTHERS))
def test_a_layer_between_others_passes(name, jit):
    _require_pass(_audited(name, jit, in_front=True))


@pytest.mark.parametrize(
    ("name", "jit"),
    by_default([mode for mode in MODES if mode[0] in MISLED], chosen=[("RandomRotation", False)]),
)
def test_a_gradient_of_tensorflow_that_is_none_is_found_and_named(name, jit):
    run = _audited(name, jit, in_front=True)
    failed = run.tensors.query("stage == 'gradient' and verdict == 'fail'")
    assert set(failed["layer"].str.rpartition("/")[2]) == {"front"}
    assert failed["cause"].str.contains("ImageProjectiveTransformV3.* not its derivative").all()


@pytest.mark.parametrize("jit", by_default([False, True], [False]))
def test_ctc_passes(jit):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((10, 3)), layers.Dense(5)])
    model.compile("sgd", losses.CTC(), jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((4, 10, 3))
    run = gradaudit.check(model, x, np.array([[1, 2, 3], [2, 2, 0], [4, 1, 2], [3, 0, 0]]))
    _require_pass(run)
    assert run.tensors.query("stage == 'gradient'")["detectable_rel"].max() < 1e-2


@pytest.mark.parametrize("jit", [False, True])
def test_a_saved_model_passes(jit, tmp_path):
    keras.utils.set_random_seed(3)
    saved = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="tanh")])
    saved.export(tmp_path / "saved", verbose=False)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4),
            layers.TFSMLayer(tmp_path / "saved", call_endpoint="serve"),
            layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((6, 5))
    run = gradaudit.check(model, x, x[:, :2])
    _require_pass(run)
    assert len(run.tensors.query("stage == 'gradient'")) == 6
