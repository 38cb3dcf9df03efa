"""The structure of a model as plain data, and files of it that nobody can trust."""

import json
from importlib.metadata import PackageNotFoundError

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import gradaudit
from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import read_step, spec, write_step
from gradaudit.errors import DataError
from gradaudit.records import Oracle
from gradaudit.reference import derive


class Plain(keras.layers.Layer):
    """A layer that a user may have given any attribute."""

    def call(self, x):
        return x


def holder(held):
    layer = Plain()
    vars(layer)["held"] = held  # Keras would track it
    return layer


def step_of(*layers):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    return recorded(model, *(rng.standard_normal((3, n)).astype(np.float32) for n in (2, 1)))


def written(path, *layers):
    step = step_of(*layers)
    write_step(path, *step)
    return step


def held_of(step):
    """Return what the copy of the layer `Plain` holds."""
    return step[1].model.layers[0].held


def rewritten(path, change):
    """Change the JSON text of a file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    text = json.loads(arrays["step"].tobytes())
    text = change(text) or text
    arrays["step"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, **arrays)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.step"


@pytest.mark.parametrize("kind", ["named", "partial", "class", "enum"])
def test_a_file_cannot_call_what_it_names(path, tmp_path, kind):
    written(path)
    folder = tmp_path / "made by the file"

    def change(text):
        text["live"].append(["os", "mkdir"])
        place = len(text["live"]) - 1
        if kind == "class":
            text["objects"].append([place, [["path", str(folder)]]])
            planted = {"object": len(text["objects"]) - 1}
        else:
            arguments = {"tuple": [str(folder)]}
            planted = {
                "named": {"named": [place, [str(folder)]]},
                "partial": {"partial": [{"live": place}, arguments, {"tuple": []}]},
                "enum": {"enum": [place, str(folder)]},
            }[kind]
        text["root"] = {"tuple": [planted, text["root"]]}

    rewritten(path, change)
    with pytest.raises(DataError, match="cannot be read as a recorded step"):
        read_step(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        ["os", "system"],
        ["subprocess", "Popen"],
        ["keras", "src.utils.file_utils.os.system"],
        ["keras.src.saving.saving_api", "load_model"],
        ["tensorflow", "keras.Model"],
        ["gradaudit.records", "StepRecord"],
        ["no.such.module", "Layer"],
    ],
)
def test_a_file_names_only_classes_of_models_and_what_has_a_rule(path, name):
    written(path, holder(np.tanh))
    rewritten(path, lambda text: text["live"].append(name) or plant(text))
    found = held_of(read_step(path))
    assert type(found).__name__ == "Missing"
    with pytest.raises(gradaudit.errors.UnsupportedModelError, match="does not hold"):
        found()


def plant(text):
    """Make the last name the attribute of the layer `Plain`."""
    for _, parts in text["objects"]:
        for pair in parts:
            if isinstance(pair, list) and pair[0] == "held":
                pair[1] = {"live": len(text["live"]) - 1}


def of_no_structure(text):
    """Name a class that may be named, a named tuple, as the class of an object."""
    text["live"].append(["keras.src.ops.node", "KerasHistory"])
    text["objects"][-1][0] = len(text["live"]) - 1


def nested(text):
    for _ in range(400):
        text["root"] = {"tuple": [text["root"]]}


MALFORMED = {
    "no objects": lambda text: text.pop("objects"),
    "no arrays": lambda text: text.update(arrays=[]),
    "more arrays": lambda text: text["arrays"].append(text["arrays"][0]),
    "not a dict": lambda text: [1],
    "root of another kind": lambda text: text.update(root={"_all": [1]}),
    "root is a list": lambda text: text.update(root=[1, 2]),
    "two kinds": lambda text: text.update(root={"tuple": [], "list": []}),
    "place out of range": lambda text: text.update(root={"object": 10**6}),
    "unknown container": lambda text: text["objects"][0].__setitem__(0, "deque"),
    "objects are numbers": lambda text: text.update(objects=[1, 2]),
    "live is a number": lambda text: text.update(live=[3]),
    "a class of no structure": of_no_structure,
    "dtype of objects": lambda text: text["arrays"][0].update(dtype="O"),
    "dtype of addresses": lambda text: text["arrays"][0].update(dtype="T"),
    "dtype of fields": lambda text: text["arrays"][0].update(dtype="i4,i4"),
    "no dtype": lambda text: text["arrays"][0].update(dtype=["f4"]),
    "negative shape": lambda text: text["arrays"][0].update(shape=[-1]),
    "another shape": lambda text: text["arrays"][0].update(shape=[1000]),
    "too deep": nested,
    "other parts": lambda text: text.update(
        root={"tuple": [{"tuple": []}, {"tuple": [1, 2, 3, 4]}]}
    ),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused(path, change):
    written(path)

    def changed(text):
        found = change(text)
        return found if found == [1] else None

    rewritten(path, changed)
    with pytest.raises(DataError, match="cannot be read as a recorded step"):
        read_step(path)


def test_a_damaged_file_and_one_of_another_format_are_refused(path):
    written(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"PK\x03\x04", b"", whole[:600] + whole[700:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as a recorded step"):
            read_step(path)
    path.write_bytes(whole)
    rewritten(path, lambda text: {"format": "gradaudit step 0"})
    with pytest.raises(DataError, match="has the format 'gradaudit step 0'"):
        read_step(path)


HELD = {
    "big-endian": np.arange(3, dtype=">f4"),
    "bfloat16": np.arange(3).astype(ml_dtypes.bfloat16),
    "empty": np.zeros((0, 3)),
    "text": np.array([["a", "bcd"]]),
    "text of any length": np.array(["a", "bcd"], np.dtypes.StringDType()),
    "bytes in an array": np.array([b"a", b"\xff\x00"], object),
    "a NumPy scalar": np.float32(0.3),
    "a date": np.datetime64("2020-01-01"),
    "bytes": b"\xff\x00",
    "range": range(1, 9, 2),
    "complex": 1 - 2j,
    "of an enumeration": Oracle.BOTH,
    "dtype": np.dtype(">f4"),
    "dtype bfloat16": np.dtype(ml_dtypes.bfloat16),
    "dtype of TensorFlow": tf.bfloat16,
    "shape": tf.TensorShape([1, None]),
    "unknown shape": tf.TensorShape(None),
    "slice": slice(1, None, 2),
    "ellipsis": ...,
    "large": 2**70,
    "a class of Keras": keras.layers.Dense,
    "a function with a rule": keras.activations.tanh,
}


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_a_file_holds_what_a_layer_holds(path, held):
    step = written(path, holder(held))
    for found in (held_of(step), held_of(read_step(path))):
        assert type(found) is type(held)
        if isinstance(held, np.ndarray):
            assert found.dtype == held.dtype
            assert found.shape == held.shape
            np.testing.assert_array_equal(found, held)
        elif held == tf.TensorShape(None):
            assert found.rank is None
        else:
            assert found == held


@pytest.mark.parametrize(
    "held", [np.array(["a", None], object), np.zeros(2, [("a", "f4"), ("b", object)])]
)
def test_an_array_of_objects_is_not_written(path, held):
    with pytest.raises(DataError, match="holds an array of dtype"):
        written(path, holder(held))


def test_a_numpy_scalar_as_an_option_is_judged(path):
    step = written(path, keras.layers.Dropout(np.float32(0.3), seed=1))
    for each in (step, read_step(path)):
        assert isinstance(each[1].model.layers[0].rate, np.float32)
        assert not derive(*each).unjudged


def test_containers_may_hold_themselves_and_be_shared(path):
    loop, mapping, shared = [1], {"b": 2}, {3}
    loop.append(loop)
    mapping["own"] = (mapping, loop)
    step = written(path, holder([loop, mapping, shared, shared]))
    for each in (step, read_step(path)):
        again, other, first, second = held_of(each)
        assert again is not loop
        assert again[0] == 1
        assert again[1] is again
        assert other["own"][0] is other
        assert other["own"][1] is again
        assert first is second
        assert first == {3}


def test_a_step_is_captured_where_packages_have_no_metadata(monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(spec, "version", missing)
    spec._version.cache_clear()
    found = spec.versions()
    spec._version.cache_clear()
    assert found["gradaudit"] == gradaudit.__version__
    assert found["keras"] == found["numpy"] == "unknown"
