"""`gradaudit rules` and `gradaudit selftest`, as a shell sees them."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from gradaudit import cli, errors
from gradaudit.cli import output
from gradaudit.errors import GAP_MEANINGS, GapCode
from gradaudit.rules import all_rules, find_rule
from gradaudit.rules.coverage import _REASONS, ROOMS, STATUSES, catalogue
from gradaudit.testing import PLANTED, trials
from gradaudit.testing.error_kinds import ErrorKind


@pytest.fixture
def gradaudit(monkeypatch, capfd):
    def call(line):
        monkeypatch.setattr(sys, "argv", ["gradaudit", *line.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return call


def derived(kind):
    """Return what of a room of Keras has a rule, once each."""
    return [e for e in catalogue() if e.kind == kind and e.rule and e.room != "elsewhere"]


def test_all_that_keras_has_is_on_one_of_the_lists():
    assert [f"{e.kind} {e.name}" for e in catalogue() if e.status == "unknown"] == []


def test_so_many_are_derived():
    assert len([entry for entry in derived("layer") if entry.is_class]) >= 85
    losses = {known.name for known in all_rules() if known.kind == "loss"}
    assert len(losses) >= 22
    assert "HalfSquaredError" in losses  # which is gradaudit's own
    classes = [e for e in catalogue() if e.kind == "loss" and e.is_class and e.room != "elsewhere"]
    assert {e.name for e in classes if e.rule is None} == {"Loss", "CTC"}
    assert len([e for e in classes if e.rule]) >= 21
    for kind in ("activation", "regularizer", "constraint"):
        others = [e for e in catalogue() if e.kind == kind and e not in derived(kind)]
        assert {e.name for e in others} <= {kind.title(), "get", "serialize", "deserialize"}


def test_what_a_new_keras_brings_is_unknown(gradaudit, monkeypatch):
    class Telepathy(keras.layers.Layer):
        pass

    monkeypatch.setattr(keras.layers, "Telepathy", Telepathy, raising=False)
    (found,) = [entry for entry in catalogue() if entry.name == "Telepathy"]
    assert (found.status, found.kind, found.rule) == ("unknown", "layer", None)
    code, out, _ = gradaudit("rules")
    assert code == 0
    assert re.search(r"^unknown +Telepathy +there is no rule, and no reason why not", out, re.M)


def test_the_table_of_reasons_has_nothing_that_is_derived_or_gone():
    for kind, name in _REASONS:
        target = getattr(ROOMS[kind], name)
        assert find_rule(target) is None, name


def test_a_piped_list_has_one_line_for_each(gradaudit):
    code, out, err = gradaudit("rules")
    assert (code, err) == (0, "")
    rows = [line for line in out.splitlines() if line.startswith(STATUSES)]
    assert len(rows) == len(catalogue())
    assert "\x1b" not in out
    assert re.search(r"^keras.activations: 33 functions: 30 derived, 3 not diff", out, re.M)
    assert re.search(r"^derived +hard_silu +hard_swish$", out, re.M)
    assert re.search(r"^derived +MeanSquaredError +by its function mean_squared_error$", out, re.M)
    assert re.search(r"^traced-only +Lambda +calls code of its own", out, re.M)
    assert re.search(r"^derived +LossScaleOptimizer +by the derivation of the whole", out, re.M)


def test_a_terminal_gets_a_table(gradaudit, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    assert "─────" in gradaudit("rules")[1]


def test_a_narrow_terminal_gets_whole_words(monkeypatch, capfd):
    options = {"width": 30, "force_terminal": True, "color_system": None, "soft_wrap": True}
    monkeypatch.setattr(output, "console", lambda: Console(**options))
    row = ("derived", "AdaptiveAveragePooling1D", "", "as it is derived in its file")
    output.print_table(("status", "name", "also", "reason"), [row])
    output.print_table(("rule", "error", "a\ncheck", "b\ncheck"), [(*row[:2], "·", "refused")])
    assert capfd.readouterr().out.splitlines() == [
        "derived  AdaptiveAveragePooling1D",
        "    reason: as it is derived",
        "    in its file",
        "derived  AdaptiveAveragePooling1D",
        "    b_check: refused",
    ]


def test_the_list_as_json(gradaudit):
    found = json.loads(gradaudit("rules --json")[1])
    assert [list(entry) for entry in found] == [
        ["kind", "name", "aliases", "status", "reason", "source"]
    ] * len(catalogue())
    by_name = {(entry["kind"], entry["name"]): entry for entry in found}
    assert len(by_name) == len(found)
    assert by_name["regularizer", "L1"]["aliases"] == ["l1"]
    assert by_name["layer", "Conv2D"]["aliases"] == ["Convolution2D"]
    assert by_name["layer", "Lambda"]["source"] == "keras/src/layers/core/lambda_layer.py"
    assert {entry["status"] for entry in found} <= set(STATUSES)
    assert all(entry["reason"] for entry in found if entry["status"] != "derived")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dense", ["dkernel = Σₙ xᵀ dz", "gradaudit/rules/layers/dense.py", "  3-D"]),
        ("hard_swish", ["hard_silu = hard_swish, activation: derived", "VJP: dz ="]),
        ("MeanSquaredError", ["by its function mean_squared_error", "VJP:"]),
        ("Lambda", ["traced-only: calls code of its own"]),
        ("HalfSquaredError", ["HalfSquaredError, loss: derived"]),
    ],
)
def test_one_rule_is_shown(gradaudit, name, words):
    code, out, err = gradaudit(f"rules {name}")
    assert (code, err) == (0, "")
    for word in words:
        assert word in out


def test_a_rule_says_what_it_does_not_derive(gradaudit):
    partial = [rule for rule in all_rules() if rule.gaps is not None]
    assert len(partial) > 10
    for rule in partial:
        assert "Gaps:" in rule.function.__doc__, rule.name
    assert 'interpolation= other than "nearest"' in gradaudit("rules UpSampling2D")[1]
    assert "ref_labels" in gradaudit("rules Circle")[1]


def test_the_codes_of_gaps_are_listed(gradaudit):
    code, out, err = gradaudit("rules --gaps")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["code", "meaning"]
    assert [row.split()[0] for row in rows] == list(GapCode)
    assert re.search(r"^op +an op of the traced code is not derived$", out, re.M)
    listed = json.loads(gradaudit("rules --gaps --json")[1])
    assert listed == [{"code": gap, "meaning": meaning} for gap, meaning in GAP_MEANINGS.items()]
    assert json.loads(gradaudit("rules op --gaps --json")[1]) == [
        {"code": "op", "meaning": GAP_MEANINGS[GapCode.OP]}
    ]


def test_the_list_of_gaps_needs_one_known_code(gradaudit):
    code, out, err = gradaudit("rules opp --gaps")
    assert (code, out) == (2, "")
    assert "there is no code of a gap 'opp'. Did you mean 'op'?" in err
    code, out, err = gradaudit("rules --gaps --ops")
    assert (code, out) == (2, "")
    assert "--ops and --gaps print different lists" in err


def test_every_code_of_gaps_has_a_meaning_and_is_used():
    package = Path(errors.__file__).parent
    files = (path for path in package.rglob("*.py") if path != Path(errors.__file__))
    used = set(re.findall(r"\bGapCode\.([A-Z_]+)\b", "".join(path.read_text() for path in files)))
    assert used == {code.name for code in GapCode}
    assert list(GAP_MEANINGS) == list(GapCode)
    assert all(GAP_MEANINGS.values())


def test_one_rule_as_json(gradaudit):
    (found,) = json.loads(gradaudit("rules L2 --json")[1])
    assert found["rule"] == "gradaudit/rules/regularizers.py"
    assert "VJP:" in found["derivation"]
    assert found["cases"] == ["default", "one row"]


SEED = {"seed": 1}
OF_IMAGES = {
    "AutoContrast": {},
    "Equalization": {},
    "ContrastLimitedAdaptiveHistogramEqualization": {},
    **{name: {"height": 4, "width": 4} for name in ("CenterCrop", "RandomCrop", "Resizing")},
    **dict.fromkeys("AugMix CutMix MixUp RandAugment RandomErasing RandomFlip".split(), SEED),
    **dict.fromkeys("RandomElasticTransform RandomGaussianBlur RandomGrayscale".split(), SEED),
    **dict.fromkeys("RandomInvert RandomPerspective Solarization".split(), SEED),
    **{
        f"Random{name}": {**SEED, "factor": 0.3}
        for name in "Brightness ColorDegeneration Contrast Hue Rotation Saturation".split()
    },
    "RandomSharpness": {**SEED, "factor": 0.3},
    "RandomColorJitter": {**SEED, "value_range": (0, 255), "brightness_factor": 0.3},
    "RandomPosterization": {**SEED, "factor": 3},
    "RandomShear": {**SEED, "x_factor": 0.3},
    "RandomTranslation": {**SEED, "height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {**SEED, "height_factor": 0.3},
}


def test_every_layer_of_images_that_is_not_derived_is_tried():
    found = {
        entry.name
        for entry in catalogue()
        if "image_preprocessing" in entry.source and entry.rule is None
    }
    assert found - {"MaxNumBoundingBoxes"} == OF_IMAGES.keys()


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_gradient_goes_through_a_layer_of_images_where_the_list_says_so(name):
    layer = getattr(keras.layers, name)(**OF_IMAGES[name])
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)), "float32")
    with tf.GradientTape() as tape:
        tape.watch(images)
        if name in ("CutMix", "MixUp"):
            made = layer({"images": images, "labels": tf.eye(3)}, training=True)["images"]
        else:
            made = layer(images, training=True)
        total = tf.reduce_sum(tf.square(made))
    gradient = tape.gradient(total, images)
    flows = gradient is not None and bool(tf.reduce_any(gradient != 0))
    status, _ = _REASONS["layer", name]
    assert status == ("traced-only" if flows else "not differentiable")


def test_selftest_prints_rule_error_and_checks(gradaudit):
    code, out, err = gradaudit("selftest --rules L1 tanh")
    assert code == 0
    assert re.search(r"^regularizer L1 +dw negated +default +· +refused +refused", out, re.M)
    assert re.search(r"^2 rules, (\d+) planted errors: \1 refused\.$", out, re.M)
    assert "2/2" in err


def test_selftest_says_which_checks_are_not_run(gradaudit):
    _, out, _ = gradaudit("selftest --rules NonNeg")
    assert re.search(
        r"^Not run: rule_equals_trace, rule_is_pure, zero_cotangent_makes_zero, .*audit", out, re.M
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [("MeanSquaredError", "loss mean_squared_error"), ("MaxPool1D", "layer MaxPooling1D")],
)
def test_selftest_knows_every_name_that_rules_knows(gradaudit, name, title):
    code, out, _ = gradaudit(f"selftest --rules {name} --check vjp_equals_tape --json")
    assert code == 1  # the tape's check does not see an error of the output
    assert {f"{row['kind']} {row['rule']}" for row in json.loads(out)} == {title}


def test_selftest_as_json_and_with_a_check_of_choice(gradaudit):
    code, out, _ = gradaudit("selftest --rules NonNeg --check forward_equals_keras --json")
    found = json.loads(out)
    assert code == 0
    assert {row["rule"] for row in found} == {"NonNeg"}
    assert list(found[0]) == ["kind", "rule", "planted", "case", "refused"]
    assert all(row["refused"] == {"forward_equals_keras": True} for row in found)


def test_selftest_of_the_errors_that_are_shipped(gradaudit):
    code, out, _ = gradaudit("selftest Dense --check vjp_equals_tape --check vjp_is_linear")
    assert code == 0
    assert re.search(r"^layer +Dense +sign of dx +vjp_equals_tape +refused$", out, re.M)
    assert "6 trials of planted errors: 6 refused." in out


def unchanged(rule):
    nothing = ErrorKind("nothing", lambda right: right, "sign")
    return [trials.Wrong(nothing, dataclasses.replace(rule, cases=rule.cases[:1]))] * 3


def test_selftest_fails_where_an_error_is_not_refused(gradaudit, monkeypatch):
    monkeypatch.setattr(trials, "wrong_rules", unchanged)
    code, out, _ = gradaudit("selftest --rules L1")
    assert code == 1
    assert "NOT REFUSED: regularizer L1, nothing, case 'default'" in out
    assert "1 rules, 3 planted errors: 0 refused." in out
    code, out, err = gradaudit("selftest --rules L1 --json")
    assert code == 1
    assert len(json.loads(out)) == 3
    assert "NOT REFUSED" in err


def test_selftest_fails_where_a_check_sees_nothing(gradaudit):
    code, out, _ = gradaudit("selftest --rules tanh --check forward_equals_keras")
    assert code == 1
    assert "NOT REFUSED: activation tanh, dz negated, case 'default'" in out


def test_selftest_fails_where_there_are_too_few_errors(gradaudit, monkeypatch):
    monkeypatch.setattr(trials, "wrong_rules", lambda rule: unchanged(rule)[:2])
    code, out, _ = gradaudit("selftest --rules L1")
    assert code == 1
    assert "TOO FEW: regularizer L1 has 2 planted errors of a sign, a factor, a term" in out


def test_selftest_fails_where_a_rule_is_wrong_by_itself(gradaudit, monkeypatch):
    def negated(rule):
        return lambda call, w: (-rule.function(call, w)[0], rule.function(call, w)[1])

    right = find_rule(keras.regularizers.L1)
    wrong = dataclasses.replace(right, function=negated(right))
    monkeypatch.setattr(sys.modules["gradaudit.rules"], "all_rules", lambda: [wrong])
    code, out, _ = gradaudit("selftest --rules")
    assert code == 1
    assert "WRONG RULE: regularizer rule L1, case 'default', is refused by forward" in out


def test_selftest_fails_where_a_shipped_error_is_not_refused(gradaudit, monkeypatch):
    right = dataclasses.replace(PLANTED[0], rule=find_rule(keras.regularizers.L1))
    monkeypatch.setattr(sys.modules["gradaudit.testing"], "PLANTED", (right,))
    code, out, _ = gradaudit("selftest --check forward_equals_keras")
    assert code == 1
    assert "NOT REFUSED: forward with a factor by forward_equals_keras" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rules Dnese", "there is no class or function of Keras 'Dnese'. Did you mean 'Dense'?"),
        ("selftest --rules Dens", "Did you mean 'Dense'? The nearest names: "),
        ("selftest tanh", "there is no rule with planted errors for 'tanh'"),
        ("selftest Conv2D", "Give --rules to plant errors in any rule."),
        ("selftest --rules Lambda", "Lambda has no rule to plant errors in: it is traced-only: "),
        ("selftest Dense --check kinks_as_keras", "is one that kinks_as_keras must refuse"),
        ("selftest --check forward", "there is no check 'forward'. Did you mean 'forward_equals"),
    ],
)
def test_what_is_asked_for_wrongly_is_told_in_one_line(gradaudit, line, words):
    code, out, err = gradaudit(line)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err


def test_every_option_is_explained(gradaudit):
    _, out, _ = gradaudit("selftest --help")
    assert all(option in out for option in ("--rules", "--check", "--json", "the quick checks)"))
    _, out, _ = gradaudit("rules --help")
    assert "--json" in out
