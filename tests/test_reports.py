"""The committed sample runs: made again, they say the same."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradaudit import cli, load
from gradaudit.nets import NETS

COMMITTED = Path(__file__).parents[1] / "reports"
COMMAND = "gradaudit run --model all --epochs 1 --out reports --overwrite"
KEYS = {
    "steps": ["step", "epoch", "batch_size", "verdict"],
    "tensors": ["step", "stage", "path", "layer", "shape", "dtype", "oracle", "count", "verdict"],
    "weights": ["step", "stage", "path", "index", "verdict"],
}


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    folder = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", COMMAND.replace("--out reports", f"--out {folder}").split())
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    return folder


def test_the_command_is_the_documented_one():
    assert COMMAND in (COMMITTED.parent / "README.md").read_text()
    assert {path.parent.name for path in COMMITTED.glob("*/run.json")} == set(NETS)


@pytest.mark.long
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("table", KEYS)
def test_verdicts_keys_and_columns_are_the_same(again, net, table):
    old, new = (getattr(load(folder / net), table) for folder in (COMMITTED, again))
    assert list(old.columns) == list(new.columns)
    assert old[KEYS[table]].equals(new[KEYS[table]])


@pytest.mark.parametrize("net", NETS)
def test_run_json_has_the_same_keys_verdict_and_counts(again, net):
    old, new = (load(folder / net).run for folder in (COMMITTED, again))
    assert list(old) == list(new)
    for key in ("verdict", "counts", "threshold", "optimizer", "precision", "model", "coverage"):
        assert old[key] == new[key]


@pytest.mark.parametrize("net", NETS)
def test_numbers_agree_to_within_the_rounding_errors_of_the_steps_so_far(again, net):
    """Another processor rounds otherwise, and each step adds its own errors to the weights."""
    old, new = (load(folder / net).weights for folder in (COMMITTED, again))
    steps = old["step"] + 1
    scale = old.groupby(["step", "stage", "path"])["reference"].transform(lambda r: r.abs().max())
    allowed = 8 * steps * (old["sigma"] + 2.0**-24 * scale)
    for column in ("tape", "reference"):
        assert np.all((old[column] - new[column]).abs() <= allowed), column
    assert np.all((old["weight"] - new["weight"]).abs() <= 8 * steps * 2.0**-24 * 4)
    assert max(old["z"].max(), new["z"].max()) < 4


def test_the_committed_runs_are_small():
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*.csv")) < 400_000


def test_the_committed_table_of_published_numbers_is_the_present_one(tmp_path, monkeypatch):
    command = "gradaudit published --out reports/published.csv --overwrite"
    assert command in (COMMITTED.parent / "README.md").read_text()
    again = tmp_path / "published.csv"
    arguments = command.replace("reports/published.csv", str(again)).split()
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        cli.main()
    old, new = (
        pd.read_csv(p, dtype={"printed": str, "index": str})
        for p in (COMMITTED / "published.csv", again)
    )
    assert old.drop(columns="recomputed").equals(new.drop(columns="recomputed"))
    np.testing.assert_allclose(old["recomputed"], new["recomputed"], rtol=1e-12)
