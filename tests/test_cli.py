"""The command line, as a shell sees it: stdout, stderr, exit code, files."""

import importlib
import importlib.metadata
import json
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradaudit import load
from suite import by_default

GRADAUDIT = [sys.executable, "-m", "gradaudit"]


pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.mark.parametrize("model", ["iris", "deep_tanh", "sigmoid_mse"])
def test_a_net_is_trained_audited_and_reported(gradaudit, model):
    code, out, err = gradaudit("run", "--model", model, "--epochs", 1)
    assert code == 0
    run = load(f"runs/{model}")
    counted = f"{len(run.steps)} steps audited ({len(run.weights)} pass), worst z"
    assert f"PASS, {counted}" in out
    assert f"Report: runs/{model}" in out
    assert "steps  worst z" in err
    assert load(f"runs/{model}").verdict == "pass"
    code, out, _ = gradaudit("show", f"runs/{model}")
    assert code == 0
    assert all(path in out for path in set(load(f"runs/{model}").tensors["path"]))


def test_every_run_gets_a_folder_of_its_own(gradaudit):
    for _ in range(2):
        assert gradaudit("run", "--model", "iris", "--epochs", 1, "--every", 5)[0] == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["iris", "iris-2"]


def test_all_trains_each_net_into_its_own_folder(gradaudit):
    assert gradaudit("run", "--model", "all", "--epochs", 1, "--every", 9, "--out", "here")[0] == 0
    assert sorted(path.name for path in Path("here").iterdir()) == [
        "deep_tanh", "iris", "sigmoid_mse",
    ]  # fmt: skip


def test_the_options_reach_the_run(gradaudit):
    options = (
        "--epochs 2 --batch-size 60 --optimizer nesterov --learning-rate 0.02 --seed 5 --every 2 "
        "--precision float64 --no-bias --threshold 9 --eager --out here"
    ).split()
    code, out, _ = gradaudit("run", "--model", "iris", *options, "--json")
    run = json.loads(out)
    assert code == 0
    assert run == load("here").run
    assert run["optimizer"]["nesterov"] is True
    assert run["optimizer"]["momentum"] == 0.9
    assert run["optimizer"]["learning_rate"] == pytest.approx(0.02)
    assert (run["seed"], run["threshold"], run["eager"], run["jit"]) == (5, 9, True, False)
    assert run["precision"]["floatx"] == "float64"
    assert run["coverage"] == {"steps_trained": 6, "steps_audited": 3}
    assert run["model"]["weights"] == 12


def test_the_published_row_is_trained_on_in_float64(gradaudit):
    arguments = "run --model deep_tanh --data worked --optimizer sgd --learning-rate 1 --epochs 1"
    code, _, _ = gradaudit(*arguments.split())
    weights = load("runs/deep_tanh").weights.set_index(["stage", "path", "index"])
    assert code == 0
    reference = weights["reference"]["gradient", "deep_tanh/layer_2/kernel", "0,0"]
    assert reference == pytest.approx(0.2337731042079732, rel=1e-12)


def test_a_csv_file_trains_a_built_in_net(gradaudit):
    rows = ["5.1,3.5,1.4,0.2,setosa", "7.0,3.2,4.7,1.4,versicolor", "6.3,3.3,6.0,2.5,virginica"]
    Path("flowers.csv").write_text("a,b,c,d,kind\n" + "\n".join(rows) + "\n")
    code, _, _ = gradaudit("run", "--model", "iris", "--data", "flowers.csv", "--target", "kind")
    assert code == 0
    assert load("runs/iris").steps["batch_size"][0] == 3


OWN = """
import keras
import tensorflow as tf

def build():
    model = keras.Sequential([
        keras.Input((2,)), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3),
    ])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model

def wrong():
    model = build()
    layer = model.layers[0]

    @tf.custom_gradient
    def nudged(kernel):
        factor = [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0001, 1.0, 1.0]]
        return tf.identity(kernel), lambda dkernel: dkernel * tf.constant(factor)

    layer.call = lambda x, training=None: layer.activation(
        tf.matmul(x, nudged(tf.identity(layer.kernel.value))) + layer.bias
    )
    return model

def uncompiled():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])

def outside(x):
    y = tf.py_function(lambda t: tf.cast(2 * t, "float32"), [x], x.dtype)
    return tf.ensure_shape(y, x.shape)

def without_a_rule():
    layers = [keras.layers.Dense(1), keras.layers.Lambda(outside)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile("sgd", "mse")
    return model
"""


@pytest.fixture
def own():
    Path("my_nets.py").write_text(OWN)
    rows = "".join(f"{i % 7 - 2.5},{(i * i) % 5 + 0.5},{'rgb'[i % 3]}\n" for i in range(30))
    Path("data.csv").write_text("u,v,colour\n" + rows)
    return ["--data", "data.csv", "--target", "colour", "--epochs", 1]


@pytest.mark.parametrize("mode", by_default(["--no-jit", "--jit", "--eager"], chosen=["--no-jit"]))
def test_a_model_of_one_s_own_is_audited(gradaudit, own, mode):
    code, out, _ = gradaudit("run", "--model", "my_nets:build", *own, mode)
    assert code == 0
    assert "PASS" in out
    assert load("runs/my_nets").run["jit"] is (mode == "--jit")


def test_a_wrong_gradient_is_named_and_the_exit_code_is_1(gradaudit, own):
    code, out, _ = gradaudit("run", "--model", "my_nets:wrong", *own)
    assert code == 1
    assert "FAIL, 2 steps audited" in out
    assert "/kernel: 1 of 10 values differ, [1, 2] by a relative 0.0001" in out
    assert gradaudit("show", "runs/my_nets")[0] == 1


def test_a_part_without_a_rule_is_exit_code_3(gradaudit, own):
    Path("numbers.csv").write_text("u,v,w\n" + "1,2,3\n0,1,2\n" * 3)
    arguments = [
        "run",
        "--model",
        "my_nets:without_a_rule",
        "--data",
        "numbers.csv",
        "--target",
        "w",
    ]
    code, out, err = gradaudit(*arguments)
    assert code == 3
    assert "left out: gradient of" in out
    assert "the layer 'lambda" in out
    assert "UNJUDGED" in out
    assert gradaudit(*arguments, "--allow-unjudged")[0] == 0
    assert gradaudit("show", "runs/my_nets")[0] == 3
    _, _, err = gradaudit(*arguments, "--verbose", 1)
    assert "gradaudit: cannot judge the gradient of" in err


def test_the_choice_of_what_is_audited(gradaudit):
    code, out, _ = gradaudit(
        *"run --model deep_tanh --epochs 2 --batch-size 50 --every epoch --steps 3".split(),
        *"--first 1 --layers layer_1 --budget 1000 --on-fail stop --json".split(),
        *"--rows 10 --format parquet --sigma always".split(),
    )
    assert code == 0
    run = json.loads(out)
    assert run["options"] == {
        "every": "epoch",
        "steps": [3],
        "first": 1,
        "layers": "layer_1",
        "budget": 1000.0,
        "oracle": "derived",
        "expect": {},
        "on_fail": "stop",
        "mode": "judge",
        "record_steps": [],
        "background": 0,
        "rows_per_tensor": 10,
        "format": "parquet",
        "sigma": "always",
        "verbose": 0,
    }
    assert run["coverage"] == {"steps_trained": 4, "steps_audited": 3}


BAD = {
    "unknown model": (["--model", "irsi"], 2, "Did you mean 'iris'?"),
    "no model": ([], 2, "--model"),
    "unknown data": (["--model", "deep_tanh", "--data", "wroked"], 2, "Did you mean 'worked'?"),
    "missing file": (["--model", "iris", "--data", "no.csv", "--target", "y"], 2, "no file no.csv"),
    "empty file": (["--model", "iris", "--data", "empty.csv", "--target", "y"], 2, "holds no rows"),
    "text": (["--model", "iris", "--data", "text.csv", "--target", "y"], 2, "'d' is 'four'"),
    "NaN": (["--model", "iris", "--data", "nan.csv", "--target", "y"], 2, "'d' is 'nan'"),
    "target": (["--model", "iris", "--data", "good.csv", "--target", "z"], 2, "Did you mean 'y'?"),
    "no target": (["--model", "iris", "--data", "good.csv"], 2, "needs --target"),
    "label": (["--model", "iris", "--data", "label.csv", "--target", "y"], 2, "class 3. Expected"),
    "width": (
        ["--model", "deep_tanh", "--data", "good.csv", "--target", "y"],
        2,
        "4 columns beside",
    ),
    "epochs": (["--model", "iris", "--epochs", "0"], 2, "--epochs"),
    "batch size": (["--model", "iris", "--batch-size", "0"], 2, "--batch-size"),
    "every": (["--model", "iris", "--every", "0"], 2, "every is 0"),
    "every word": (["--model", "iris", "--every", "step"], 2, "every is 'step'"),
    "steps": (["--model", "iris", "--steps", "1;2"], 2, "--steps is '1;2'"),
    "first": (["--model", "iris", "--first", "-1"], 2, "--first"),
    "layers": (["--model", "iris", "--layers", "("], 2, "no regular expression"),
    "budget": (["--model", "iris", "--budget", "0"], 2, "budget is 0.0"),
    "on fail": (["--model", "iris", "--on-fail", "cry"], 2, "'cry' is not one of"),
    "rate": (["--model", "iris", "--learning-rate", "-1"], 2, "Expected a number above 0"),
    "rate nan": (["--model", "iris", "--learning-rate", "nan"], 2, "Expected a number above 0"),
    "threshold": (["--model", "iris", "--threshold", "0"], 2, "threshold is 0.0"),
    "optimizer": (["--model", "iris", "--optimizer", "lion"], 2, "'lion' is not one of"),
    "precision": (["--model", "iris", "--precision", "half"], 2, "'half' is not one of"),
    "two modes": (["--model", "iris", "--jit", "--eager"], 2, "Choose one of them"),
    "folder": (["--model", "iris", "--out", "taken"], 2, "holds a run already"),
    "unwritable": (["--model", "iris", "--out", "good.csv/run"], 2, "cannot be written to"),
    "option": (["--model", "iris", "--epoch", "3"], 2, "--epoch"),
    "module": (
        ["--model", "none:build", "--data", "good.csv", "--target", "y"],
        2,
        "'none' was not",
    ),
    "own without data": (["--model", "my_nets:build"], 2, "needs --data FILE.csv and --target"),
    "own optimizer": (["--model", "my_nets:build", "--optimizer", "sgd"], 2, "compiled already"),
    "uncompiled": (
        ["--model", "my_nets:uncompiled", "--data", "data.csv", "--target", "colour"],
        2,
        "Expected a compiled Keras model",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_leaves_all_as_it_was(gradaudit, own, case):
    arguments, expected, words = BAD[case]
    files = {"empty": "", "good": "a,b,c,d,y\n1,2,3,4,0\n", "text": "a,b,c,d,y\n1,2,3,four,0\n"}
    files |= {"nan": "a,b,c,d,y\n1,2,3,nan,0\n", "label": "a,b,c,d,y\n1,2,3,4,3\n"}
    for name, text in files.items():
        Path(f"{name}.csv").write_text(text)
    Path("taken").mkdir()
    Path("taken", "steps.csv").write_text("mine\n")
    before = {path: path.read_bytes() for path in Path().rglob("*.csv")}
    code, out, err = gradaudit("run", *arguments)
    assert (code, out) == (expected, "")
    assert err.startswith("gradaudit: ")
    assert err.count("\n") == 1
    assert words in err
    assert {path: path.read_bytes() for path in Path().rglob("*.csv")} == before
    assert not Path("runs").exists()


def test_overwrite_replaces_a_run(gradaudit):
    for _ in range(2):
        code, *_ = gradaudit("run", "--model", "iris", "--epochs", 1, "--out", "a", "--overwrite")
        assert code == 0
    assert len(load("a").steps) == 10


def test_showing_what_is_no_run_is_exit_code_2(gradaudit):
    code, out, err = gradaudit("show", "nothing")
    assert (code, out) == (2, "")
    assert "nothing is not a run" in err


def test_models_lists_the_nets(gradaudit):
    code, out, _ = gradaudit("models")
    assert code == 0
    for words in ("iris", "4 → 3 softmax", "deep_tanh", "worked", "sigmoid_mse", "Σ (d − y)²/2"):
        assert words in out
    assert [net["name"] for net in json.loads(gradaudit("models", "--json")[1])] == [
        "iris", "deep_tanh", "sigmoid_mse",
    ]  # fmt: skip


def test_help_is_there_without_tensorflow():
    script = (
        "import sys; sys.argv = ['gradaudit', '--help']\n"
        "from gradaudit import cli\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exit codes: 0 all judged and passed" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "from gradaudit import cli; cli.main()",
        "from gradaudit.publications.claims_file import published_claims; published_claims()",
        "import gradaudit; gradaudit.load; gradaudit.AuditFailure",
        "import gradaudit.explanation, gradaudit.nets; gradaudit.nets.net_named('iris')",
    ],
)
def test_what_needs_no_tensorflow_does_not_import_it(code):
    script = (
        "import sys; sys.argv = ['gradaudit', 'models']\n"
        f"try:\n    {code}\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert 'gradaudit' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_hides_a_function_of_the_door():
    door = importlib.import_module("gradaudit")
    assert not {module.name for module in pkgutil.iter_modules(door.__path__)} & set(door.__all__)


def test_numbers_agree_with_their_nouns(gradaudit):
    code, out, _ = gradaudit("run", "--model", "iris", "--epochs", 1, "--batch-size", 150)
    assert code == 0
    assert "PASS, 1 step audited" in out
    assert "1 type of op\n" in gradaudit("rules", "--ops", "MatMul")[1]


def test_the_version_is_printed(gradaudit):
    code, out, _ = gradaudit("--version")
    assert (code, out) == (0, f"gradaudit {importlib.metadata.version('gradaudit')}\n")


def test_every_option_is_explained(gradaudit):
    _, out, _ = gradaudit("run", "--help")
    for option in (
        "--model --data --target --epochs --batch-size --optimizer --learning-rate --seed --every "
        "--steps --first --layers --budget --on-fail --verbose "
        "--threshold --rows --format --out --overwrite --jit --no-jit --eager --precision "
        "--no-bias --json --allow-unjudged"
    ).split():
        assert option in out


def _wait_for_rows(path, process):
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") > 5:
            return
        os.sched_yield()
    raise AssertionError(process.communicate())


@pytest.mark.long
def test_ctrl_c_leaves_whole_rows_and_exit_code_130():
    long = [*GRADAUDIT, "run", "--model", "iris", "--epochs", "100000"]
    process = subprocess.Popen(long, stderr=subprocess.PIPE, text=True)
    _wait_for_rows(Path("runs/iris/steps.csv"), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "gradaudit: interrupted after" in err.splitlines()[-1]
    assert "Traceback" not in err
    run = load("runs/iris")
    assert run.verdict == "interrupted"
    assert run.run["coverage"]["steps_audited"] == len(run.steps)
    assert set(run.steps["step"]) == set(run.tensors["step"]) == set(run.weights["step"])


@pytest.mark.long
def test_a_killed_run_leaves_whole_rows():
    long = [*GRADAUDIT, "run", "--model", "iris", "--epochs", "100000"]
    process = subprocess.Popen(long, stderr=subprocess.DEVNULL)
    _wait_for_rows(Path("runs/iris/steps.csv"), process)
    process.kill()
    process.wait()
    run = load("runs/iris")
    assert run.verdict == "running"
    assert len(run.steps) >= 5
    assert run.weights.groupby("step").size().iloc[: len(run.steps)].nunique() == 1


@pytest.mark.parametrize(
    "line", by_default(["models", "published --json", "rules --json"], chosen=["models"])
)
def test_a_pipe_that_is_closed_is_no_failed_audit(line):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        ended = subprocess.run(
            [*GRADAUDIT, *line.split()], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (141, b"")
