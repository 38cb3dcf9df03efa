"""A step's verdict depends on the step alone."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import pytest
from keras import layers

import gradaudit
import recorded_steps
from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import read_step
from gradaudit.errors import DataError
from gradaudit.records import Oracle, Stage
from gradaudit.reference import Policy, derive
from recorded_steps import NETS, TRACED, batches, built, record, table
from suite import by_default


def in_a_process_of_its_own(*paths):
    """Return the tables that a new process makes of recorded steps."""
    root = str(Path(gradaudit.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, recorded_steps.__file__, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed(path, expected):
    """Return what a process prints that judges a file as it was judged here."""
    name = path.name.partition("-")[0]
    return (expected + "\n") * (1 if name in TRACED else 2)


def judged_in_any_order(folder, names, steps):
    """Return files and tables of recorded steps, once they are the same in both orders."""
    held = [each for name in names for each in record(folder, name, steps)]
    first = [table(*step) for _, step in held]
    again = [table(*step) for _, step in reversed(held)][::-1]
    assert again == first
    assert [
        path.name for (path, _), each in zip(held, first, strict=True) if "unjudged" in each
    ] == []
    return [path for path, _ in held], first


@pytest.mark.long
def test_steps_are_judged_alike_in_any_order_and_in_another_process(tmp_path):
    paths, found = judged_in_any_order(tmp_path, ["graph", "odd"], 2)
    expected = "".join(map(printed, paths, found))
    assert in_a_process_of_its_own(*paths) == expected


@pytest.mark.long
def test_thirty_steps_are_judged_alike_in_any_order_and_each_in_its_own_process(tmp_path):
    paths, found = judged_in_any_order(tmp_path, list(NETS), 3)
    assert len(paths) >= 30
    with ThreadPoolExecutor(2) as pool:
        for path, expected, own in zip(
            paths, found, pool.map(in_a_process_of_its_own, paths), strict=True
        ):
            assert own == printed(path, expected), path.name


def test_an_odd_batch_does_not_turn_the_second_oracle_off():
    model = built("odd")
    oracles = []
    for x, y in batches(model, 3):
        found = derive(*recorded(model, x, y), Policy(oracle=Oracle.BOTH))
        oracles.append({estimate.oracle for estimate in found.gradients.values()})
    assert oracles == [{Oracle.BOTH}, {Oracle.TRACED}, {Oracle.BOTH}]


@pytest.fixture
def _epsilon_is_kept():
    epsilon = keras.config.epsilon()
    yield
    keras.config.set_epsilon(epsilon)


@pytest.mark.usefixtures("_epsilon_is_kept")
@pytest.mark.parametrize("name", by_default(["dense", "two_outputs"], ["dense"]))
def test_what_is_changed_after_a_step_does_not_change_its_verdict(name):
    """The step is judged after the change alone, so nothing is kept of a judgement before it."""
    untouched, model = built(name), built(name)
    (batch,) = batches(model, 1)
    own, other = model.optimizer.name, untouched.optimizer.name  # Keras numbers them
    expected = table(*recorded(untouched, *batch)).replace(f"{other}/", f"{own}/")
    expected = expected.replace(f",{other},", f",{own},")
    step = recorded(model, *batch)
    model.optimizer.beta_1 = 0.5
    model.get_layer("part_0").trainable = False
    model.get_layer("part_0").activation = keras.activations.relu
    model.compile("sgd", "mae")
    keras.config.set_epsilon(0.1)
    keras.config.set_floatx("float64")
    assert table(*step) == expected


def test_updates_can_be_derived_twice():
    model = built("dense")
    (x, y), *_ = batches(model, 1)
    reference = derive(*recorded(model, x, y))
    first, second = ([path for path, _ in reference.updates()] for _ in range(2))
    assert first == second
    assert len(first) > len(reference.gradients)


@pytest.mark.long
def test_a_file_alone_judges_what_has_derived_rules(tmp_path):
    ((path, step),) = record(tmp_path, "images", 1)
    assert table(*read_step(path)) == table(*step)


def test_a_file_without_the_model_s_code_says_what_it_cannot_judge(tmp_path):
    ((path, _),) = record(tmp_path, "with_code", 1)
    found = derive(*read_step(path))
    reasons = {gap.message for gaps in found.unjudged.values() for gap in gaps}
    assert any("does not hold the model's code" in reason for reason in reasons)
    assert {stage for stage, _ in found.unjudged} == {Stage.GRADIENT}


def test_a_file_of_another_model_or_of_none_is_refused(tmp_path):
    ((path, _),) = record(tmp_path, "dense", 1)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="other")])
    with pytest.raises(DataError, match=r"another model than.*Dense, Dense"):
        read_step(path, other)
    path.write_bytes(b"not a step")
    with pytest.raises(DataError, match="cannot be read as a recorded step"):
        read_step(path)
