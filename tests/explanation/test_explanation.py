"""The path of one weight's gradient: its numbers, its text, and the command's options."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.mathtext import MathTextParser

import gradaudit
from gradaudit import GradientAudit, load
from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import Replay
from gradaudit.errors import UnknownNameError, UnsupportedModelError, UsageError
from gradaudit.explanation.page import Explanation
from gradaudit.explanation.path import StepPaths
from gradaudit.explanation.step import explain_record, explain_step
from gradaudit.nets import NETS, Settings, compiled
from gradaudit.reference import derive
from suite import by_default

NUMBER = r"-?\d[\d.]*(?:e[-+]?\d+)?"


def built(name, optimizer="sgd", precision="float32"):
    net = NETS[name]
    model = compiled(net, Settings(optimizer, net.learning_rate, precision))
    return model, *next(iter(net.data.values()))()


def weights(model):
    return [(v.path, i) for v in model.trainable_variables for i in np.ndindex(tuple(v.shape))]


def total(path):
    return sum(terms.factors.prod(axis=-1).sum() for terms in path.terms) + path.penalty


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("name", NETS)
def test_the_factors_of_every_weight_multiply_to_the_reference(name, rows):
    model, x, y = built(name)
    record, spec = recorded(model, x[:rows], y[:rows])
    step = StepPaths(model, record, Replay(False), spec.config)
    reference = derive(record, spec).gradients
    for path, index in weights(model):
        found = step.of(path, index, reference[path], None, 0.0, "pass")
        assert total(found) == pytest.approx(float(reference[path].value[index]), rel=1e-12)
        assert all(len(terms.names) == terms.factors.shape[1] > 1 for terms in found.terms)
        assert sum(len(terms.factors) for terms in found.terms) == rows


def parsed(text):
    """Return the factors' products and sums, the check and the update, read from a text."""
    products, sums, last = [], [], []
    text = re.sub(rf"\(({NUMBER})\)", r"\1", text)  # negative factors stand in parentheses
    factors = text.partition("\nFactors\n")[2].partition("\nCheck\n")[0]
    for line in factors.splitlines():
        line = re.sub(r"^\s*(?:\([\d,]+\)|\d+)  +", "", line).strip()
        if re.fullmatch(rf"{NUMBER}( × {NUMBER})* = {NUMBER}", line):
            left, _, right = line.partition(" = ")
            numbers = [float(number) for number in left.split(" × ")]
            assert np.prod(numbers) == pytest.approx(float(right), rel=1e-14)
            products.append(numbers)
        elif found := re.fullmatch(rf"sum = ({NUMBER})", line):
            sums.append(float(found[1]))
        elif re.fullmatch(rf"{NUMBER} × {NUMBER}( \+ {NUMBER} × {NUMBER})*", line):
            last.append(
                sum(np.prod([float(n) for n in part.split(" × ")]) for part in line.split(" + "))
            )
    named = {
        name: float(re.search(rf"^  {name} +({NUMBER})$", text, re.M)[1])
        for name in ("tape", "reference")
    }
    update = re.search(
        rf" = ({NUMBER}) - ({NUMBER}) × ({NUMBER}) = ({NUMBER})\n  Keras made it ({NUMBER})", text
    )
    return products, sums, last, named, [float(part) for part in update.groups()]


@pytest.mark.parametrize("name", NETS)
def test_the_text_says_all_of_it(name):
    model, x, y = built(name, precision="float64")
    row = 7
    record, spec = recorded(model, x[row : row + 1], y[row : row + 1])
    step = StepPaths(model, record, Replay(False), spec.config)
    for path, index in weights(model):
        found = explain_record(record, spec, f"{path}[{','.join(map(str, index))}]", 8.0)
        products, sums, last, named, update = parsed(found.text)
        (factors,) = products
        assert np.prod(factors) == pytest.approx(named["reference"], rel=1e-12)
        assert named["tape"] == float(record.gradients[path][index])
        assert not sums
        if last:
            assert last[0] == pytest.approx(factors[-1], rel=1e-12)
        before, rate, gradient, after, keras_made = update
        assert before == float(record.variables[path][index])
        assert gradient == named["tape"]  # the update starts from the gradient that came
        assert before - rate * gradient == pytest.approx(after, rel=1e-14)
        assert keras_made == pytest.approx(after, rel=1e-14)
        assert step.find(found.path.path + f"[{','.join(map(str, index))}]") == (path, index)


def test_the_text_of_a_batch_adds_its_rows_up():
    model, x, y = built("deep_tanh")
    text = gradaudit.explain(model, x[:20], y[:20], "W1[2,1]").text
    products, (together,), _, named, _ = parsed(text)
    assert len(products) == 20
    assert together == pytest.approx(np.prod(products, axis=1).sum(), rel=1e-12)
    assert together == pytest.approx(named["reference"], rel=1e-12)
    text = gradaudit.explain(model, x[:50], y[:50], "W1[2,1]").text
    products, (together,), _, named, _ = parsed(text)
    rest = float(re.search(rf"and 18 smaller ones = ({NUMBER})", text)[1])
    assert np.prod(products, axis=1).sum() + rest == pytest.approx(together, rel=1e-12)


def test_the_published_step_is_told_in_the_source_s_notation():
    x, y = NETS["deep_tanh"].data["worked"]()
    model = compiled(NETS["deep_tanh"], Settings("sgd", 1.0, "float64"))
    text = gradaudit.explain(model, x, y, "W2[0,1]").text
    assert "∂L/∂a₃ → ∂L/∂h₂ → ∂L/∂a₂ → ∂L/∂W₂" in text
    assert "∂L/∂a₃ = p − t\n      [-0.355385  0.355385]" in text
    assert "∂L/∂h₂ = ∂L/∂a₃ W₃ᵀ\n      [-0.284308  0.035539 -0.106616]" in text
    assert "∂L/∂a₂ = tanh′(a₂) ∘ ∂L/∂h₂" in text
    assert "∂L/∂W₂ = h₁ᵀ ∂L/∂a₂" in text
    assert "∂L/∂W₂[0,1] = h₁[0] · tanh′(a₂[1]) · ∂L/∂h₂[1]" in text
    assert "∂L/∂h₂[1] = W₃[1,0] ∂L/∂a₃[0] + W₃[1,1] ∂L/∂a₃[1]" in text
    assert "dz = y (dy − Σ y dy)" in text


def graph():
    """Return a functional net: a layer used twice, dropout, a penalty, two outputs."""
    keras.utils.set_random_seed(3)
    x = keras.Input((4,))
    shared = layers.Dense(4, "tanh", name="shared", kernel_regularizer=keras.regularizers.L2(0.1))
    h = layers.Dropout(0.3, seed=1, name="drop")(shared(shared(x)))
    h = layers.Dense(5, "softmax", name="mixing")(h)
    classes = layers.Activation("softmax", name="act")(layers.Dense(3, name="logits")(h))
    number = layers.Dense(1, name="number")(h)
    model = keras.Model(x, [classes, number], name="graph")
    model.compile(keras.optimizers.Adam(0.01), ["categorical_crossentropy", "mse"])
    rng = np.random.default_rng(0)
    y = [np.eye(3)[rng.integers(0, 3, 6)], rng.standard_normal((6, 1))]
    return model, rng.standard_normal((6, 4)), y


@pytest.mark.long
def test_branches_shared_layers_dropout_and_penalties_add_up():
    model, x, y = graph()
    chosen = dict(weights(model))  # of each variable the last weight: each is a step of its own
    assert len(chosen) == 8
    for path, index in chosen.items():
        found = gradaudit.explain(model, x, y, f"{path}[{','.join(map(str, index))}]")
        assert total(found.path) == pytest.approx(found.path.reference, rel=1e-11, abs=1e-17)
        assert found.path.verdict == "pass"
    found = gradaudit.explain(model, x, y, "W1[0,1]")
    assert [terms.layer for terms in found.path.terms] == ["shared", "shared"]
    assert found.path.penalty == pytest.approx(0.2 * found.path.weight)
    assert "xᵀ ∂L/∂a₁ + h₁ᵀ ∂L/∂a₁′" in found.text
    assert "∂L/∂h₂ = ∂L/∂h₃ W₃ᵀ + ∂L/∂h₄ W₄ᵀ" in found.text.replace("∂L/∂y", "∂L/∂h₄")
    parts = re.search(
        rf"∂L/∂W₁\[0,1\] = ({NUMBER}) \+ \(?({NUMBER})\)? \+ \(?({NUMBER})\)? of the regularizer"
        rf" = ({NUMBER})",
        found.text,
    )
    first, second, penalty, whole = (float(part) for part in parts.groups())
    assert first + second + penalty == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(found.path.reference, rel=1e-12)
    assert "∂L/∂a₁′ + vjp of the regularizer" in found.text
    assert "L = categorical_crossentropy + mse + penalties" in found.text
    assert "vjp of Dropout" in found.text
    assert re.search(r"W₁\[0,1\] \+ \(-?[\d.e-]+\) = ", found.text)  # Adam's update, not −η ∂L/∂w


def test_what_else_adds_to_a_cotangent_is_said():
    keras.utils.set_random_seed(0)
    x = keras.Input((3,))
    h = layers.Dense(2, "tanh", name="hidden", activity_regularizer="l2")(x)
    model = keras.Model(x, [h, layers.Dense(1, name="top")(h)])
    model.compile("sgd", ["mse", "mse"], loss_weights=[1, 3])
    rng = np.random.default_rng(0)
    y = [rng.standard_normal((4, 2)), rng.standard_normal((4, 1))]
    text = gradaudit.explain(model, rng.standard_normal((4, 3)), y, "W1[0,1]").text
    assert "∂L/∂h₁ = ∂L/∂y W₂ᵀ + vjp of 1 mse + 3 mse + penalties\n" in text
    assert "with ∂L/∂h₁" not in text  # it is not the sum of the products alone


def test_mean_squared_errors_are_told_as_such():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 2)), rng.standard_normal((5, 3))
    assert "∂L/∂y = 2 (y − t) / 15\n" in gradaudit.explain(model, x, y, "W[0,0]").text
    one = gradaudit.explain(model, x[:1], y[:1], "b[1]").text
    assert "∂L/∂y = 2 (y − t) / 3\n" in one
    assert "∂L/∂b = ∂L/∂y\n" in one


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precisions_and_loss_scales(policy):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(3, "softmax", dtype="float32")]
    )
    model.compile("sgd", "categorical_crossentropy")
    _, x, (y, _) = graph()
    found = gradaudit.explain(model, x, y, "W1[0,0]")
    assert total(found.path) == pytest.approx(found.path.reference, rel=1e-12)
    assert ("The framework multiplied L by 32768" in found.text) == (policy == "mixed_float16")
    assert re.search(r"W₁\[0,0\] - η ∂L/∂W₁\[0,0\] = \S+ - \S+ × \S+ = ", found.text)
    assert found.path.after == pytest.approx(
        found.path.weight - 0.01 * found.path.reference / found.path.loss_scale, rel=1e-2
    )


def test_a_skipped_step_is_told():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    found = gradaudit.explain(model, np.full((1, 1), 300.0), np.zeros((1, 1)), "W[0,0]")
    assert "Keras skipped the step: a gradient is not finite." in found.text


class Nonlinear(layers.Layer):
    """y = x w², which is not linear in w."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w", initializer="ones")

    def call(self, x):
        return x * self.w**2


def test_a_layer_that_is_not_linear_in_its_weight_stays_in_one_piece():
    if gradaudit.rules.find_rule(Nonlinear) is None:

        @gradaudit.rule(
            Nonlinear,
            cases=[gradaudit.Case("one", Nonlinear, (2, 3))],
            source="tests/explanation/test_explanation.py",
            weights=("w",),
        )
        def nonlinear(call, x):
            """Apply y = x w².

            Shapes: x and y (N, I), w (I,).
            VJP:    dx = w² dy; dw = 2 w Σₙ x dy.
            Kinks:  none.
            """
            w = call.weights["w"]
            return x * w * w, lambda dy: (dy * w * w, {"w": (2.0 * w * x * dy).sum(axis=0)})

    model = keras.Sequential([keras.Input((3,)), Nonlinear(name="square"), layers.Dense(1)])
    model.compile("sgd", "mse")
    found = gradaudit.explain(model, np.ones((2, 3)), np.ones((2, 1)), "w1[2]")
    (terms,) = found.path.terms
    assert terms.names == (("vjp of Nonlinear",),)
    assert total(found.path) == pytest.approx(found.path.reference, rel=1e-12)


@pytest.mark.long
def test_layers_that_assign_variables_are_explained():
    stack = [layers.Conv1D(3, 3, activation="relu"), layers.BatchNormalization(), layers.LSTM(3)]
    model = keras.Sequential([keras.Input((8, 1)), *stack, layers.Dense(2, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 8, 1)), rng.integers(0, 2, (6, 2)).astype(float)
    for path, index in dict(weights(model)).items():
        found = gradaudit.explain(model, x, y, f"{path}[{','.join(map(str, index))}]").path
        assert total(found) == pytest.approx(found.reference, rel=1e-11, abs=1e-17)
        assert found.verdict == "pass"


def test_a_weight_without_effect_is_told():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2), layers.Dense(1)])
    model.compile("sgd", "mse")
    found = gradaudit.explain(model, np.array([[1.0, 0.0]]), np.ones((1, 1)), "W1[1,0]")
    assert found.path.reference == 0
    assert "No output depends on this weight on this batch: 0" in found.text


@pytest.mark.long
@pytest.mark.parametrize("step", by_default([0, 3, 9], chosen=[3]))
def test_a_step_is_that_of_the_run_with_the_same_options(step, tmp_path):
    net = NETS["iris"]
    options = {"epochs": 1, "batch_size": 16}

    def fresh():
        return compiled(net, Settings("adam", 0.01, "float32", seed=5)), *net.data["iris"]()

    model, x, y = fresh()
    audit = GradientAudit(tmp_path, verbose=0, sigma="always")
    model.fit(x, y, **options, verbose=0, callbacks=[audit])
    rows = load(tmp_path).weights.set_index(["step", "stage", "path", "index"])
    row = rows.loc[(step, "gradient", "iris/output/kernel", "2,1")]
    model, x, y = fresh()
    found = explain_step(model, x, y, "W[2,1]", step=step, row=None, threshold=8.0, **options).path
    assert (found.tape, found.reference, found.sigma, found.z) == tuple(
        row[["tape", "reference", "sigma", "z"]]
    )
    assert found.rows == (6 if step == 9 else 16)
    assert found.after == pytest.approx(
        found.weight + rows.loc[(step, "update", "iris/output/kernel", "2,1")]["tape"]
    )
    assert "StepHook" not in repr(model.train_function)
    model, x, y = fresh()
    one = explain_step(model, x, y, "W[2,1]", step=step, row=4, threshold=8.0, **options).path
    assert one.rows == 1
    assert one.step == step
    assert one.weight == found.weight  # the same training until then
    assert one.forward[0].value == pytest.approx(x[4], rel=1e-6)


def test_a_wrong_gradient_is_explained_beside_the_right_one():
    import tensorflow as tf

    model, x, y = built("sigmoid_mse")
    layer = model.layers[0]

    @tf.custom_gradient
    def doubled(kernel):
        return tf.identity(kernel), lambda dkernel: 2 * dkernel

    layer.call = lambda x, training=None: layer.activation(
        x @ doubled(tf.identity(layer.kernel.value)) + layer.bias
    )
    found = gradaudit.explain(model, x[:5], y[:5], "W1[0,0]").path
    assert found.verdict == "fail"
    assert found.tape == pytest.approx(2 * found.reference, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("W9[0,0]", UnknownNameError, "no trainable weight 'W9'.*W1, W2"),
        ("kernel[0,0]", UsageError, "may be any of sigmoid_mse/hidden/kernel, sigmoid_mse/output"),
        ("W1[3,0]", UsageError, r"shape \(3, 4\) of sigmoid_mse/hidden/kernel: up to \[2,3\]"),
        ("W1[0]", UsageError, r"up to \[2,3\]"),
        ("W1", UsageError, r"up to \[2,3\]"),
        ("W1[a,b]", UsageError, "Expected a name and an index"),
        ("", UsageError, "Expected a name and an index"),
        ("W1[-1,0]", UsageError, "Expected a name and an index"),
    ],
)
def test_another_weight_is_told(text, error, words):
    model, x, y = built("sigmoid_mse")
    with pytest.raises(error, match=words):
        gradaudit.explain(model, x[:1], y[:1], text)


@pytest.mark.parametrize(
    "text",
    ["W1[1,2]", "W₁[1,2]", "W_1[1, 2]", " hidden/kernel [1,2] ", "sigmoid_mse/hidden/kernel[1,2]"],
)
def test_a_weight_has_several_names(text):
    model, x, y = built("sigmoid_mse")
    found = gradaudit.explain(model, x[:1], y[:1], text).path
    assert (found.path, found.index) == ("sigmoid_mse/hidden/kernel", (1, 2))


def test_a_model_without_a_rule_is_told():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2), layers.Lambda(lambda x: x)])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"Lambda.*gradaudit\.rule"):
        gradaudit.explain(model, np.ones((1, 2)), np.ones((1, 2)), "W[0,0]")


@pytest.mark.parametrize("threshold", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_threshold_that_means_nothing_is_refused(threshold):
    model, x, y = built("iris")
    with pytest.raises(UsageError, match="Expected a number above 0"):
        gradaudit.explain(model, x, y, "W[0,0]", threshold=threshold)
    with pytest.raises(UsageError, match="Expected a number above 0"):
        gradaudit.check(model, x, y, threshold=threshold)


def test_a_weight_is_looked_for_before_any_training():
    model, x, y = built("iris")
    before = [np.array(v.value.numpy()) for v in model.variables]
    with pytest.raises(UnknownNameError, match="'W9'"):
        explain_step(model, x, y, "W9[0]", step=5, row=None, epochs=3, batch_size=16, threshold=8.0)
    assert all(
        np.array_equal(a, v.value.numpy()) for a, v in zip(before, model.variables, strict=True)
    )


def test_the_model_stays_as_it_is():
    model, x, y = built("deep_tanh", "adam")
    before = [np.array(v.value.numpy()) for v in model.variables + model.optimizer.variables]
    gradaudit.explain(model, x, y, "b1[0]")
    after = [np.array(v.value.numpy()) for v in model.variables + model.optimizer.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after[: len(before)], strict=True))


class Balanced(HTMLParser):
    """Checks that every element is closed, in order, and that nothing is loaded."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "img", "link", "iframe")
        assert not any(name in ("src", "href") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.long
def test_the_page_is_whole_escaped_and_loads_nothing():
    model, x, y = graph()
    for weight in ("W1[0,1]", "b2[0]"):
        path = gradaudit.explain(model, x, y, weight).path
        page = Balanced()
        page.feed(Explanation(replace(path, model="<b>&")).html)
        assert page.open == []
        text = "".join(page.text)
        assert "<b>&, step 0" in text
        for terms in path.terms:
            for factor in terms.factors.ravel():
                assert repr(float(factor)) in text


@pytest.mark.long
def test_the_markdown_has_the_formulas_in_latex():
    model, x, y = graph()
    found = gradaudit.explain(model, x, y, "W1[0,1]")
    text = found.markdown
    assert found._repr_markdown_() == text
    assert r"\frac{\partial L}{\partial W_{1}} = x^{\top} \frac{\partial L}{\partial a_{1}}" in text
    assert r"h_{\text{drop}} = \text{Dropout}(h'_{1})" in text
    parser = MathTextParser("path")
    formulas = re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text)
    assert len(formulas) > 40
    for displayed, inline in formulas:
        parser.parse(f"${displayed or inline}$")  # raises where LaTeX would not take it
    assert all(line.count("$") % 2 == 0 for line in text.splitlines())
    assert text.count("```") % 2 == 0


def test_layers_of_several_tensors_are_refused():
    inputs = keras.Input((3,))
    hidden = layers.Dense(3)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Add(name="sum")([inputs, hidden]) * 2.0))
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError) as caught:
        gradaudit.explain(model, np.ones((2, 3)), np.ones((2, 2)), "W1[0,0]")
    assert "the layer 'sum' takes or makes several tensors" in str(caught.value)
    assert re.search(r"'multiply.*' is an operation, and not a layer", str(caught.value))
    assert "Expected layers of one tensor each" in str(caught.value)


def test_a_weight_of_a_layer_s_part_is_told_in_one_piece():
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.LSTM(2, name="lstm"), layers.Dense(1, name="last")]
    )
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 4, 3)), rng.standard_normal((5, 1))
    found = gradaudit.explain(model, x, y, "lstm/lstm_cell/kernel[2,7]")
    (terms,) = found.path.terms
    assert terms.names == (("vjp of LSTM",),)
    assert total(found.path) == pytest.approx(found.path.reference, rel=1e-12)
    assert found.path.verdict == "pass"


@pytest.fixture
def large_epsilon():
    present = keras.config.epsilon()
    keras.config.set_epsilon(0.5)
    yield 0.5
    keras.config.set_epsilon(present)


def logarithmic():
    keras.utils.set_random_seed(0)
    stack = [keras.Input((2,)), layers.Dense(2, "sigmoid", kernel_regularizer="l2", name="a")]
    model = keras.Sequential(stack)
    model.compile("sgd", "mean_squared_logarithmic_error")
    x, y = np.array([[0.1, 0.2], [1.0, -2.0]]), np.array([[0.2, 0.9], [0.6, 0.1]])
    return model, x.astype("float32"), y.astype("float32")


def test_the_epsilon_of_the_step_is_used(large_epsilon):
    model, x, y = logarithmic()
    found = gradaudit.explain(model, x, y, "a/kernel[0,0]").path
    assert found.loss == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-6)
    assert total(found) == pytest.approx(found.reference, rel=1e-12)
    record, spec = recorded(model, x, y)
    keras.config.set_epsilon(1e-7)
    later = explain_record(record, spec, "a/kernel[0,0]", 8.0).path
    assert (later.loss, total(later)) == (found.loss, total(found))


def test_terms_that_do_not_add_up_to_the_reference_are_told():
    model, x, y = logarithmic()
    record, spec = recorded(model, x, y)
    ((path, reference), *_) = derive(record, spec).gradients.items()
    other = StepPaths(model, record, Replay(False), replace(spec.config, epsilon=0.5))
    with pytest.raises(UnsupportedModelError, match="Expected the same up to rounding") as caught:
        other.of(path, (0, 0), reference, None, 0.0, "pass")
    assert caught.value.part == path


def two_layers():
    inputs = keras.Input((2,))
    h = layers.Dense(3, "relu", name="h")(inputs)
    model = keras.Model(inputs, layers.Dense(1, name="o")(h))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def batch():
    return np.random.default_rng(0).normal(size=(4, 2)).astype("float32"), np.ones((4, 1))


def test_of_a_loss_that_is_nan_the_first_number_that_is_not_finite_is_told():
    model, (x, y) = two_layers(), batch()
    x[2, 1] = np.nan
    found = gradaudit.explain(model, x, y, "W1[0,1]")
    words = "The loss is nan. The first number that is not finite is "
    assert f"\n{words}x[2,1] = nan.\n" in found.text
    assert f"\n{words}$x[2,1]$ = nan.\n" in found.markdown
    assert f"{words}<i>x</i>[2,1] = nan.</p>" in found.html
    assert "Forward, row 2 of 4\n" in found.text  # the row that it is in
    for page in (found.text, found.markdown, found.html):
        assert "Factors" not in page
        assert "Back, row" not in page


@pytest.mark.parametrize(
    ("spoil", "first"),
    [
        (lambda model, x, y: y.__setitem__((1, 0), np.nan), "t[1,0] = nan"),
        (lambda model, x, y: model.layers[-1].bias.assign([np.inf]), "b₂[0] = inf"),
        (lambda model, x, y: model.layers[1].kernel.assign([[1e300] * 3] * 2), "W₁[0,0] = inf"),
    ],
)
def test_the_first_number_that_is_not_finite_may_be_a_target_or_a_weight(spoil, first):
    model, (x, y) = two_layers(), batch()
    spoil(model, x, y)
    text = gradaudit.explain(model, x, y, "W2[0,0]").text
    assert re.search(rf"The loss is (nan|inf)\. .* finite is {re.escape(first)}\.", text), text


def test_a_finite_step_is_explained_whole():
    model, (x, y) = two_layers(), batch()
    found = gradaudit.explain(model, x, y, "W2[0,0]")
    assert found.path.first_not_finite is None
    for page in (found.text, found.markdown, found.html):
        assert "not finite" not in page
        assert "Factors" in page
        assert "whose part is the largest" in page
