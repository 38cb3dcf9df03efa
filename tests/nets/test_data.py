import sys

import numpy as np
import pytest

from gradaudit.errors import DataError, UnknownNameError, UsageError
from gradaudit.nets import NETS, encode_targets, import_build, read_table
from gradaudit.nets.data import iris_table


def table(tmp_path, text, target="y"):
    path = tmp_path / "data.csv"
    path.write_text(text)
    return read_table(path, target)


def test_a_table_is_read(tmp_path):
    found = table(tmp_path, "a, y ,b\n1,2,3\n4.5,6,-7e-1\n\n")
    assert found.columns == ("a", "b")
    np.testing.assert_array_equal(found.features, [[1, 3], [4.5, -0.7]])
    assert found.target == ("2", "6")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no rows"),
        ("a,y\n", "holds no rows"),
        ("a,y\n1,0\nx,1\n", r"row 2: the column 'a' is 'x'"),
        ("a,y\n1,0\n,1\n", r"row 2: the column 'a' is ''"),
        ("a,y\nnan,0\n", r"row 1: the column 'a' is 'nan'"),
        ("a,y\ninf,0\n", r"row 1: the column 'a' is 'inf'"),
        ("a,y\n1,0,3\n", "row 1: 3 cells. Expected 2"),
        ("a,a,y\n1,2,0\n", "names a column twice"),
        ("y\n1\n", "only the target column"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        table(tmp_path, text)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "none.csv", "y")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path, "y")


def test_a_binary_file_is_named(tmp_path):
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "data.csv", "y")


def test_a_target_that_is_no_column_is_named_with_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'species'"):
        table(tmp_path, "a,species\n1,0\n", "specie")


@pytest.mark.parametrize(
    ("cells", "kind", "outputs", "expected"),
    [
        ("012", "one_hot", 3, np.eye(3)),
        ("012", "integer", 3, [0, 1, 2]),
        ("bab", "integer", 2, [1, 0, 1]),
        ("010", "binary", 1, [[0], [1], [0]]),
        ("123", "real", 1, [[1], [2], [3]]),
    ],
)
def test_targets_are_encoded(tmp_path, cells, kind, outputs, expected):
    found = table(tmp_path, "a,y\n" + "".join(f"1,{cell}\n" for cell in cells))
    np.testing.assert_array_equal(encode_targets(found, kind, outputs), expected)


@pytest.mark.parametrize(
    ("cell", "kind", "words"),
    [
        ("3", "one_hot", "class 3.* Expected a class from 0 to 2"),
        ("-1", "integer", "class -1.* Expected a class from 0 to 2"),
        ("0.5", "integer", r"'y' is 0\.5\. Expected a class"),
        ("2", "binary", "Expected a class from 0 to 1"),
        ("nan", "real", "Expected a finite number"),
        ("x", "real", "Expected a finite number"),
    ],
)
def test_a_label_out_of_range_is_named_with_its_row(tmp_path, cell, kind, words):
    found = table(tmp_path, f"a,y\n1,0\n1,{cell}\n")
    with pytest.raises(DataError, match=f"row 2: the (target|column).*{words}"):
        encode_targets(found, kind, 3)


def test_the_iris_data_is_in_the_package():
    found = iris_table()
    assert found.features.shape == (150, 4)
    assert np.bincount(found.target_classes()).tolist() == [50, 50, 50]


def test_the_data_sets_of_the_nets_fit_them():
    for net in NETS.values():
        assert set(net.data) == set(net.about)
        for samples in net.data.values():
            x, y = samples()
            assert x.shape[1] == net.features
            assert len(x) == len(y)


@pytest.mark.parametrize("name", ["nets", "nets:", ":build", "nets:a.b"])
def test_a_model_name_of_another_form_is_refused(name):
    with pytest.raises(UsageError, match=r"not of the form package\.module:function"):
        import_build(name)


def test_a_function_is_imported_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text("def build():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_build("my_nets:build")() == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'build'"):
        import_build("my_nets:biuld")
    with pytest.raises(UsageError, match="module 'none' was not found"):
        import_build("none:build")
