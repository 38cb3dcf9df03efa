"""What Keras compiled, against what the model's code says now."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit import GradientAudit, check, load
from gradaudit.backends.tensorflow import compiled as compiling
from gradaudit.backends.tensorflow import step as stepping
from gradaudit.backends.tensorflow.graph_form import draws, form_of
from gradaudit.backends.tensorflow.python_state import PythonState
from gradaudit.backends.tensorflow.sibling import Sibling
from gradaudit.backends.tensorflow.staleness import differences
from suite import by_default

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)


class Penalised(keras.layers.Layer):
    """Adds a loss whose weight is an attribute."""

    weight = 0.0

    def call(self, x):
        self.add_loss(self.weight * tf.reduce_mean(tf.square(x)))
        return x


class Sampled(keras.layers.Layer):
    """Adds noise, from one of three generators of Python and NumPy."""

    def __init__(self, source):
        super().__init__(name="sampled")
        self.source, self.own = source, np.random.default_rng(3)

    def call(self, x):
        if self.source == "none":
            return x
        noise = np.random.normal() if self.source == "numpy" else self.own.normal()  # noqa: NPY002
        return x + np.float32(noise)


class Counting(keras.layers.Layer):
    """Counts its traces, and reads the count."""

    count = 0

    def call(self, x):
        self.count += 1
        return x * (1.0 + 0.1 * self.count)


def model_with(*middle, optimizer="sgd", **options):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, "tanh", name="first"), *middle]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, name="last")])
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, epochs=1, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def at_epoch_two(change):
    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: change() if epoch == 1 else None
    )


def annealed(folder, options, change_to):
    layer = Penalised(name="kl")
    model = model_with(layer)
    audit = [] if options is None else [GradientAudit(folder, verbose=0, **options)]
    change = at_epoch_two(lambda: setattr(layer, "weight", change_to))
    return fit(model, *audit, change, epochs=3)


@pytest.mark.parametrize(
    "options", by_default([{}, {"every": "epoch"}, {"steps": (3,)}], [{"steps": (3,)}]), ids=str
)
def test_a_number_that_a_callback_changes_is_told_and_the_training_stays(tmp_path, options):
    alone = annealed(None, None, 0.5)
    np.testing.assert_array_equal(annealed(tmp_path / "run", options, 0.5), alone)
    run = load(tmp_path / "run")
    (words,) = run.run["stale"]
    assert (
        "multiplies by the constant 0.0 where the model's code now has 0.5 in layer 'kl'" in words
    )
    assert "test_staleness.py:" in words
    assert run.verdict == "fail"
    failed = run.tensors[run.tensors["verdict"] == "fail"]
    assert set(failed["path"].str.rpartition("/")[0].str.rpartition("/")[2]) == {"first"}
    assert failed["cause"].str.startswith("stale: the compiled step multiplies").all()


def test_a_number_that_is_set_to_what_it_is_changes_nothing(tmp_path):
    annealed(tmp_path / "run", {}, 0.0)
    run = load(tmp_path / "run")
    assert (run.verdict, run.run["stale"]) == ("pass", [])


@pytest.mark.parametrize("is_frozen", by_default([True, False], [True]))
@pytest.mark.parametrize("audits_first", by_default([True, False], [True]))
def test_a_layer_that_is_frozen_after_a_fit_is_told(tmp_path, is_frozen, audits_first):
    def trained(*callbacks):
        model = model_with()
        fit(model, *(callbacks if audits_first else ()))
        model.get_layer("first").trainable = not is_frozen
        return fit(model, *callbacks)

    alone = trained()
    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), alone)
    run = load(tmp_path / "run")
    assert run.verdict == ("fail" if is_frozen else "pass")
    assert len(run.run["stale"]) == 2 * is_frozen  # kernel and bias
    assert all("which is frozen now (trainable=False)" in words for words in run.run["stale"])
    if is_frozen:
        moved = run.tensors.query("verdict == 'fail' and stage == 'update'")
        assert {"sequential/first/kernel", "sequential/first/bias"} <= set(
            moved["path"].str.replace(r"sequential_\d+", "sequential", regex=True)
        )


@pytest.mark.parametrize("source", by_default(["none", "numpy", "own"], ["own"]))
def test_numbers_drawn_in_a_trace_are_told(tmp_path, source):
    alone = fit(model_with(Sampled(source)))
    audit = GradientAudit(tmp_path / "run", verbose=0)
    np.testing.assert_array_equal(fit(model_with(Sampled(source)), audit), alone)
    run = load(tmp_path / "run")
    assert run.verdict == "pass"
    assert len(run.run["stale"]) == (source != "none")
    for words in run.run["stale"]:
        assert "numbers drawn from NumPy or Python" in words
        assert "in layer 'sampled' at" in words


def test_an_eager_model_draws_what_it_would_draw_as_it_is_built(tmp_path):
    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([Sampled("numpy"), keras.layers.Dense(2)])
        model.compile("sgd", "mse", run_eagerly=True)
        return fit(model, *callbacks)

    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), trained())
    run = load(tmp_path / "run")
    assert list(run.steps["verdict"]) == ["unjudged", "pass"]
    assert "is not built yet" in run.run["unjudged"][0]


def test_the_console_names_the_stale_steps(tmp_path, capsys):
    fit(model_with(Sampled("numpy")), GradientAudit(tmp_path / "run"))
    said = capsys.readouterr().err
    assert "stale, from step 0 on: numbers drawn" in said
    assert "PASS, 2 steps audited, 2 of them stale" in said


@pytest.mark.parametrize(
    "options", by_default([{}, {"first": 1}, {"steps": (1,)}], [{"steps": (1,)}]), ids=str
)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_trace_for_the_audit_leaves_the_python_values(tmp_path, options, jit_compile):
    """Keras traces the second shape of batches with the count that it would have alone."""

    def trained(*callbacks):
        model = model_with(Counting(), jit_compile=jit_compile)
        for size in (8, 4):
            data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(size, drop_remainder=True)
            model.fit(data, verbose=0, shuffle=False, callbacks=list(callbacks))
        return [*model.get_weights(), model.layers[1].count]

    for mine, other in zip(
        trained(GradientAudit(tmp_path / "run", verbose=0, **options)), trained(), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.long
def test_without_the_comparison_another_step_would_train(tmp_path, monkeypatch):
    """The fault that the comparison of graphs is there for, planted."""

    def trained(*callbacks):
        layer = Penalised()
        model = model_with(layer)
        fit(model)
        layer.weight = 5.0
        return fit(model, *callbacks)

    alone = trained()
    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "a", verbose=0)), alone)

    def all_alike(graph, outputs):
        return compiling.Form(b"", (), frozenset())

    monkeypatch.setattr(compiling, "form_of", all_alike)
    monkeypatch.setattr("gradaudit.backends.tensorflow.sibling.form_of", all_alike)
    assert not np.array_equal(trained(GradientAudit(tmp_path / "b", verbose=0)), alone)


@pytest.mark.long
def test_what_xla_trains_is_judged_by_the_rounding_of_its_gradients(tmp_path):
    """Healthy twin of a stale step under XLA: two runs of one step differ in the last digits."""
    model = model_with(keras.layers.Dense(64, "gelu"), optimizer="adam", jit_compile=True)
    fit(model, GradientAudit(tmp_path / "run", verbose=0), epochs=4)
    assert load(tmp_path / "run").verdict == "pass"

    layer = Penalised()
    model = model_with(layer, optimizer="adam", jit_compile=True)
    fit(model)
    layer.weight = 1e-2
    fit(model, GradientAudit(tmp_path / "stale", verbose=0))
    run = load(tmp_path / "stale")
    assert run.verdict == "fail"
    updates = run.tensors.query("verdict == 'fail' and stage == 'update'")
    assert updates["cause"].str.contains("the step that trained is not the judged one").all()
    assert not any("last digits" in words for words in run.run["left_out"])


@pytest.mark.long
def test_stateful_draws_of_tensorflow_train_by_keras_s_own_function(tmp_path):
    class Stream(keras.layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    alone = fit(model_with(Stream()), epochs=2)
    for options in ({}, {"first": 1}, {"steps": (2,)}):
        audit = GradientAudit(tmp_path / str(options), verbose=0, **options)
        np.testing.assert_array_equal(fit(model_with(Stream()), audit, epochs=2), alone)
        assert load(tmp_path / str(options)).verdict == "unjudged"
    assert "each compiled function has for itself" in " ".join(
        load(tmp_path / str({"steps": (2,)})).run["unjudged"]
    )


def test_a_check_leaves_the_model_s_python_values_and_generators():
    model = model_with(Sampled("numpy"))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert check(model, X, Y).verdict == "pass"
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def form(function, *arguments):
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    return form_of(graph, graph.outputs)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (lambda x: tf.tanh(x * 2.0, name="again"), True),
        (lambda x: tf.function(lambda z: tf.tanh(z * 2.0), autograph=False)(x), True),
        (lambda x: tf.tanh(x * 3.0), False),
        (lambda x: tf.sin(x * 2.0), False),
        (lambda x: tf.tanh(2.0 * x), False),
        (lambda x: tf.tanh(x[:1] * 2.0), False),
    ],
)
def test_two_traces_have_one_form_where_they_compute_alike(other, same):
    spec = tf.TensorSpec((2,), tf.float32)
    mine, its = form(lambda x: tf.tanh(x * 2.0), spec), form(other, spec)
    assert (mine.key == its.key) is same


def test_the_order_of_reads_and_assignments_is_in_the_form():
    variable = tf.Variable(1.0)

    def first_read():
        value = variable + 0.0
        variable.assign(2.0)
        return value

    def first_assign():
        variable.assign(2.0)
        return variable + 0.0

    assert form(first_read).key == form(first_read).key != form(first_assign).key
    assert form(first_read).assigned == {id(variable.handle)}


def test_bodies_of_loops_are_in_the_form():
    def loop(factor):
        return lambda x: tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * factor), (0, x))

    spec = tf.TensorSpec((), tf.float32)
    assert form(loop(2.0), spec).key == form(loop(2.0), spec).key != form(loop(3.0), spec).key
    assert len({form(loop(2.0), spec).key for _ in range(20)}) == 1
    words = differences(model_with(), form(loop(2.0), spec), form(loop(3.0), spec))
    assert "the constant 2.0 where the model's code now has 3.0" in words[0]


def test_draws_are_those_that_a_function_keeps_the_state_of():
    def drawing(x):
        stateless = tf.random.stateless_normal((2,), (1, 2))
        return tf.cond(x > 0, lambda: tf.random.normal((2,)), lambda: stateless)

    graph = tf.function(drawing).get_concrete_function(tf.constant(1.0)).graph
    assert [operation.type for operation in draws(graph)] == ["RandomStandardNormal"]


SETTINGS = {"scale": [1.0]}


class Reading(keras.layers.Layer):
    slope = 1.0

    def __init__(self):
        super().__init__()
        self.numbers, self.table, self.own = [1, 2], {"a": np.ones(2)}, np.random.default_rng(0)

    def call(self, x):
        return x * SETTINGS["scale"][0]


def _append(layer):
    layer.numbers.append(3)


def _set_class(layer):
    Reading.slope += 1.0


def _set_global(layer):
    SETTINGS["scale"][0] += 1.0


def _set_array(layer):
    layer.table["a"] = layer.table["a"] + 1


def _draw(layer):
    layer.own.normal()


@pytest.mark.parametrize("change", [_append, _set_class, _set_global, _set_array, _draw])
def test_values_in_reach_of_the_code_are_seen_and_put_back(change):
    layer = Reading()
    model = model_with(layer)
    before = PythonState(model)
    assert not PythonState(model).changed(before)
    change(layer)
    assert PythonState(model).changed(before)
    before.put_back()
    assert not PythonState(model).changed(before)


class Warming(keras.layers.Layer):
    """Doubles its input from the third epoch on."""

    epoch = 0

    def call(self, x):
        return x * (2.0 if self.epoch >= 2 else 1.0)


@pytest.mark.parametrize("last", by_default([1, 3], [1]))
def test_a_counter_is_looked_at_again_at_each_of_its_values(tmp_path, last):
    def trained(*callbacks):
        layer = Warming()
        count = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: setattr(layer, "epoch", min(epoch, last))
        )
        return fit(model_with(layer), count, *callbacks, epochs=4)

    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), trained())
    run = load(tmp_path / "run")
    assert run.run["stale_steps"] == (0 if last == 1 else 4)
    assert run.verdict == ("pass" if last == 1 else "fail")


@pytest.mark.parametrize("audits_first", by_default([True, False], [False]))
@pytest.mark.parametrize("is_compiled_again", by_default([True, False], [False]))
def test_code_that_no_longer_traces_is_told_at_each_step(tmp_path, is_compiled_again, audits_first):
    """A layer that is unfrozen, whose weights the optimizer does not know."""

    def trained(*callbacks):
        model = model_with(optimizer="adam")
        model.get_layer("first").trainable = False
        model.compile("adam", "mse")
        fit(model, *(callbacks if audits_first else ()))
        model.get_layer("first").trainable = True
        if is_compiled_again:
            model.compile("adam", "mse")
        return fit(model, *callbacks, epochs=2)

    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), trained())
    run = load(tmp_path / "run")
    assert run.run["faults"]["count"] == 0
    verdicts = list(run.steps["verdict"])[-4:]
    if is_compiled_again:
        assert (verdicts, run.run["stale"]) == (["pass"] * 4, [])
        return
    assert verdicts == ["unjudged"] * 4
    assert run.run["stale_steps"] == 4
    (words,) = run.run["stale"]
    assert "no longer traces now: ValueError: " in words
    assert "compile the model again" in words


class Named:
    """A key of a dict that cannot be printed."""

    def __repr__(self):
        raise RuntimeError


class Chosen(keras.layers.Layer):
    """Applies one of its functions."""

    def __init__(self):
        super().__init__(name="chosen")
        self.one, self.two = keras.layers.Activation("tanh"), keras.layers.Activation("sigmoid")
        self.current, self.lists = self.one, {"a": [1.0], "b": [2.0]}
        self.factors, self.function = self.lists["a"], lambda x: x * 2.0
        self.method, self.kernel = self.one.call, self.factor_of(2.0)

    @staticmethod
    def factor_of(factor):
        return lambda x: x * factor

    def call(self, x):
        return self.kernel(self.method(self.function(self.current(x) * self.factors[0])))


def _alias(layer):
    layer.current = layer.two


def _list_alias(layer):
    layer.factors = layer.lists["b"]


def _lambda(layer):
    layer.function = lambda x: x * 3.0


def _method(layer):
    layer.method = layer.two.call


def _closure(layer):
    layer.kernel = layer.factor_of(3.0)


def _same(layer):
    layer.current, layer.method, layer.kernel = layer.one, layer.one.call, layer.factor_of(2.0)


@pytest.mark.parametrize("change", [_alias, _list_alias, _lambda, _method, _closure, _same])
def test_what_a_place_refers_to_is_seen(change):
    layer = Chosen()
    layer.__dict__["table"] = {Named(): 1}
    model = model_with(layer)
    before = PythonState(model)
    change(layer)
    assert bool(PythonState(model).changed(before)) is (change is not _same)


@pytest.mark.parametrize(
    "activation",
    by_default([keras.activations.linear, keras.activations.tanh], [keras.activations.tanh]),
)
def test_an_activation_that_is_swapped_is_told(tmp_path, activation):
    def trained(*callbacks):
        model = model_with()
        layer = model.get_layer("first")
        change = at_epoch_two(lambda: setattr(layer, "activation", activation))
        return fit(model, change, *callbacks, epochs=2)

    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), trained())
    is_other = activation is not keras.activations.tanh
    assert load(tmp_path / "run").run["stale_steps"] == 2 * is_other


@pytest.mark.long
def test_python_values_that_stay_are_looked_at_once(tmp_path, monkeypatch):
    made = []
    trace = compiling.OwnFunction._traced

    def counted(self, *arguments):
        made.append(1)
        return trace(self, *arguments)

    monkeypatch.setattr(compiling.OwnFunction, "_traced", counted)
    model = model_with(keras.layers.BatchNormalization(), optimizer="adam")
    fit(model, GradientAudit(tmp_path / "run", verbose=0), epochs=3)
    first = len(made)
    fit(model, GradientAudit(tmp_path / "other", verbose=0), epochs=3)
    assert (first, len(made)) == (1, 2)


class Limited(keras.layers.Layer):
    """Refuses numbers above a limit; picks one of two factors."""

    limit, index = 100.0, 0

    def call(self, x):
        tf.debugging.assert_less(tf.reduce_max(tf.abs(x)), self.limit)
        return x * tf.gather(tf.constant([1.0, 1.0]), self.index)


@pytest.mark.parametrize(
    ("name", "value", "fails"),
    by_default(
        [("limit", 1e-3, True), ("index", 7, True), ("limit", 50.0, False)], [("index", 7, True)]
    ),
)
@pytest.mark.parametrize("audits_first", by_default([True, False], [False]))
def test_code_that_fails_now_does_not_end_the_training(tmp_path, name, value, fails, audits_first):
    def trained(*callbacks):
        layer = Limited()
        model = model_with(layer)
        fit(model, *(callbacks if audits_first else ()))
        setattr(layer, name, value)
        return fit(model, *callbacks)

    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), trained())
    run = load(tmp_path / "run")
    assert run.run["faults"]["count"] == 0
    assert run.run["stale_steps"] == 2
    fails = fails and not audits_first  # else what Keras compiled has a sibling, and that runs
    assert not fails or list(run.steps["verdict"]) == ["unjudged"] * 2
    assert run.verdict == "pass" or (name, value) != ("limit", 50.0)
    told = any("no longer runs now: InvalidArgumentError" in each for each in run.run["stale"])
    assert told is fails


def test_an_eager_step_counts_as_it_would(tmp_path):
    """The variables of the optimizer are made before the first step, in a trace of it."""

    def trained(*callbacks):
        model = model_with(Counting(), optimizer="adam", run_eagerly=True)
        return [*fit(model, *callbacks), model.layers[1].count]

    alone = trained()
    np.testing.assert_array_equal(trained(GradientAudit(tmp_path / "run", verbose=0)), alone)
    assert load(tmp_path / "run").verdict == "pass"


class Drawing:
    """Draws from NumPy's own generator while the step runs, as a thread that reads data does."""

    def __init__(self, monkeypatch, place, name):
        self.draws = 0
        function = getattr(place, name)

        def drawing(*arguments, **options):
            self.draws += 1
            np.random.normal()  # noqa: NPY002
            return function(*arguments, **options)

        monkeypatch.setattr(place, name, drawing)


@pytest.mark.long
@pytest.mark.parametrize("method", ["trace", "without_optionals"])
def test_what_a_thread_draws_meanwhile_stays_drawn(tmp_path, monkeypatch, method):
    place = Sibling if method == "trace" else stepping
    model = model_with(jit_compile=method != "trace")
    drawing = Drawing(monkeypatch, place, method)
    np.random.seed(0)  # noqa: NPY002
    fit(model, GradientAudit(tmp_path / "run", verbose=0))
    found = np.random.normal()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert drawing.draws
    expected = np.random.normal(size=drawing.draws + 1)[-1]  # noqa: NPY002
    assert found == expected
    assert load(tmp_path / "run").run["stale"] == []


MADE = 0


def counting(kind):
    """Return a function that counts its calls in one of the places that a function may set."""
    called, cells, array, numbers = 0, set(), np.zeros(1), [0]

    def count(x):
        global MADE
        nonlocal called
        MADE, called = MADE + 1, called + 1
        cells.add(len(cells))
        array[0] += 1
        numbers[0] += 1
        counts = {"global": MADE, "nonlocal": called, "set": len(cells), "array": array[0]}
        return x * (1.0 + 0.1 * float({**counts, "list": numbers[0]}[kind]))

    return count


@pytest.mark.parametrize("kind", ["global", "nonlocal", "set", "array", "list"])
def test_values_that_a_function_sets_around_it_are_put_back(kind):
    global MADE
    MADE = 0
    layer = keras.layers.Activation(counting(kind))
    model = model_with(layer)
    before = PythonState(model)
    first = layer.activation(1.0)
    before.put_back()
    assert not PythonState(model).changed(before)
    assert layer.activation(1.0) == first


@pytest.mark.parametrize("kind", by_default(["global", "array"], ["array"]))
def test_an_eager_function_counts_as_it_would(tmp_path, kind):
    def trained(*callbacks):
        global MADE
        MADE = 0
        layer = keras.layers.Activation(counting(kind))
        return fit(model_with(layer, optimizer="adam", run_eagerly=True), *callbacks)

    audit = GradientAudit(tmp_path / "run", verbose=0)
    np.testing.assert_array_equal(trained(audit), trained())
