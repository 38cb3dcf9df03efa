"""Every cell of the matrix: undisturbed, and judged or unjudged for the reason that it states."""

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import test_callback
from gradaudit import GradientAudit, load
from gradaudit.rules import variable_keys
from matrix import CELLS, page
from matrix.chosen import CHOSEN
from matrix.precision import MODES, POLICIES

ALL = [
    pytest.param(
        cell,
        id=f"{group}: {cell.name}",
        marks=() if cell.name in CHOSEN[group] else pytest.mark.long,
    )
    for group, cells in CELLS.items()
    for cell in cells
]


def trained(cell, callbacks):
    """Return what a training leaves: its history, and every variable of model and optimizer."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = cell.make()
    history = cell.train(model, callbacks)
    variables = [*model.variables, *model.optimizer.variables]
    return model, history, [np.array(v.value.numpy()) for v in variables]


@pytest.mark.parametrize("cell", ALL)
def test_a_cell(cell, tmp_path):
    with warnings.catch_warnings():
        # Keras reads its own variables in a way that NumPy 2 warns of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        if cell.warns:
            warnings.filterwarnings("ignore", f".*{cell.warns}")
        _, alone, expected = trained(cell, [])
        audit = GradientAudit(tmp_path / "run", verbose=0)
        model, history, found = trained(cell, [audit])

    np.testing.assert_equal(history, alone)
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)

    run = load(tmp_path / "run")
    captures = "failed in capturing" in cell.gradient
    assert run.run["faults"]["count"] == 0 or captures, run.run["faults"]["tracebacks"][0]
    for stage, reason in (("gradient", cell.gradient), ("update", cell.update)):
        rows = run.tensors[run.tensors["stage"] == stage]
        if reason:
            assert set(rows["verdict"]) == {"unjudged"}, stage
            assert rows["cause"].str.contains(reason, regex=False).all(), set(rows["cause"])
        elif stage == "update" and cell.some_update:
            assert set(rows["verdict"]) == {"pass", "unjudged"}
            causes = rows.loc[rows["verdict"] == "unjudged", "cause"]
            assert causes.str.contains(cell.some_update, regex=False).all()
        else:
            failed = rows[rows["verdict"] == "fail"]
            assert set(rows["verdict"]) <= {"pass", "kink", "unresolved", cell.verdict}
            assert failed["cause"].str.startswith("stale: ").all()
    assert bool(run.run["stale"]) == bool(cell.stale)
    assert all(cell.stale in words for words in run.run["stale"][:1])
    judged = not (cell.gradient or cell.update or cell.some_update)
    assert run.verdict == (cell.verdict or ("pass" if judged else "unjudged"))
    assert bool(run.run["unjudged"]) == (run.verdict == "unjudged")
    assert len(run.steps) == run.run["coverage"]["steps_audited"] * run.run["replicas"]
    assert run.run["coverage"]["steps_audited"] == run.run["coverage"]["steps_trained"] > 0
    steps = sorted(zip(run.steps["step"], run.steps["replica"], strict=True))
    for stage in ("gradient", "update"):
        rows = run.tensors[run.tensors["stage"] == stage]
        keys = variable_keys(model)
        for path in (keys[id(variable)] for variable in model.trainable_variables):
            own = rows[rows["path"] == path]
            if "after a layer was unfrozen" not in cell.name:
                assert sorted(zip(own["step"], own["replica"], strict=True)) == steps, path


def test_the_page_shows_the_table_that_the_tests_run():
    written = (Path(__file__).parent / "matrix" / "README.md").read_text()
    assert written == page()


def test_the_matrix_is_large_enough_and_names_each_cell_once():
    names = [parameter.id for parameter in ALL]
    assert len(set(names)) == len(names) >= 120


def test_the_cells_that_run_by_default_are_of_every_group_and_kind():
    by_default = {}
    for group, cells in CELLS.items():
        by_default[group] = [cell for cell in cells if cell.name in CHOSEN[group]]
        assert len(by_default[group]) == len(CHOSEN[group]) >= 2, group
    assert CHOSEN.keys() == CELLS.keys()
    chosen = [cell for cells in by_default.values() for cell in cells]
    for stage in ("gradient", "update", "some_update", "stale", "verdict", "warns"):
        assert any(getattr(cell, stage) for cell in chosen), stage
    reasons = {cell.gradient for cells in CELLS.values() for cell in cells}
    assert reasons == {cell.gradient for cell in chosen}
    precisions = [cell.name for cell in by_default["Precision"]]
    precisions += [f"{precision}, {mode}" for _, precision, mode, _ in test_callback.CHOSEN]
    for word in (*POLICIES[1:], *MODES):  # float32 is everywhere else
        assert any(word in name.split(", ") for name in precisions), word
