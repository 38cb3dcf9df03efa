import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gradaudit import load
from gradaudit.errors import FolderError, GapCode
from gradaudit.records import (
    Comparison,
    Passed,
    Provenance,
    TensorComparison,
    WeightRows,
)
from gradaudit.report import RunFolder
from gradaudit.report.tables import guarded, unguarded
from gradaudit.report.weights import BLOCK, CsvFile, frame, tables

COLUMNS = {
    "steps.csv": "step,replica,epoch,batch_size,loss_tape,loss_reference,loss_z,max_z,worst_path,"
    "worst_index,verdict,judged_by,capture_ms,reference_ms,update_ms,compare_ms,report_ms",
    "tensors.csv": "step,replica,stage,path,layer,shape,dtype,oracle,count,tape_norm,"
    "reference_norm,max_abs_diff,rel_l2_diff,max_z,worst_index,detectable_rel,kinks,verdict,cause,"
    "gaps,provenance",
    "weights.csv": "step,replica,stage,path,index,weight,tape,reference,abs_diff,rel_diff,"
    "sigma,z,verdict",
}


FILES = ("steps.csv", "tensors.csv", "weights.csv", "run.json")


def tensor(path="net/dense/kernel", shape=(2, 3), **changes):
    values = dict(
        stage="gradient", path=path, layer=path.rpartition("/")[0], shape=shape, dtype="float32",
        oracle="derived", tape_norm=1.0, reference_norm=1.0, max_abs_diff=1 / 3, rel_l2_diff=0.1,
        max_z=1.0, worst_index=(0,) * len(shape), kappa=1.0, detectable_rel=1e-6, kinks=0,
        counts={"pass": int(np.prod(shape))}, verdict="pass", cause="", rows=int(np.prod(shape)),
    )  # fmt: skip
    return TensorComparison(**{**values, **changes})


def rows(tensor, step=0, place=None, **changes):
    rng = np.random.default_rng(0)
    count = tensor.rows if place is None else len(place)
    numbers = {
        name: rng.standard_normal(count) / 3
        for name in ("weight", "tape", "reference", "sigma", "z")
    }
    verdict = np.zeros(count, np.uint8)
    return WeightRows(
        step, 0, tensor.stage, tensor.path, tensor.shape, place, **{**numbers, **changes},
        verdict=verdict,
    )  # fmt: skip


def comparison(*tensors, step=0, **changes):
    values = dict(
        step=step, replica=0, epoch=0, batch_size=5,
        loss_tape=1 / 3, loss_reference=1 / 3, loss_z=0.1,
        tensors=tensors, max_z=1.5, worst_path=tensors[0].path if tensors else "",
        worst_index=(1, 2), verdict="pass", capture_ms=1.0, reference_ms=2.0, compare_ms=0.5,
    )  # fmt: skip
    return Comparison(**{**values, **changes})


def write(folder, *tensors, step=0, **changes):
    """Write a step as an audit does: the rows of each tensor, then the step."""
    folder.begin()
    for each in tensors:
        folder.add(rows(each, step))
    folder.append(comparison(*tensors, step=step, **changes))


def folder(path, overwrite=False, format="csv"):
    return RunFolder(path, overwrite, format)


def test_the_time_of_a_report_is_that_of_all_tables_but_the_last(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("gradaudit.report.folder.time", clock)
    append, seal = RunFolder._append, CsvFile.seal

    def slow(self, name, rows):
        clock.now += {"tensors.csv": 2, "steps.csv": 4}[name]
        append(self, name, rows)

    def slow_seal(self):
        clock.now += 1
        seal(self)

    monkeypatch.setattr(RunFolder, "_append", slow)
    monkeypatch.setattr(CsvFile, "seal", slow_seal)
    write(folder(tmp_path), tensor(), report_ms=500.0)
    assert list(load_steps(tmp_path)["report_ms"]) == [3_500.0]


def load_steps(path):
    return pd.read_csv(path / "steps.csv")


def test_the_columns_are_those_of_the_schema(tmp_path):
    write(folder(tmp_path), tensor())
    for name, columns in COLUMNS.items():
        assert (tmp_path / name).read_text().splitlines()[0] == columns


def test_what_is_loaded_is_what_was_written(tmp_path):
    bias = tensor("net/dense/bias", (3,))
    scalar = tensor("sgd/iteration", ())
    written = folder(tmp_path)
    write(written, tensor(), bias, scalar)
    write(written, bias, step=1, worst_index=(2,))
    run = load(tmp_path)
    assert list(run.steps["step"]) == [0, 1]
    assert list(run.steps["worst_index"]) == ["1,2", "2"]
    assert list(run.steps["loss_tape"]) == [1 / 3, 1 / 3]
    assert list(run.tensors["shape"]) == ["2x3", "3", "", "3"]
    kernel = run.weights[run.weights["path"] == "net/dense/kernel"]
    assert list(kernel["index"]) == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    for column in ("tape", "reference", "weight", "sigma", "z"):
        np.testing.assert_array_equal(kernel[column], getattr(rows(tensor()), column))
    assert list(run.weights[run.weights["path"] == "net/dense/bias"]["index"])[:3] == [
        "0",
        "1",
        "2",
    ]
    assert list(run.weights[run.weights["path"] == "sgd/iteration"]["index"]) == [""]
    assert run.run["verdict"] == "running"


def test_numbers_that_are_not_finite_come_back(tmp_path):
    odd, written = tensor(shape=(3,)), folder(tmp_path)
    tape, z = np.array([np.inf, -np.inf, np.nan]), np.array([np.inf, 0, 1])
    written.add(rows(odd, tape=tape, z=z))
    written.append(comparison(odd, max_z=np.nan))
    run = load(tmp_path)
    np.testing.assert_array_equal(run.weights["tape"], [np.inf, -np.inf, np.nan])
    assert run.weights["z"][0] == np.inf
    assert np.isnan(run.steps["max_z"][0])


@pytest.mark.parametrize(
    "name", ["=1+1/kernel", "+a/b", "-a/b", "@a/b", "'a/b", 'ä, "b"/c', "a\nb"]
)
def test_a_name_is_no_formula_and_comes_back(tmp_path, name):
    write(folder(tmp_path), tensor(name))
    raw = pd.read_csv(tmp_path / "tensors.csv", dtype=str, keep_default_na=False)
    assert raw["path"][0][0] not in "=+-@"
    run = load(tmp_path)
    assert {*run.tensors["path"], *run.weights["path"], *run.steps["worst_path"]} == {name}


def test_guarding_is_undone():
    for text in ("=a", "'a", "a", "", "''a", "\tb"):
        assert unguarded(guarded(text)) == text


def test_rows_reach_the_disk_as_they_are_made(tmp_path):
    written = folder(tmp_path)
    for step in range(3):
        write(written, tensor(), step=step)
        for name in FILES[:3]:
            assert (tmp_path / name).read_bytes().endswith(b"\n")
        assert len(load(tmp_path).steps) == step + 1


def test_another_run_is_refused_and_left_alone(tmp_path):
    write(folder(tmp_path), tensor())
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FolderError, match="holds a run already"):
        folder(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held


def test_overwriting_replaces_the_run_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write(folder(tmp_path), tensor())
    again = folder(tmp_path, overwrite=True)
    assert len(load(tmp_path).steps) == 1  # until there is something to write
    again.write_run({"verdict": "aborted"})
    assert len(load(tmp_path).steps) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="cannot be written to"):
        folder(tmp_path / "file" / "run")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FolderError, match=r"is not a run: it has no steps\.csv"):
        load(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_run_is_named(tmp_path, name):
    write(folder(tmp_path), tensor())
    (tmp_path / name).write_text("{broken,\n1,2,3\n")
    with pytest.raises(FolderError, match="is damaged"):
        load(tmp_path)


def test_an_older_run_is_read_and_a_newer_one_is_refused(tmp_path):
    run = folder(tmp_path)
    write(run, tensor())
    run.write_run({"verdict": "pass"})
    told = json.loads((tmp_path / "run.json").read_text())
    steps = ["compare_ms", "update_ms", "judged_by"]
    for name, added in (("steps.csv", steps), ("tensors.csv", ["gaps", "provenance"])):
        pd.read_csv(tmp_path / name).drop(columns=added).to_csv(tmp_path / name, index=False)
    (tmp_path / "run.json").write_text(json.dumps({**told, "schema_version": 2}))
    found = load(tmp_path)
    assert found.steps[["compare_ms", "update_ms"]].isna().all(axis=None)
    assert found.steps["judged_by"].tolist() == [""]
    assert (found.tensors[["gaps", "provenance"]] == "").all(axis=None)
    (tmp_path / "run.json").write_text(json.dumps({**told, "schema_version": 99}))
    with pytest.raises(FolderError, match=r"schema version 99.*Upgrade gradaudit"):
        load(tmp_path)


def test_run_json_is_replaced_as_a_whole(tmp_path):
    written = folder(tmp_path)
    written.write_run({"schema_version": 1, "verdict": "pass", "path": tmp_path})
    assert json.loads((tmp_path / "run.json").read_text())["path"] == str(tmp_path)
    assert not list(tmp_path.glob("*.new"))


def test_reasons_and_provenance_can_be_filtered_by(tmp_path):
    custom, numeric = Provenance(Passed.CUSTOM, function="f"), Provenance(Passed.NUMERIC, op="p")
    again = Provenance(Passed.CUSTOM, function="g")
    written = folder(tmp_path)
    write(
        written,
        tensor(provenance=(numeric, custom, again)),
        tensor("net/dense/bias", (3,), gaps=(GapCode.OP, GapCode.DATA)),
    )
    tensors = load(tmp_path).tensors
    assert list(tensors["provenance"]) == ["custom numeric", ""]
    assert list(tensors["gaps"]) == ["", "op data"]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_of_a_step_that_was_not_finished_are_forgotten(tmp_path, format):
    """Also those that have reached the disk already, as a large tensor's do."""
    large, written = tensor(shape=(BLOCK, 2)), folder(tmp_path, format=format)
    write(written, tensor())
    written.begin()
    written.add(rows(large, step=1))
    size = sum(path.stat().st_size for path in tmp_path.rglob("*"))
    assert size > 2 * BLOCK
    write(written, tensor("net/dense/bias", (3,)), step=1)
    written.begin()
    written.add(rows(large, step=2))
    assert set(load(tmp_path).weights["step"]) == {0, 1}  # as a killed process leaves it
    written.write_run({"verdict": "pass"})
    run = load(tmp_path)
    assert run.weights.groupby("step").size().tolist() == [6, 3]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < size / 10


def test_half_a_line_that_a_killed_process_left_is_no_row(tmp_path):
    written = folder(tmp_path)
    write(written, tensor())
    with open(tmp_path / "weights.csv", "a") as file:
        file.write('1,0,"gradient","net/dense/ker')
    assert len(load(tmp_path).weights) == 6


def test_parquet_files_hold_what_the_text_does(tmp_path):
    large = tensor(shape=(70_000,))
    place = np.array([0, 3, 69_999])
    for format in ("csv", "parquet"):
        written = folder(tmp_path / format, format=format)
        for step in range(2):
            written.begin()
            for each in (tensor("=net/kernel"), large, tensor("sgd/iteration", ())):
                written.add(rows(each, step))
            written.add(rows(large, step, place, tape=np.array([np.nan, np.inf, 1e-300])))
            written.append(comparison(tensor(), step=step))
    csv, parquet = (load(tmp_path / format).weights for format in ("csv", "parquet"))
    pd.testing.assert_frame_equal(csv, parquet)
    assert csv["index"].iloc[-3:].tolist() == ["0", "3", "69999"]
    read = pd.read_parquet(tmp_path / "parquet" / "weights.parquet")
    assert read["path"].iloc[0] == "'=net/kernel"
    pd.testing.assert_frame_equal(
        read.iloc[6:, 4:].reset_index(drop=True), csv.iloc[6:, 4:].reset_index(drop=True)
    )


def test_a_run_in_another_format_is_replaced(tmp_path):
    write(folder(tmp_path, format="parquet"), tensor())
    with pytest.raises(FolderError, match=r"holds a run already .*weights\.parquet"):
        folder(tmp_path)
    write(folder(tmp_path, overwrite=True), tensor())
    assert not (tmp_path / "weights.parquet").exists()
    assert len(load(tmp_path).weights) == 6


def test_rows_are_made_in_blocks_and_never_one_by_one(monkeypatch):
    """The number of Python calls does not grow with the number of rows in a block."""

    def calls(count):
        made = 0

        def count_calls(frame, event, argument):
            nonlocal made
            made += event in ("call", "c_call")

        each = rows(tensor(shape=(count,)))
        sys.setprofile(count_calls)
        try:
            list(tables([each]))
        finally:
            sys.setprofile(None)
        return made

    assert calls(BLOCK) <= calls(10) + 10
    many = [rows(tensor(shape=(7,))) for _ in range(3)]
    assert len(list(tables(many))) == 1
    assert len(frame(list(tables([rows(tensor(shape=(2 * BLOCK + 1,)))])))) == 2 * BLOCK + 1
