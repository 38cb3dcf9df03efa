"""Published numbers, recomputed."""

import re
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradaudit
from gradaudit.errors import DataError
from gradaudit.nets.precision import floats
from gradaudit.publications.check import check_claims, check_published
from gradaudit.publications.claims_file import published_claims, read_claims
from gradaudit.publications.records import Claim
from gradaudit.publications.table import claims_csv, json_rows
from gradaudit.publications.verdict import claim_verdict, within_a_unit

X, T = np.array([2.0, 5.0, 3.0]), np.array([1.0, 0.0])
W1 = np.array([[0.1, 0.3, 0.8], [-0.3, -0.2, 0.5], [-0.3, 0.1, 0.4]])
W2 = np.array([[0.4, 0.5, -0.3], [-0.1, -0.4, -0.5], [0.8, 0.2, 0.9]])
W3 = np.array([[0.3, -0.5], [0.1, 0.2], [-0.1, -0.4]])


def softmax(z):
    e = np.exp(z)
    return e / e.sum()


def deep_tanh():
    """Return every published quantity of the net, by hand."""
    a1 = X @ W1
    h1 = np.tanh(a1)
    a2 = h1 @ W2
    h2 = np.tanh(a2)
    a3 = h2 @ W3
    p = softmax(a3)
    da3 = p - T
    dh2 = W3 @ da3
    da2 = dh2 / np.cosh(a2) ** 2
    return {
        "preactivation_1": a1,
        "activation_1": h1,
        "preactivation_2": a2,
        "activation_2": h2,
        "preactivation_3": a3,
        "probability": p,
        "loss": -np.log(p[0]),
        "dpreactivation_3": da3,
        "dactivation_2": dh2,
        "tanh_derivative_2": 1 / np.cosh(a2) ** 2,
        "dpreactivation_2": da2,
        "dkernel_2": np.outer(h1, da2),
    }


def claims(*rows, model="deep_tanh", given="the net above"):
    found = []
    for quantity, index, printed, *rest in rows:
        decimals = len(printed.partition(".")[2])
        found.append(Claim(model, quantity, index, printed, decimals, rest[0] if rest else given))
    return found


def vector(quantity, values, decimals=6, **options):
    values = np.asarray(values)
    rows = [(quantity, i, f"{values[i]:.{decimals}f}") for i in np.ndindex(values.shape)]
    return claims(*rows, **options)


@pytest.fixture(scope="module")
def table():
    return gradaudit.published()


def test_every_published_number_has_a_verdict(table):
    assert len(table) == len(published_claims()) == 62
    assert table["verdict"].value_counts().to_dict() == {
        "agrees": 26,
        "disagrees": 21,
        "cut": 13,
        "cannot be checked": 2,
    }
    explained = table["verdict"].isin(["disagrees", "cannot be checked"])
    assert (table.loc[explained, "diagnosis"] != "").all()
    assert (table.loc[table["verdict"] == "cut", "diagnosis"] == "").all()
    assert table["recomputed"].isna().equals(table["verdict"] == "cannot be checked")


def test_the_three_layer_net_is_recomputed_as_by_hand(table):
    right = deep_tanh()
    rows = table[table["model"] == "deep_tanh"].rename(columns={"index": "at"})
    assert set(rows["quantity"]) == set(right)
    for row in rows.itertuples():
        index = tuple(int(part) for part in row.at.split(",")) if row.at else ()
        assert row.recomputed == pytest.approx(right[row.quantity][index], rel=1e-12)


def test_the_single_layer_net_is_recomputed_from_what_each_row_was_given(table):
    x, t = np.array([0.81, 0.57, 0.28, 0.84]), np.array([1.0, 0.0, 0.0])
    rows = table[table["model"] == "iris"]
    first = rows.set_index(["quantity", "index", "given"])["recomputed"].sort_index()
    printed = softmax(np.array([0.91119, 0.6105, -0.1517]))
    for i in range(3):
        assert first["probability", str(i), "the printed logits"] == pytest.approx(printed[i])
    for words, p in (
        ("0.7 0.2 0.1", [0.7, 0.2, 0.1]),
        ("0.479 0.355 0.166", [0.479, 0.355, 0.166]),
    ):
        gradient = np.outer(x, np.array(p) - t)
        for i, j in np.ndindex(4, 2):
            found = first["dkernel", f"{i},{j}", f"probabilities {words}"]
            assert found == pytest.approx(gradient[i, j], rel=1e-12)
    # Two columns of the kernel are not printed, so the loss is that of the printed probability.
    loss = rows.set_index("quantity")["recomputed"]["loss"]
    assert loss == pytest.approx(-np.log(0.4794433), rel=1e-7)  # they add up to 1 to 7 digits
    update = first.loc["updated_kernel", "0,0"].item()
    assert update == pytest.approx(0.15 + 0.25 * 0.4220, rel=1e-12)


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("probability", "follows from logit as recomputed, not as printed"),
        ("loss", "a logarithm to base 2 for a natural one; with probability as printed"),
        ("loss_rounded_example", "a logarithm to base 2 for a natural one"),
        ("logit", "it depends on what is not printed: 8 of 12 numbers of kernel"),
        ("dactivation_2", "a factor -0.8 throughout"),
        ("tanh_derivative_2", "1 of 3 values differ, [1] by a relative 0.02"),
        ("dpreactivation_2", "follows from dactivation_2 as printed, not as recomputed"),
        ("dkernel_2", "follows from dpreactivation_2 as printed, not as recomputed"),
    ],
)
def test_the_diagnoses_of_the_published_numbers(table, quantity, words):
    rows = table[(table["quantity"] == quantity) & (table["diagnosis"] != "")]
    assert len(rows) > 0
    assert set(rows["diagnosis"].str.replace("a factor 1/ln 2 too large: ", "")) == {words}


@given(st.decimals(-100, 100, places=12), st.integers(0, 8))
def test_a_number_that_is_rounded_agrees_and_one_that_is_cut_is_cut(value, decimals):
    unit = Decimal(1).scaleb(-decimals)
    for mode, verdicts in ((ROUND_HALF_EVEN, {"agrees"}), (ROUND_DOWN, {"agrees", "cut"})):
        printed = value.quantize(unit, mode)
        assert claim_verdict(float(printed), float(unit), float(value), 1e-12) in verdicts
    cut = value.quantize(unit, ROUND_DOWN)
    if abs(value - cut) > unit / 2 + Decimal("1e-11"):
        assert claim_verdict(float(cut), float(unit), float(value), 1e-12) == "cut"
    away = cut + (2 if value >= 0 else -2) * unit
    if abs(away - value) > unit + Decimal("1e-11"):
        assert claim_verdict(float(away), float(unit), float(value), 1e-12) == "disagrees"


def test_between_rounding_and_a_unit_a_number_agrees_and_that_is_said():
    printed = claims(("loss", (), "0.45"))
    (found,) = check_published(printed, "deep_tanh")  # 0.4391 rounds to 0.44 and is cut to 0.43
    assert found.verdict == "disagrees"
    (found,) = check_published(claims(("probability", (0,), "0.65")), "deep_tanh")  # 0.6446
    assert found.verdict == "agrees"
    assert found.diagnosis == "within one unit of the last digit, but neither rounded nor cut"


RIGHT = deep_tanh()


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (vector("dkernel_2", -RIGHT["dkernel_2"]), "the wrong sign"),
        (vector("dkernel_2", 2 * RIGHT["dkernel_2"]), "twice too large"),
        (vector("dkernel_2", RIGHT["dkernel_2"].T), "transposed"),
        (vector("dkernel_2", 0.3 * RIGHT["dkernel_2"]), "a factor 0.3 throughout"),
        (vector("activation_1", RIGHT["activation_1"][::-1]), "the right values in another order"),
        (vector("activation_1", [-0.97, -0.1, 0.5], 2), r"1 of 3 values differ, \[2\]"),
        (claims(("loss", (), "0.1907")), "to base 10 for a natural one"),
        (claims(("loss", (), "0.9")), "no constant factor, sign"),
        (claims(("loss", (), "0.878")), "twice too large"),
        (vector("dkernel_2", RIGHT["dkernel_2"] ** 2), "no constant factor, sign"),
        (claims(("dpreactivation_2", (0,), "5.5", "activation_2 1 0 0")), "zero is right"),
        (claims(("dpreactivation_2", (0,), "123.0", "probabilities 1 0")), "zero is right"),
    ],
)
def test_a_planted_error_is_named(printed, words):
    found = check_published(printed, "deep_tanh")
    wrong = [each for each in found if each.verdict == "disagrees"]
    assert wrong
    for each in wrong:
        assert re.search(words, each.diagnosis), each.diagnosis


def test_a_number_that_follows_from_a_wrong_one_is_traced_to_it():
    wrong = RIGHT["activation_2"] + [0.1, 0.0, 0.0]
    printed = vector("activation_2", wrong) + vector("preactivation_3", wrong @ W3)
    found = check_published(printed, "deep_tanh")
    assert [each.verdict for each in found] == ["disagrees", "agrees", "agrees"] + ["disagrees"] * 2
    assert found[-1].diagnosis == "follows from activation_2 as printed, not as recomputed"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            ("activaton_2", (0,), "0.39"),
            "has no quantity 'activaton_2'; the nearest are activation_2",
        ),
        (("kernel_4", (0, 0), "0.39"), "has no quantity 'kernel_4'"),
        (("activation_2", (3,), "0.39"), r"has the shape \(3,\), and no index \(3,\)"),
        (("activation_2", (), "0.39"), r"has the shape \(3,\), and no index \(\)"),
        (("loss", (), "0.39", "weights 1 2 3"), "'weights' in `given` is no quantity"),
        (("loss", (), "0.39", "the printed weights"), "'weights' in `given` is no quantity"),
        (
            ("loss", (), "0.39", "probabilities 0.5 0.3 0.2"),
            "given for 'probabilities' are 3, and it has 2",
        ),
        (("loss", (), "0.44", "probabilities 0.64 0.35"), "output add up to 0.99; those"),
        (("dlogit", (0,), "-0.3", "probability 0.7"), "add up to 1.03"),
        (
            ("loss", (), "0.44", "logits 1.7976931348623157e308 0"),
            "its rounding error is not known",
        ),
        (("loss", (), "0.44", "loss 0.5"), "'loss' in `given` is not what loss is computed from"),
        (("logit", (0,), "0.44", "probabilities 0.5 0.5"), "is not what logit is computed from"),
        (("dlogit", (0,), "0.4", "updated_kernel_2 5"), "is not what dlogit is computed from"),
        (("loss", (), "0.44", "what was printed above"), "does not say what is taken as printed"),
        (("loss", (), "0.39", "about 3 rows"), "'about 3 rows' in `given` is not a quantity"),
        (("doutput", (0,), "0.39"), "depends on"),
    ],
)
def test_what_cannot_be_checked_is_said(row, words):
    (found,) = check_published(claims(row), "deep_tanh")
    assert (found.verdict, found.recomputed) == ("cannot be checked", None)
    assert re.search(words, found.diagnosis), found.diagnosis


def test_given_values_take_the_place_of_the_net_s():
    rows = [
        ("loss", (), "0.223", "probabilities 0.8, 0.2"),
        ("loss", (), "0.223", "probability: 0.8 0.2"),
        ("logit", (0,), "1.0", "activation_2 1 1 1, kernel_3 0.5 0 0.5 0 0 0"),
        ("dkernel_3", (0, 1), "0.5", "activation_2 1 1 1 and probability 0.5 0.5"),
        ("updated_kernel_3", (0, 1), "-1.00", "step size 1 and gradient 0.5"),
        ("dkernel_2", (0, 0), "2.0", "activation_1 2 0 0; dpreactivation_2 1 1 1"),
        ("loss", (), "0.693", "x 0 0 0"),
        ("dpreactivation_2", (0,), "-0.2388", "tanh_derivative_2 0.84 0.94 0.28"),
        ("dpreactivation_2", (0,), "-0.142", "tanh_derivative_2 0.5"),
        ("dkernel_2", (0, 0), "-2.0", "activation_1 \N{MINUS SIGN}2 0 0; dpreactivation_2 1 1 1"),
        ("loss", (), "1.035", "target 0 1"),
    ]
    for found in check_published(claims(*rows), "deep_tanh"):
        assert found.verdict in ("agrees", "cut"), found


def test_what_is_taken_as_printed_is_known_to_its_last_digit_only():
    def iris(loss):
        rows = [("probability", (i,), p) for i, p in enumerate(("0.48", "0.35", "0.17"))]
        return check_published(claims(*rows, ("loss", (), loss), model="iris"), "iris")[-1]

    # p is 0.475 to 0.485 of 0.99 to 1.01 or so, and −ln p 0.714 to 0.754.
    assert iris("0.7340").verdict == "agrees"
    assert iris("0.7250").verdict == "agrees"
    assert iris("0.7700").verdict == "disagrees"
    assert "with probability as printed" in iris("0.7340").diagnosis


@pytest.mark.parametrize(
    "words",
    ["the printed probabilities", "from the printed probability", "probabilities as printed"],
)
def test_what_is_taken_as_printed_may_be_said_in_several_ways(words):
    rows = [
        ("probability", (0,), "0.9"),
        ("probability", (1,), "0.1"),
        ("loss", (), "0.105", words),
    ]
    assert check_published(claims(*rows), "deep_tanh")[-1].verdict in ("agrees", "cut")


def test_where_a_relu_is_given_its_slope_follows():
    with floats("float64"):
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(2, "relu", name="a"), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mean_squared_error")
    said = "input 1 1, target 0, activation_a 0 1, kernel_2 -1 -1"
    rows = [("dpreactivation_a", (0,), "0.0"), ("dpreactivation_a", (1,), "2.0")]
    nothing = np.full((1, 2), np.nan), np.full((1, 1), np.nan)
    found = check_claims(claims(*rows, given=said), model, *nothing)
    assert [each.verdict for each in found] == ["agrees", "agrees"]
    model.layers[0].activation = keras.activations.gelu
    (found,) = check_claims(claims(("dpreactivation_a", (0,), "0.0"), given=said), model, *nothing)
    assert (
        "the output of gelu is given, and its pre-activation cannot be computed" in found.diagnosis
    )


def test_a_target_that_is_no_class_is_told():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    nothing = np.full((1, 1), np.nan), np.full((1,), np.nan)
    for target in ("3", "0.5", "-1"):
        said = f"input 1, target {target}, kernel 0 0 0"
        (found,) = check_claims(claims(("loss", (), "1.1"), given=said), model, *nothing)
        assert "the loss takes classes from 0 to 2" in found.diagnosis
    said = "input 1, target 2, kernel 0 0 0"
    (found,) = check_claims(claims(("loss", (), "1.1"), given=said), model, *nothing)
    assert found.verdict == "agrees"


@pytest.mark.parametrize(
    ("printed", "value", "doubt", "verdict"),
    [
        (0.31, 0.3, 0.0, "disagrees"),
        (0.11, 0.1, 0.0, "disagrees"),
        (0.79, 0.8, 0.0, "disagrees"),
        (0.12, 0.125, 0.0, "agrees"),
        (0.13, 0.125, 0.0, "agrees"),
        (0.12, 0.1299, 0.0, "cut"),
        (0.13, 0.1201, 0.0, "agrees"),
        (0.11, 0.12, 1e-17, "cut"),  # 0.11999999999999999
        (-0.12, -0.1299, 0.0, "cut"),
        (-0.12, 0.0001, 0.0, "disagrees"),
        (0.0, -0.0099, 0.0, "cut"),
        (0.5, 0.1, np.inf, "disagrees"),
    ],
)
def test_the_boundaries_of_two_decimals(printed, value, doubt, verdict):
    if np.isinf(doubt):
        assert not within_a_unit(printed, 0.01, value, doubt)
    else:
        assert claim_verdict(printed, 0.01, value, doubt) == verdict


def test_parts_of_tensors_are_named_by_their_index():
    rows = [("activation_1", (2,), "0.99995"), ("activation_1", (1,), "-0.50")]
    found = check_published(claims(*rows), "deep_tanh")
    assert found[1].diagnosis.startswith("1 of 2 values differ, [1] by")
    rows = [("dactivation_2", (1,), "0.0355"), ("dactivation_2", (0,), "0.5117")]
    found = check_published(claims(*rows), "deep_tanh")
    assert found[1].diagnosis.startswith("1 of 2 values differ, [0] by")


def test_numbers_that_say_little_are_given_no_cause():
    for printed in ("0.69", "0.31", "0.9"):
        (found,) = check_published(claims(("loss", (), printed)), "deep_tanh")
        assert found.verdict == "disagrees"
        assert "a factor" not in found.diagnosis
    rows = [("dlogit", (0,), "-0.9"), ("dlogit", (1,), "0.9")]
    for found in check_published(claims(*rows), "deep_tanh"):
        assert "logarithm" not in found.diagnosis


def test_numbers_of_another_example_explain_nothing():
    rows = [
        ("probability", (0,), "0.2", "logit -1.386 0"),
        ("probability", (1,), "0.8", "logit -1.386 0"),
        ("dlogit", (0,), "-0.8"),
        ("dlogit", (1,), "0.8"),
    ]
    found = check_published(claims(*rows), "deep_tanh")
    assert found[0].verdict == "agrees"
    assert found[2].verdict == "disagrees"
    assert "follows" not in found[2].diagnosis


def test_a_net_of_one_s_own_without_data_takes_all_from_the_claims():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="line")])
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
    nothing = np.full((1, 2), np.nan), np.full((1, 1), np.nan)
    said = "input 1 2, target 4, kernel 3 1, bias 0"  # y = 5, (y - d)² = 1, dw = 2 (y - d) x
    rows = [
        ("output", (0,), "5.0", said),
        ("loss", (), "1.0", said),
        ("dkernel", (1, 0), "4.0", said),
        ("updated_kernel_line", (1, 0), "0.6", said),
        ("output", (0,), "5.0", "input 1 2"),
    ]
    found = check_claims(claims(*rows), model, *nothing)
    assert [each.verdict for each in found[:4]] == ["agrees"] * 4
    assert found[4].verdict == "disagrees"  # with the weights of the model as it is
    (found,) = check_claims(claims(("loss", (), "1.0", "input 1 2")), model, *nothing)
    assert found.diagnosis.endswith("2 of 2 numbers of input and 1 of 1 numbers of target")


def test_rows_of_a_batch_are_counted_in_the_index():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mean_squared_error")
    model.set_weights([np.array([[2.0]])])
    x, y = np.array([[1.0], [3.0]]), np.zeros((2, 1))
    rows = [
        ("output", (1, 0), "6.0"),
        ("dkernel", (0, 0), "20.0"),
        ("dkernel", (0, 0), "40.0", "a"),
    ]
    found = check_claims(claims(*rows), model, x, y)
    assert [each.verdict for each in found] == ["agrees", "agrees", "disagrees"]
    assert found[2].diagnosis in (
        "twice too large",
        "2 times too large: a sum over the batch for a mean",
    )


HEADER = "model,quantity,index,printed,decimals,given\n"


def test_decimals_come_from_the_column_or_from_the_print(tmp_path):
    file = tmp_path / "claims.csv"
    file.write_text(
        HEADER + 'iris,loss,,1.50,,x\niris,loss,,1.5,3,x\niris,loss,,\u22122e-5,,"a, b"\n'
    )
    found = read_claims(file)
    assert [claim.decimals for claim in found] == [2, 3, 5]
    assert [claim.number for claim in found] == [1.5, 1.5, -2e-5]
    assert found[1].unit == 1e-3
    assert found[2].given == "a, b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file"),
        ("", "has no column model"),
        ("model,quantity\niris,loss\n", "has no column index, printed, given"),
        (HEADER, "holds no rows"),
        (HEADER + "iris,loss,,one,2,x\n", "row 1: printed is 'one'"),
        (HEADER + "iris,loss,,not,2,x\n", "row 1: printed is 'not'"),
        (HEADER + "iris,loss,,1.0,1,x\niris,loss,a,1.0,2,x\n", "row 2: index is 'a'"),
        (HEADER + "iris,loss,-1,1.0,2,x\n", "row 1: index is '-1'"),
        (HEADER + "iris,loss,,1.0,many,x\n", "decimals 'many'"),
        (HEADER + "iris,loss,,0e400,,x\n", "'0e400' has -400 decimals. Expected at most 30"),
        (HEADER + "iris,loss,,0.5,-400,x\n", "has -400 decimals"),
        (HEADER + "iris,dkernel,0,1,1.0,2,x\n", "row 1: there are not as many cells as columns"),
        (HEADER + "iris,loss\n", "row 1: there are not as many cells as columns"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path, text, words):
    file = tmp_path / "claims.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=words):
        read_claims(file)


def test_claims_are_checked_with_the_epsilon_of_the_step():
    present = keras.config.epsilon()
    keras.config.set_epsilon(0.5)
    try:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")])
        model.compile("sgd", "mean_squared_logarithmic_error")
        model.set_weights([np.array([[0.1]]), np.array([0.0])])
        x, y = np.array([[1.0]]), np.array([[3.0]])
        loss = model.evaluate(x, y, verbose=0)
        claim = Claim("", "loss", (), f"{loss:.3f}", 3, "")
        (found,) = check_claims([claim], model, x, y)
    finally:
        keras.config.set_epsilon(present)
    assert loss == pytest.approx(np.log(4 / 1.5) ** 2, rel=1e-5)
    assert found.verdict == "agrees"


# A net of two layers, max(0, x W + b) and softmax, as courses have it. The first hidden unit is on,
# the second one off.
_X, _T = [1.0, -2.0, 0.5], [0.0, 1.0]
_NET = {
    "h/kernel": [[0.5, -0.2], [-0.3, 0.4], [0.1, 0.2]],
    "h/bias": [0.1, 0.0],
    "scores/kernel": [[0.6, -0.4], [0.3, 0.7]],
    "scores/bias": [0.0, 0.2],
}


def two_layers():
    x, t = np.array(_X), np.array(_T)
    w1, b1, w2, b2 = (np.array(value) for value in _NET.values())
    h = np.maximum(x @ w1 + b1, 0.0)
    p = softmax(h @ w2 + b2)
    da = (w2 @ (p - t)) * (h > 0)
    right = {"preactivation_h": x @ w1 + b1, "activation_h": h, "logit": h @ w2 + b2}
    right |= {"probability": p, "dlogit": p - t, "dpreactivation_h": da}
    return right | {"dkernel_h": np.outer(x, da), "dkernel_scores": np.outer(h, p - t)}


def relu_net(weights=_NET):
    with floats("float64"):
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(2, "relu", name="h"),
                keras.layers.Dense(2, "softmax", name="scores"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    model.set_weights([np.array(value) for value in weights.values()])
    return model


def printed_claims(given=""):
    rows = [claim for name, values in two_layers().items() for claim in vector(name, values, 4)]
    return [replace(claim, given=given) for claim in rows]


NOT_KNOWN = np.full((1, 3), np.nan), np.full((1, 2), np.nan)
INPUTS = vector("input", _X, 1, given="") + vector("target", _T, 0, given="")


@pytest.mark.parametrize("way", ["data", "given", "claims"])
def test_a_relu_net_agrees_however_its_inputs_are_given(way):
    rows, batch = printed_claims(), NOT_KNOWN
    if way == "data":
        batch = np.array([_X]), np.array([_T])
    if way == "given":
        rows = printed_claims(given="input 1.0 -2.0 0.5, target 0 1")
    if way == "claims":
        rows += INPUTS
    found = check_claims(rows, relu_net(), *batch)
    assert {each.verdict for each in found} <= {"agrees", "cut"}
    if way == "claims":
        assert {each.diagnosis for each in found[-len(INPUTS) :]} == {"taken as given"}


def test_nothing_is_known_of_a_relu_net_without_its_inputs():
    found = check_claims(printed_claims()[:4], relu_net(), *NOT_KNOWN)
    own = [each for each in found if each.claim.quantity == "preactivation_h"]
    assert {each.verdict for each in own} == {"cannot be checked"}
    # The activation is not 0 because nothing is known: it follows from the printed pre-activation.
    assert {each.diagnosis for each in found[2:]} == {"with preactivation_h as printed"}
    (alone,) = check_claims(vector("activation_h", [0.0], 1, given=""), relu_net(), *NOT_KNOWN)
    assert alone.verdict == "cannot be checked"


BROKEN = {**_NET, "h/bias": [np.nan, 0.0]}


def one(quantity, index, printed):
    return Claim("net", quantity, index, printed, 4, "")


@pytest.mark.parametrize("batch", [NOT_KNOWN, (np.array([_X]), np.array([_T]))])
def test_a_net_whose_number_is_nan_is_checked(batch):
    rows = [
        one("bias_h", (0,), "nan"),
        one("bias_h", (0,), "0.1"),
        one("preactivation_h", (0,), "1.2500"),
        one("preactivation_h", (0,), "NaN"),
    ]
    found = check_claims(rows, relu_net(BROKEN), *batch)
    assert [each.verdict for each in found] == ["agrees", "disagrees", "disagrees", "agrees"]
    first = "the first number that is not finite: bias_h[0] is nan"
    said = ["", "nan is right; ", "nan is right; ", ""]
    assert [each.diagnosis for each in found] == [words + first for words in said]
    assert all(np.isnan(each.recomputed) for each in found)


def test_what_is_unknown_beside_nan_is_unknown_all_the_same():
    rows = [one("preactivation_h", (0,), "nan"), one("preactivation_h", (1,), "-0.9")]
    found = check_claims(rows, relu_net(BROKEN), *NOT_KNOWN)
    assert [each.verdict for each in found] == ["agrees", "cannot be checked"]


def test_a_page_that_claims_nan_is_wrong_where_there_is_a_number():
    rows = [one("activation_h", (0,), "nan"), one("activation_h", (1,), "0.0000")]
    found = check_claims(rows, relu_net(), np.array([_X]), np.array([_T]))
    assert [each.verdict for each in found] == ["disagrees", "agrees"]
    assert found[0].diagnosis == "1.25 is right"


def test_nan_is_text_in_json_and_an_infinity_is_no_number_either(tmp_path):
    file = tmp_path / "claims.csv"
    file.write_text(HEADER + "net,bias_h,0,nan,,\nnet,bias_h,1,inf,,\n")
    checked = check_claims(read_claims(file), relu_net(BROKEN), *NOT_KNOWN)
    rows = json_rows(checked)
    assert [(row["printed"], row["recomputed"]) for row in rows] == [("nan", "nan"), ("inf", 0.0)]
    assert [row["verdict"] for row in rows] == ["agrees", "disagrees"]
    assert "nan,nan,agrees" in claims_csv(checked)


def test_a_number_printed_in_part_does_not_hide_what_it_was_made_from():
    rows = [
        *vector("target", _T, 0, given=""),
        *vector("logit", [0.75, -0.3], 2, given=""),
        one("probability", (0,), "0.7408"),
        one("loss", (), "1.3502"),  # -log(1 - 0.7408) from both logits
    ]
    found = check_claims(rows, relu_net(), *NOT_KNOWN)
    assert found[-1].verdict == "agrees"
    assert found[-1].diagnosis == "with target and logit as printed"
