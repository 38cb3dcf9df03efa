"""A reference depends on the record, the spec, the policy and the registered rules alone."""

import ast
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import gradaudit
from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import read_step, write_step
from gradaudit.errors import GapCode, UsageError
from gradaudit.records import Oracle, Stage, Verdict
from gradaudit.reference import Policy, derive
from gradaudit.rules import Case, find_rule
from gradaudit.rules.registry import registered
from gradaudit.scoring import compare
from recorded_steps import Squashed, batches, built, table

ROOMS = [Path(gradaudit.__file__).parent / room for room in ("rules", "reference")]
NOT_SETTINGS = {"keras.backend.is_keras_tensor"}


def run_time_settings(source):
    """Return the calls of settings of Keras that a module makes when its rules run.

    The cases of a rule are not built then.
    """
    tree = ast.parse(source)
    aliases = {
        name.asname or name.name: f"keras.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "keras"
        for name in node.names
    }
    aliases |= {
        name.asname or name.name: f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("keras.config", "keras.backend")
        for name in node.names
    }
    cases = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "cases"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and node not in cases:
            first, dot, rest = ast.unparse(node).partition(".")
            name = aliases.get(first, first) + dot + rest
            if name.startswith(("keras.config.", "keras.backend.")):
                found.append(name)
    return [name for name in found if name not in NOT_SETTINGS]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_no_rule_and_no_reference_reads_a_setting_of_keras(room):
    files = sorted(room.rglob("*.py"))
    assert len(files) > 10
    assert {
        str(file.relative_to(room)): found
        for file in files
        if (found := run_time_settings(file.read_text(encoding="utf-8")))
    } == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import keras\ndef f(x):\n    return x + keras.config.epsilon()", "keras.config.epsilon"),
        ("from keras import backend\ndef f():\n    backend.floatx()", "keras.backend.floatx"),
        ("from keras.config import floatx as f\ndef g():\n    f()", "keras.config.floatx"),
        ("import keras\nF = field(default_factory=keras.config.floatx)", "keras.config.floatx"),
    ],
)
def test_a_read_setting_is_found(source, name):
    assert run_time_settings(source) == [name]


def test_the_settings_of_cases_are_no_settings_of_the_rule():
    source = "import keras\n@rule(T, cases=[lambda: keras.config.floatx()])\ndef f(x): ..."
    assert run_time_settings(source) == []


def dropped():
    return (4,), [layers.Dense(3), layers.AlphaDropout(0.4, seed=1), layers.Dense(2)]


def rescaled():
    stack = [layers.Conv2D(3, 1), layers.Rescaling([0.1, 2.0, 3.0]), layers.Flatten()]
    return (3, 3, 3), [*stack, layers.Dense(2)]


def logarithmic():
    return (4,), [layers.Dense(2, "sigmoid")]


def step_of(make):
    keras.utils.set_random_seed(3)
    shape, stack = make()
    model = keras.Sequential([keras.Input(shape), *stack])
    model.compile("sgd", "mean_squared_logarithmic_error")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, *shape)), rng.uniform(0.1, 0.9, (6, 2))
    return recorded(model, x.astype("float32"), y.astype("float32"))


@pytest.fixture
def settings():
    """Put the settings of Keras back."""
    config = keras.config
    before = config.floatx(), config.image_data_format(), config.epsilon()
    yield config
    config.set_floatx(before[0])
    config.set_image_data_format(before[1])
    config.set_epsilon(before[2])


@pytest.mark.parametrize("make", [dropped, rescaled, logarithmic])
def test_settings_of_keras_that_change_after_a_step_do_not_change_its_verdict(
    make, settings, tmp_path
):
    step = step_of(make)
    before = table(*step)
    assert "fail" not in before
    assert "unjudged" not in before
    settings.set_floatx("float64")
    settings.set_image_data_format("channels_first")
    settings.set_epsilon(0.5)
    assert table(*step) == before
    write_step(tmp_path / "a.step", *step)
    again = read_step(tmp_path / "a.step")
    assert again[1].config == step[1].config
    assert table(*again) == before


@pytest.mark.parametrize("oracle", ["derived", "traced", "both"])
def test_an_oracle_may_be_given_as_text(oracle):
    x, y = next(iter(batches(built("dense"), 1)))
    found = derive(*recorded(built("dense"), x, y), Policy(oracle=oracle, stages=["gradient"]))
    assert {estimate.oracle for estimate in found.gradients.values()} == {Oracle(oracle)}
    assert Policy(oracle=oracle).oracle is Oracle(oracle)
    assert Policy(stages=["update"]).stages == (Stage.UPDATE,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"oracle": "nonsense"}, "oracle is 'nonsense'. Expected one of derived, traced, both"),
        ({"oracle": "numeric"}, "oracle is 'numeric'"),
        ({"oracle": Oracle.NUMERIC}, "Expected one of derived, traced, both"),
        ({"stages": ("gradient", "loss")}, "Expected a sequence of gradient and update"),
        ({"stages": "gradient"}, "stages is 'gradient'"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(wrong, words):
    with pytest.raises(UsageError, match=words):
        Policy(**wrong)


def squashed(call, x):
    size = 1 + np.abs(x)
    return x / size, lambda dy: (dy / size**2, {})


def test_a_rule_that_is_registered_between_two_judgements_is_used():
    x, y = next(iter(batches(built("with_code"), 1)))
    step = recorded(built("with_code"), x, y)
    case = Case("one", Squashed, (3, 4))
    mine = replace(
        find_rule(layers.ReLU), target=Squashed, function=squashed, cases=(case,), gaps=None
    )

    def oracles():
        return {each.oracle for each in derive(*step).gradients.values()}

    assert oracles() == {Oracle.DERIVED, Oracle.TRACED}
    with registered(mine):
        assert oracles() == {Oracle.DERIVED}
    assert oracles() == {Oracle.DERIVED, Oracle.TRACED}


def test_without_a_trace_derived_gradients_stay_judged_by_their_rules(tmp_path):
    x, y = next(iter(batches(built("dense"), 1)))
    write_step(tmp_path / "a.step", *recorded(built("dense"), x, y))
    record, spec = read_step(tmp_path / "a.step")
    found = compare(record, derive(record, spec, Policy(oracle=Oracle.BOTH)), 8.0)
    gradients = [each for each in found.tensors if each.stage is Stage.GRADIENT]
    assert found.verdict is Verdict.PASS
    assert {each.oracle for each in gradients} == {Oracle.DERIVED}
    assert {each.gaps for each in gradients} == {(GapCode.UNTRACEABLE,)}
    plain = compare(record, derive(record, spec), 8.0)
    assert {each.gaps for each in plain.tensors} == {()}
