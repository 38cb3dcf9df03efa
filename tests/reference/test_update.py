"""The update stage: every optimizer of Keras with each of its options, in audited fits."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest

from gradaudit import GradientAudit, load
from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import Replay, specified
from gradaudit.nets.catalogue import set_precision
from gradaudit.numerics import Plain, Rounding
from gradaudit.records import Stage
from gradaudit.reference import derive
from gradaudit.reference.coverage import coverage
from gradaudit.reference.update import updated
from gradaudit.report import RunFolder
from gradaudit.rules import Case, all_rules, keyed
from gradaudit.rules.registry import registered
from gradaudit.testing import check_rule
from suite import by_default

optimizers, constraints = keras.optimizers, keras.constraints
RULES = {known.name: known for known in all_rules() if known.kind == "optimizer"}
HALF_THRESHOLD = 4.0

# Options of the base class, in sets that may be given together: between them, all of them.
TOGETHER = {
    "norm, decay, schedule": lambda: {
        "clipnorm": 0.5,
        "weight_decay": 0.1,
        "learning_rate": optimizers.schedules.ExponentialDecay(0.01, 10, 0.7),
    },
    "value, ema, gathered": lambda: {
        "clipvalue": 0.05,
        "use_ema": True,
        "ema_momentum": 0.9,
        "gradient_accumulation_steps": 3,
    },
    "global norm, ema overwrites, scale": lambda: {
        "global_clipnorm": 0.3,
        "use_ema": True,
        "ema_overwrite_frequency": 4,
        "loss_scale_factor": 96.0,
    },
}
ALONE = {
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.3},
    "weight_decay": {"weight_decay": 0.1},
    "use_ema": {"use_ema": True},
    "ema_momentum": {"use_ema": True, "ema_momentum": 0.5},
    "ema_overwrite_frequency": {"use_ema": True, "ema_overwrite_frequency": 2},
    "loss_scale_factor": {"loss_scale_factor": 1000.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 3},
    "all at once": {
        "clipnorm": 0.5,
        "weight_decay": 0.1,
        "use_ema": True,
        "ema_overwrite_frequency": 2,
        "loss_scale_factor": 1000.0,
        "gradient_accumulation_steps": 3,
    },
}
CONSTRAINTS = {
    "MaxNorm": lambda: constraints.MaxNorm(0.8),
    "NonNeg": constraints.NonNeg,
    "UnitNorm": constraints.UnitNorm,
    "MinMaxNorm": lambda: constraints.MinMaxNorm(0.7, 0.9, rate=0.5),
}


def update_gaps(model):
    """Return why the update of a model is not derived, in sentences."""
    return [gap.message for gap in coverage(specified(model, Replay(jit=False))).update]


def compiled(optimizer, constraint=None, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", kernel_constraint=constraint, name="hidden"),
            keras.layers.Dense(3, bias_constraint=constraint, name="out"),
        ],
        name="net",
    )
    model.compile(optimizer, "mse", **options)
    return model


def audited(model, folder, steps=50):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4 * steps, 4)), rng.standard_normal((4 * steps, 3))
    audit = GradientAudit(folder, verbose=0)
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[audit])
    return audit


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Audit a fit, and require of each step that every variable was judged and came out right."""
    found = []
    # The report, which takes longer than the audit, is not what is tested.
    monkeypatch.setattr(RunFolder, "append", lambda self, comparison: found.append(comparison))

    def judge(model, steps=50):
        audit = audited(model, tmp_path / "run", steps)
        expected = {v.path for v in model.trainable_variables}
        expected |= keyed(model.optimizer.variables).keys()
        assert len(found) == steps
        for comparison in found:
            tensors = [t for t in comparison.tensors if t.stage == "update"]
            assert sorted(t.path for t in tensors) == sorted(expected)
            assert "unjudged" not in {t.verdict for t in tensors}
            worst = max(tensors, key=lambda t: t.max_z)
            assert worst.max_z < HALF_THRESHOLD, (comparison.step, worst)
        assert audit.verdict in ("pass", "unresolved")
        assert "fail" not in {comparison.verdict for comparison in found}

    return judge


@pytest.mark.parametrize(
    ("number", "name"), by_default(enumerate(RULES), chosen=list(enumerate(RULES))[3::6])
)
def test_every_optimizer_in_eight_steps(judged, number, name):
    """Each set of options, and each constraint, with some of the optimizers."""
    together = list(TOGETHER.values())[number % len(TOGETHER)]
    constraint = list(CONSTRAINTS.values())[number % len(CONSTRAINTS)]
    optimizer = RULES[name].target(**{"learning_rate": 0.01, **together()})
    judged(compiled(optimizer, constraint()), steps=8)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}-{case.name}")
        for name, known in RULES.items()
        for case in known.cases
    ],
)
def test_own_options(judged, name, case):
    judged(compiled(case.build()))


@pytest.mark.long
@pytest.mark.parametrize("together", TOGETHER)
@pytest.mark.parametrize("name", RULES)
def test_options_of_the_base_class_with_every_optimizer(judged, name, together):
    optimizer = RULES[name].target(**{"learning_rate": 0.01, **TOGETHER[together]()})
    constraint = CONSTRAINTS["MaxNorm"]() if "schedule" in together else None
    judged(compiled(optimizer, constraint))


@pytest.mark.long
@pytest.mark.parametrize("option", by_default(ALONE, chosen=["all at once"]))
def test_each_option_of_the_base_class(judged, option):
    optimizer = optimizers.Adam(0.01, **ALONE[option])
    judged(compiled(optimizer))


@pytest.mark.parametrize("option", ALONE)
def test_each_option_of_the_base_class_is_keras_s_in_float64(option):
    case = Case(option, lambda: optimizers.Adam(0.01, **ALONE[option]), (3, 4))
    changed = dataclasses.replace(RULES["Adam"], cases=(case,) * 3)
    check_rule(changed, ["forward_equals_keras", "stays_float32"])


@pytest.mark.parametrize("name", by_default(["AdamW", "Muon"], ["AdamW"]))
def test_weights_excluded_from_decay(judged, name):
    optimizer = RULES[name].target(0.01, weight_decay=0.3)
    optimizer.exclude_from_weight_decay(var_names=["hidden/kernel", "bias"])
    judged(compiled(optimizer), steps=5)


@pytest.mark.long
@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("option", ["use_ema", "ema_overwrite_frequency"])
def test_constraints_come_after_everything_else(judged, name, option):
    optimizer = optimizers.SGD(0.05, momentum=0.9, **ALONE[option])
    judged(compiled(optimizer, CONSTRAINTS[name]()))


@pytest.mark.parametrize(
    ("name", "mode"),
    by_default(
        itertools.product(RULES, ["float64", "mixed_float16", "mixed_bfloat16", "XLA"]),
        chosen=[("SGD", "mixed_float16")],
    ),
)
def test_precisions_and_xla(judged, name, mode):
    set_precision("float32" if mode == "XLA" else mode)
    model = compiled(RULES[name].target(0.01), jit_compile=mode == "XLA")
    judged(model)


def test_every_optimizer_of_keras_is_derived_or_a_gap_that_is_told():
    classes = {
        value
        for value in vars(optimizers).values()
        if isinstance(value, type) and issubclass(value, optimizers.Optimizer)
    }
    around_others = {optimizers.MultiOptimizer, optimizers.LossScaleOptimizer}
    assert {known.target for known in RULES.values()} == (
        classes - around_others - {optimizers.Optimizer}
    )
    several = optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam()))
    for optimizer in (optimizers.LossScaleOptimizer(optimizers.Lion()), several):
        assert update_gaps(compiled(optimizer)) == []


@pytest.mark.long
@pytest.mark.parametrize("scale", by_default([None, 1000.0, "dynamic"], chosen=[1000.0]))
def test_several_optimizers_in_one(judged, scale):
    """Each with options of its own, and a rate: of a global norm, too, each knows its own part."""
    hidden = optimizers.Adam(
        optimizers.schedules.ExponentialDecay(0.01, 10, 0.7), global_clipnorm=0.1, weight_decay=0.1
    )
    chosen = optimizers.OptimizerMap(optimizers.SGD(0.1, momentum=0.9, clipvalue=0.05))
    chosen["net/hidden/.*"] = hidden
    optimizer = optimizers.MultiOptimizer(
        chosen, loss_scale_factor=None if scale == "dynamic" else scale
    )
    if scale == "dynamic":
        optimizer = optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    judged(compiled(optimizer))


def test_every_constraint_of_keras_is_derived():
    classes = {
        value
        for value in vars(constraints).values()
        if isinstance(value, type) and issubclass(value, constraints.Constraint)
    }
    derived = {known.target for known in all_rules() if known.kind == "constraint"}
    assert derived == classes - {constraints.Constraint}


def test_what_a_user_wrote_is_told():
    class Mine(optimizers.Adam):
        pass

    class Half(constraints.Constraint):
        def __call__(self, w):
            return w / 2

    gaps = update_gaps(compiled(Mine(name="mine"), Half()))
    assert gaps[0] == "the optimizer 'mine' (Mine) has no derived rule"
    assert "hidden/kernel' has the constraint Half, which has no derived rule" in gaps[1]


def weight_and(optimizer, gradient, arithmetic=None, replicas=1):
    """Return a variable, our update of it and Keras's, which has been applied."""
    with keras.name_scope("model"):
        weight = keras.Variable(np.array([1.0, -2.0, 3.0]), dtype="float32", name="w")
        other = keras.Variable(np.array([0.5, 0.25]), dtype="float32", name="other")
    optimizer.build([weight, other])
    variables = {"model/w": weight, "model/other": other, **keyed(optimizer.variables)}
    for variable in optimizer.variables:
        if variable.ndim if hasattr(variable, "ndim") else len(variable.shape):
            variable.assign(np.full(variable.shape, 0.125))
    before = {key: np.array(v.value.numpy()) for key, v in variables.items()}
    gradients = [{"model/w": gradient, "model/other": None}] * replicas
    rate = float(np.asarray(optimizer.learning_rate))
    given = optimizer, [weight, other], before, gradients, [rate]
    parts = list(updated(*given, arithmetic or Plain(np.float64), 1e-7))
    ours = {key: value for part in parts for key, value in part.items()}
    assert sum(map(len, parts)) == len(ours)
    tensor = None if gradient is None else keras.ops.convert_to_tensor(replicas * gradient)
    optimizer.apply([tensor, None], [weight, other])
    return before, ours, {key: np.array(v.value.numpy()) for key, v in variables.items()}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("option", ALONE)
def test_a_weight_without_a_gradient(option, scaled):
    optimizer = optimizers.RMSprop(0.01, **ALONE[option])
    if scaled:
        optimizer = optimizers.LossScaleOptimizer(optimizer)
    _, ours, keras_s = weight_and(optimizer, np.array([0.1, -0.2, 0.3], np.float32))
    assert ours.keys() == keras_s.keys()
    for key, value in ours.items():
        np.testing.assert_allclose(value, keras_s[key], rtol=1e-6, err_msg=key)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_under_loss_scaling(bad):
    optimizer = optimizers.LossScaleOptimizer(optimizers.Adam(0.01, use_ema=True))
    before, ours, keras_s = weight_and(optimizer, np.array([0.1, bad, 0.3], np.float32))
    scale = next(key for key in ours if key.endswith("dynamic_scale"))
    assert ours[scale] == before[scale] / 2
    for key, value in ours.items():
        np.testing.assert_array_equal(value, keras_s[key], err_msg=key)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("clipping", ["clipnorm", "clipvalue", "global_clipnorm", None])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Lion", "Adamax", "Ftrl"])
def test_a_gradient_that_is_not_finite_comes_out_alike(name, bad, clipping):
    optimizer = RULES[name].target(0.01, **({clipping: 0.3} if clipping else {}))
    gradient = np.array([0.1, bad, 0.3], np.float32)
    with np.errstate(all="ignore"):
        _, ours, keras_s = weight_and(optimizer, gradient, Rounding())
    for key, value in ours.items():
        np.testing.assert_array_equal(np.isfinite(value.value), np.isfinite(keras_s[key]), key)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_replicas_are_clipped_one_by_one_and_summed():
    gradient = np.array([3.0, 0.0, 4.0], np.float32)
    optimizer = optimizers.SGD(0.5, global_clipnorm=1.0)
    before, ours, _ = weight_and(optimizer, gradient, replicas=2)
    np.testing.assert_allclose(before["model/w"] - ours["model/w"], [0.6, 0.0, 0.8])


def test_gathering_on_several_replicas_is_a_gap():
    model = compiled(optimizers.Adam(gradient_accumulation_steps=2, name="adam"))
    record, spec = recorded(model, np.ones((4, 4)), np.ones((4, 3)))
    unjudged = derive(dataclasses.replace(record, replicas=2), spec).unjudged
    (gap,) = unjudged[Stage.UPDATE, model.trainable_variables[0].path]
    assert "'adam' (Adam) gathers gradients on 2 replicas" in gap.message


def test_one_weight_lives_at_a_time():
    optimizer = optimizers.Adam(0.01, global_clipnorm=1.0)
    weights = [keras.Variable(np.ones(4), name=f"w{i}") for i in range(3)]
    optimizer.build(weights)
    before = {v.path: np.array(v.value.numpy()) for v in (*weights, *optimizer.variables)}
    gradients = [{v.path: np.ones(4, np.float32) for v in weights}]
    parts = updated(optimizer, weights, before, gradients, [0.01], Rounding(), 1e-7)
    sizes = [len(part) for part in parts]
    assert sizes == [1, 3, 3, 3, 1]  # the count; each weight with two slots; the learning rate


def decay_twice(optimizer, monkeypatch):
    right = optimizer._apply_weight_decay

    def wrong(variables):
        right(variables)
        right(variables)

    monkeypatch.setitem(vars(optimizer), "_apply_weight_decay", wrong)


def without_bias_correction(optimizer, monkeypatch):
    monkeypatch.setattr(type(optimizer), "iterations", property(lambda self: 10_000))


def failures(model, folder):
    audit = audited(model, folder, steps=4)
    assert audit.verdict == "fail"
    run = load(folder)
    failed = run.tensors.query("verdict == 'fail'")
    assert set(failed["stage"]) == {"update"}
    return set(failed["path"]), run.run["failures"]


ADAPTIVE = "Adam AdamW Adamax Nadam Lamb Lion Muon ScheduleFreeAdamW".split()


@pytest.mark.parametrize("name", by_default(ADAPTIVE, chosen=["Adam"]))
def test_a_wrong_beta_is_found_and_named(tmp_path, monkeypatch, name):
    optimizer = RULES[name].target(0.01)
    beta = "adam_beta_2" if name == "Muon" else "beta_2"
    right = optimizer.update_step
    value = getattr(optimizer, beta)

    def wrong(*given):
        setattr(optimizer, beta, value * 0.9999)
        right(*given)
        setattr(optimizer, beta, value)

    monkeypatch.setitem(vars(optimizer), "update_step", wrong)
    paths, words = failures(compiled(optimizer), tmp_path / "run")
    assert any("velocity" in path or "norm" in path or "momentum" in path for path in paths)
    assert any(word.startswith("step") and "update of" in word for word in words)


@pytest.mark.parametrize(
    "name",
    by_default(
        ["Adam", "AdamW", "Adamax", "Nadam", "Lamb", "ScheduleFreeAdamW"], chosen=["Adamax"]
    ),
)
def test_a_missing_bias_correction_is_found_and_named(tmp_path, monkeypatch, name):
    class Wrong(RULES[name].target):
        pass

    optimizer = Wrong(0.01)
    without_bias_correction(optimizer, monkeypatch)
    with registered(dataclasses.replace(RULES[name], target=Wrong)):
        paths, words = failures(compiled(optimizer), tmp_path / "run")
    assert {"net/hidden/kernel", "net/hidden/bias"} <= paths
    assert "update of net/hidden/kernel" in " ".join(words)


@pytest.mark.parametrize("name", by_default(RULES, chosen=["SGD", "AdamW"]))
def test_a_decay_applied_twice_is_found_and_named(tmp_path, monkeypatch, name):
    optimizer = RULES[name].target(0.01, weight_decay=0.1)
    decay_twice(optimizer, monkeypatch)
    paths, words = failures(compiled(optimizer), tmp_path / "run")
    assert "net/hidden/kernel" in paths
    assert "update of net/hidden/kernel" in " ".join(words)


@pytest.mark.parametrize(
    ("make", "repeated", "judged"),
    [
        (lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2), True, True),
        (lambda: optimizers.SGD(0.1, momentum=0.9), False, True),
        (lambda: optimizers.Adam(0.01), False, True),
        (lambda: optimizers.SGD(0.1, clipnorm=0.01), False, True),
        (lambda: optimizers.Adam(0.01), True, False),
        (lambda: optimizers.SGD(0.1, clipvalue=0.01), True, False),
        (lambda: optimizers.SGD(0.1, global_clipnorm=0.01), True, False),
    ],
)
def test_a_sparse_gradient_is_judged_where_its_parts_do_not_matter(
    tmp_path, make, repeated, judged
):
    """Keras squares what tf.IndexedSlices hold for one index twice before it adds it."""
    table = keras.layers.Embedding(40, 3, name="table")
    layers = [keras.Input((4,)), table, keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers, name="net")
    model.compile(make(), "mse")
    tokens = np.random.default_rng(0).permuted(np.tile(np.arange(40), (3, 1)), axis=1)
    x = (tokens % 7 if repeated else tokens).reshape(30, 4)
    audit = GradientAudit(tmp_path, verbose=0)
    model.fit(x, np.ones((30, 2)), batch_size=10, verbose=0, shuffle=False, callbacks=[audit])
    rows = load(tmp_path).tensors.query("stage == 'update'")
    table = rows["path"] == "net/table/embeddings"
    assert len(rows[table]) == 3
    others = rows[~table & rows["path"].str.startswith("net/")]
    if judged:
        assert set(rows["verdict"]) <= {"pass", "unresolved"}, load(tmp_path).run["failures"]
    else:
        assert set(rows.loc[table, "verdict"]) == {"unjudged"}
        assert rows.loc[table, "cause"].str.contains("a² \\+ b² for the square of a \\+ b").all()
        norm_of_all = model.optimizer.global_clipnorm is not None
        assert set(others["verdict"]) == {"unjudged" if norm_of_all else "pass"}
