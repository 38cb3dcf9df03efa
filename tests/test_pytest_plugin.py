"""The plugin in test suites of its own."""

import pytest

from gradaudit import load

SUITE = """
    import keras, numpy as np, tensorflow as tf

    def net(*middle):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), *middle, keras.layers.Dense(2, name="out")])
        model.compile("sgd", "mse")
        return model

    X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    Y = X[:, :2]

    def test_right(gradient_audit):
        assert gradient_audit(net(), X, Y).verdict == "pass"
        gradient_audit(net(), X, Y)

    def test_wrong(gradient_audit):
        model = net()
        layer = model.get_layer("out")
        scaled = tf.custom_gradient(lambda k: (tf.identity(k), lambda dk: 2 * dk))
        layer.call = lambda x, training=None: (
            x @ scaled(tf.identity(layer.kernel.value)) + layer.bias
        )
        gradient_audit(model, X, Y)

    def test_without_a_rule(gradient_audit):
        def outside(x):
            y = tf.py_function(lambda t: tf.cast(2 * t, "float32"), [x], x.dtype)
            return tf.ensure_shape(y, x.shape)

        gradient_audit(net(keras.layers.Dense(4), keras.layers.Lambda(outside)), X, Y)
"""


@pytest.fixture
def suite(pytester):
    pytester.makepyfile(SUITE)
    return pytester


def test_a_wrong_gradient_fails_the_test_with_its_name(suite):
    result = suite.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*gradaudit: fail: step 0, gradient of sequential*/out/kernel: twice too large*",
            "*gradaudit: unjudged: gradient of *has no derived rule*",
        ]
    )


def test_options(suite):
    result = suite.runpytest_inprocess(
        "--gradaudit-allow-unjudged", "--gradaudit-reports=made", "-k", "not wrong"
    )
    result.assert_outcomes(passed=2, deselected=1)
    made = sorted(path.name for path in (suite.path / "made").iterdir())
    name = "test_options.py_test_right"
    assert made == [name, f"{name}-2", "test_options.py_test_without_a_rule"]
    assert load(suite.path / "made" / name).verdict == "pass"
    result = suite.runpytest_inprocess("--gradaudit-threshold=1e-9", "-k", "right")
    result.assert_outcomes(failed=1, deselected=2)


def test_a_test_that_passes_with_something_waived_is_told_at_the_end(suite):
    told = "*gradaudit: passed with something waived*"
    result = suite.runpytest_inprocess("-k", "right")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.no_fnmatch_line(told)
    result = suite.runpytest_inprocess("--gradaudit-threshold=20", "-k", "right")
    result.assert_outcomes(passed=1, deselected=2)
    line = "*::test_right: PASS, threshold 20 (default 8), 1 step audited"
    result.stdout.fnmatch_lines([told, line, line])
    result = suite.runpytest_inprocess("--gradaudit-allow-unjudged", "-k", "without")
    share = "UNJUDGED, 100 % of the gradient weights were not judged, 1 step audited"
    result.stdout.fnmatch_lines([told, f"*::test_without_a_rule: {share}"])


def test_the_options_have_a_group_of_their_own(pytester):
    out = pytester.runpytest_inprocess("--help").stdout.str()
    group = out[out.index("audits of gradients (gradaudit):") :]
    for option in ("threshold", "allow-unjudged", "reports"):
        assert f"--gradaudit-{option}" in group
