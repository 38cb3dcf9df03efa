"""What is waived stays visible wherever a verdict stands, and a plain run says nothing of it."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradaudit
from gradaudit import GradientAudit, cli, load
from suite import by_default

X = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
Y = X[:, :1]


@tf.custom_gradient
def odd(v):
    return tf.tanh(v), lambda dy: dy * (1 - tf.tanh(v))


class Shift(layers.Layer):
    """Adds a vector, which a normalization behind it takes away: its gradient is rounding only."""

    def build(self, shape):
        self.vector = self.add_weight(shape=(8,), initializer="ones", name="vector")

    def call(self, x):
        return x + self.vector


def net(activation="tanh"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation, name="hidden"),
            layers.Dense(1, name="out"),
        ],
        name="net",
    )
    model.compile("sgd", "mse")
    return model


def unresolved(shifts):
    bare = layers.BatchNormalization(center=False, scale=False)
    model = keras.Sequential(
        [keras.Input((8,)), *(Shift() for _ in range(shifts)), bare, layers.Dense(1)], name="net"
    )
    model.compile("sgd", "mse")
    return model


def odd_net():
    return net(odd)


WAIVED = "1 custom gradient waived (expect: {!r})"
ODD, HIDDEN, MISSPELT = ({name: "custom"} for name in ("odd", "hidden", "ood"))
CASES = {
    "expect": (odd_net, {"expect": ODD}, WAIVED.format("odd")),
    "expect, both oracles": (
        odd_net,
        {"expect": ODD, "oracle": "both"},
        f"{WAIVED.format('odd')}, oracle 'both'",
    ),
    "expect, by the layer": (odd_net, {"expect": HIDDEN}, WAIVED.format("hidden")),
    "expect, misspelt": (net, {"expect": MISSPELT}, "expect: 'ood' matched no custom gradient"),
    "layers": (net, {"layers": "out"}, "only layers 'out' were asked for"),
    "threshold": (net, {"threshold": 20}, "threshold 20 (default 8)"),
    "oracle": (net, {"oracle": "traced"}, "oracle 'traced'"),
    "nothing": (net, {}, ""),
}


@pytest.fixture
def shown(monkeypatch, capsys):
    def show(folder):
        monkeypatch.setattr(sys, "argv", ["gradaudit", "show", str(folder)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out.rstrip().splitlines()[-1]

    return show


@pytest.mark.parametrize("case", by_default(CASES, ["expect, both oracles"]))
def test_it_stands_in_the_verdict_s_own_line_everywhere(case, tmp_path, capsys, shown):
    make, asked, words = CASES[case]
    behind = f"{words}, " if words else ""
    make().fit(X, Y, verbose=0, callbacks=[GradientAudit(tmp_path / "run", **asked)])
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"gradaudit: PASS, {behind}1 step audited. Report: {tmp_path / 'run'}"]
    run = load(tmp_path / "run")
    assert run.verdict == "pass"
    assert ", ".join(run.run["waived"]) == words
    assert {name: run.run["options"][name] for name in asked if name != "threshold"} == {
        name: value for name, value in asked.items() if name != "threshold"
    }
    assert run.run["threshold"] == asked.get("threshold", 8.0)
    code, line = shown(tmp_path / "run")
    assert code == 0
    assert line.startswith(f"PASS, {behind}1 step audited (")
    assert repr(run) == f"<gradaudit.Run: pass, {behind}1 step audited, {tmp_path / 'run'}>"

    checked = gradaudit.check(make(), X, Y, **asked)
    assert repr(checked) == f"<gradaudit.Run: pass, {behind}1 step audited>"
    assert checked.headline == f"PASS, {behind}1 step audited"
    assert f"<b>PASS, {behind}1 step audited</b>".replace("'", "&#x27;") in checked._repr_html_()


@pytest.mark.parametrize(
    ("shifts", "begin", "share"),
    [
        (1, "PASS", "47 %"),  # 8 of 17 weights
        (2, "MOSTLY UNRESOLVED (verdict: pass)", "64 %"),  # 16 of 25
    ],
)
def test_a_run_that_is_unresolved_for_the_most_part_says_so_first(
    shifts, begin, share, tmp_path, shown
):
    x = np.random.default_rng(1).standard_normal((32, 8)).astype(np.float32)
    audit = GradientAudit(tmp_path / "run", verbose=0)
    unresolved(shifts).fit(x, Y, batch_size=16, verbose=0, callbacks=[audit])
    run = load(tmp_path / "run")
    assert run.verdict == "pass"
    words = f"{begin}, {share} of the gradient weights could not be resolved, 2 steps audited"
    assert run.headline == words
    assert shown(tmp_path / "run")[1].startswith(words)
    assert repr(run).startswith(f"<gradaudit.Run: {begin.lower()}, {share}")


def test_a_gradient_that_was_written_at_a_prompt_is_counted():
    written = {"tf": tf}
    code = "odd = tf.custom_gradient(lambda v: (tf.tanh(v), lambda dy: dy))"
    exec(compile(code, "<stdin>", "exec"), written)
    model = net(layers.Lambda(written["odd"], name="odd_one"))
    found = gradaudit.check(model, X, Y, expect={"odd_one": "custom"})
    assert found.headline.startswith("PASS, 1 custom gradient waived (expect: 'odd_one')")


def test_a_report_of_an_older_version_is_shown(tmp_path, shown):
    net().fit(X, Y, verbose=0, callbacks=[GradientAudit(tmp_path, verbose=0, layers="out")])
    run = json.loads((tmp_path / "run.json").read_text())
    for key in ("waived", "expected", "options"):
        run.pop(key)
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert shown(tmp_path)[1].startswith("PASS, 1 step audited (")
