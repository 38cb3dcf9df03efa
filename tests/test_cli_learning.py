"""`gradaudit published` and `gradaudit explain`, as a shell sees them."""

import csv
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from gradaudit import cli

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def gradaudit(monkeypatch, capfd):
    def call(line, *more):
        monkeypatch.setattr(sys, "argv", ["gradaudit", *line.split(), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return call


KEYS = ["model", "quantity", "index", "given", "printed", "recomputed", "verdict", "diagnosis"]


def test_the_published_numbers_as_a_table_and_as_files(gradaudit):
    code, out, err = gradaudit("published --out p.csv --out p.html")
    assert code == 1
    assert "62 published numbers: 26 agree, 13 are cut, 21 disagree, 2 cannot be checked." in out
    assert len(re.findall(r"^ (?:iris|deep_tanh) ", out, re.M)) == 62
    assert err == "gradaudit: wrote p.csv\ngradaudit: wrote p.html\n"
    table = pd.read_csv("p.csv", keep_default_na=False)
    assert list(table.columns) == KEYS
    assert len(table) == 62
    page = Path("p.html").read_text()
    assert page.count("<tr><td>") == 62
    assert "26 agree, 13 are cut" in page


def test_printed_numbers_stay_as_printed_and_words_cannot_be_formulas(gradaudit):
    gradaudit("published --out p.csv")
    with open("p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "-0.4220" in {row["printed"] for row in rows}
    assert {row["given"] for row in rows if row["quantity"] == "loss"} == {
        "'-log(probability of the target), logarithm written log_2",
        "the net above",
    }


def test_json_is_a_list_of_objects(gradaudit):
    code, out, _ = gradaudit("published --json --model iris")
    found = json.loads(out)
    assert code == 1
    assert [list(row) for row in found] == [KEYS] * 25
    assert {row["verdict"] for row in found} == {"agrees", "cut", "disagrees", "cannot be checked"}
    assert found[0]["printed"] == 0.91119
    assert found[0]["recomputed"] == pytest.approx(0.9112)
    assert found[1]["recomputed"] is None


HEADER = "model,quantity,index,printed,given\n"
OWN = """
import keras, numpy as np

def build():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="line")])
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
    model.set_weights([np.array([[3.0], [1.0]]), np.array([0.0])])
    return model
"""


def test_claims_of_one_s_own_about_a_built_in_net(gradaudit):
    Path("c.csv").write_text(
        HEADER + 'deep_tanh,activation_1,0,-0.976,\ndeep_tanh,loss,,0.44,"x, W"\n'
    )
    assert gradaudit("published --claims c.csv")[0] == 0
    Path("c.csv").write_text(HEADER + "deep_tanh,activation_1,7,-0.976,\n")
    code, out, _ = gradaudit("published --claims c.csv --model deep_tanh")
    assert code == 3
    assert "no index (7,)" in out


def test_claims_about_a_net_of_one_s_own(gradaudit):
    Path("my_nets.py").write_text(OWN)
    model = "my_nets:build"
    rows = [f'{model},output,0,5.0,"input 1 2"', f'{model},dkernel,"1,0",4.0,"input 1 2, target 4"']
    Path("c.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert gradaudit(f"published --claims c.csv --model {model}")[0] == 0
    Path("d.csv").write_text("a,b,y\n9,9,9\n1,2,4\n")
    rows = [f"{model},output,0,5.0,", f'{model},dkernel,"1,0",-4.000,']
    Path("c.csv").write_text(HEADER + "\n".join(rows) + "\n")
    options = f"--claims c.csv --model {model} --data d.csv --target y --row 1 --json"
    code, out, _ = gradaudit(f"published {options}")
    found = json.loads(out)
    assert code == 1
    assert [row["verdict"] for row in found] == ["agrees", "disagrees"]
    assert found[1]["diagnosis"] == "the wrong sign"


def test_claims_that_name_another_net_are_not_passed_over_in_silence(gradaudit):
    Path("my_nets.py").write_text(OWN)
    Path("c.csv").write_text(HEADER + 'a_net,output,0,5.0,"input 1 2"\n')
    assert gradaudit("published --claims c.csv --model my_nets:build")[0] == 0
    rows = ['my_nets:build,output,0,5.0,"input 1 2"', "iris,loss,,1.0,", "iris,loss,,2.0,"]
    Path("c.csv").write_text(HEADER + "\n".join(rows) + "\n")
    code, out, err = gradaudit("published --claims c.csv --model my_nets:build")
    assert (code, err) == (0, "gradaudit: left out 2 claims about other nets\n")
    assert "1 published number: 1 agrees." in out


def test_weights_that_are_not_published_are_drawn_from_the_seed(gradaudit):
    said = '"input 1 1 1, target 1"'
    Path("c.csv").write_text(HEADER + f"sigmoid_mse,output,0,0.5,{said}\n")
    found = [
        json.loads(gradaudit(f"published --claims c.csv --seed {seed} --json")[1])[0]["recomputed"]
        for seed in (0, 0, 5)
    ]
    assert found[0] == found[1] != found[2]


ODD = """
import keras
from keras import layers

def compiled(*made, **options):
    model = keras.Model(*made)
    model.compile("sgd", **options)
    return model

def two_inputs():
    a, b = keras.Input((2,)), keras.Input((2,))
    return compiled([a, b], layers.Dense(1)(a), loss="mse")

def two_outputs():
    a = keras.Input((2,))
    return compiled(a, [layers.Dense(1)(a), layers.Dense(1)(a)], loss=["mse", "mse"])

def sequence():
    a = keras.Input((None, 3))
    return compiled(a, layers.Dense(1)(a), loss="mse")

def unbuilt():
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def without_loss():
    a = keras.Input((2,))
    return compiled(a, layers.Dense(1)(a))
"""


@pytest.mark.parametrize(
    "net", ["two_inputs", "two_outputs", "sequence", "unbuilt", "without_loss"]
)
def test_nets_that_claims_cannot_be_about_are_told(gradaudit, net):
    Path("my_nets.py").write_text(ODD)
    Path("c.csv").write_text(HEADER + "x,loss,,0.5,\n")
    code, _, err = gradaudit(f"published --claims c.csv --model my_nets:{net}")
    assert code == 2
    assert "one array of a known shape" in err or "compiled without a loss" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("published --claims nothing.csv", "there is no file nothing.csv"),
        (
            "published --model iri",
            "no claims about the model iri. It has some about iris, deep_tanh",
        ),
        ("published --row 3", "for one net. Name it with --model"),
        ("published --model iris --row 3", "--row is one of --data"),
        ("published --model iris --data iris --row 150", "from 0 to 149"),
        ("published --out p.pdf", "Expected a name in .csv or .html"),
        ("published --out there.csv", "there.csv is there already"),
        ("published --out no/p.csv", "there is no folder no"),
        ("explain --model iris", "weight"),
        ("explain --model iri --weight W[0,0]", "there is no model 'iri'. Did you mean 'iris'?"),
        ("explain --model iris --weight W[0,3]", "up to [3,2]"),
        ("explain --model iris --weight W[0,0] --row 150", "from 0 to 149"),
        ("explain --model iris --weight W[0,0] --step 20 --epochs 2", "one of the 20 steps"),
        ("explain --model iris --weight W[0,0] --step 20 --epochs 2 --row 1", None),
        (
            "explain --model iris --weight W[0,0] --step 21 --epochs 2 --row 1",
            "one of the 20 steps",
        ),
        ("explain --model iris --weight W[0,0] --data worked", "data set of iris 'worked'"),
        ("explain --model iris --weight W[0,0] --out there.csv", "in .txt or .md or .html"),
        ("explain --model iris --weight W[0,0] --threshold -1", "Expected a number above 0"),
        ("explain --model my_nets:build --weight W[0,0]", "needs --data FILE.csv"),
    ],
)
def test_what_is_asked_for_wrongly_is_told_in_one_line(gradaudit, line, words):
    Path("there.csv").write_text("kept")
    code, out, err = gradaudit(line)
    assert Path("there.csv").read_text() == "kept"
    if words is None:
        assert code == 0
        return
    assert code == 2
    assert err.count("\n") == 1
    assert words in err
    assert out == ""


def test_a_weight_is_explained_in_three_formats(gradaudit):
    line = "explain --model deep_tanh --data worked --weight W2[0,1]"
    code, out, err = gradaudit(line)
    assert (code, err) == (0, "")
    assert "= -0.0326279856431410" in out
    assert gradaudit(f"{line} --out e.txt --out e.md --out e.html")[:2] == (0, "")
    assert Path("e.txt").read_text() == out
    assert Path("e.md").read_text().startswith("### $W_{2}[0,1]$ of `deep_tanh`, step 0")
    assert "<h1><i>W</i><sub>2</sub>[0,1] of" in Path("e.html").read_text()
    assert gradaudit(f"{line} --out e.txt")[0] == 2
    assert gradaudit(f"{line} --out e.txt --overwrite")[0] == 0


@pytest.mark.long
def test_rows_and_steps_of_a_training(gradaudit):
    line = "explain --model sigmoid_mse --optimizer adam --weight hidden/kernel[0,1] --epochs 1"
    _, all_rows, _ = gradaudit(f"{line} --step 4")
    _, one_row, _ = gradaudit(f"{line} --step 4 --row 30")
    assert "step 4: how it gets" in all_rows
    assert "16 rows in the batch" in all_rows
    assert "1 row in the batch" in one_row
    weight = re.compile(r"kernel\[0,1\] = (\S+),")
    assert weight.search(all_rows)[1] == weight.search(one_row)[1]


def test_a_net_of_one_s_own_is_explained(gradaudit):
    Path("my_nets.py").write_text(OWN)
    Path("d.csv").write_text("a,b,y\n1,2,4\n")
    line = "explain --model my_nets:build --data d.csv --target y --weight line/kernel[1,0]"
    code, out, _ = gradaudit(line)
    assert code == 0
    assert "2.0 × 2.0 = 4.0" in out  # x = 2, dL/dy = 2 (y - d) = 2


def test_every_option_is_explained(gradaudit):
    _, out, _ = gradaudit("explain --help")
    for option in (
        "--model --weight --data --target --row --step --epochs --batch-size --optimizer --seed "
        "--learning-rate --threshold --jit --no-jit --eager --precision --no-bias --out --overwrite"
    ).split():
        assert option in out
    _, out, _ = gradaudit("published --help")
    for option in (
        "--claims --model --data --target --row --seed --out --overwrite --json"
    ).split():
        assert option in out
