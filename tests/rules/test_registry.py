import ast
import functools
import inspect
import re
import statistics
from pathlib import Path
from textwrap import dedent

import keras
import pytest
from keras.src.ops import numpy as operations

from gradaudit.errors import RuleDefinitionError, UnsupportedModelError
from gradaudit.rules import Case, all_rules, find_rule, rule, rule_for
from gradaudit.rules.registry import registered

FOLDERS = ("layers", "losses", "optimizers")
CASES = [Case("default", lambda: keras.layers.Lambda(lambda x: x), (2, 3))]


def good(call, x):
    """Apply y = x.

    Shapes: x and y alike.
    VJP: dx = dy.
    Kinks: none.
    """
    return x, lambda dy: (dy, {})


def without_sections(call, x):
    """Apply y = x."""


def wrong_arguments(call, inputs):
    """Shapes: VJP: Kinks:"""


@pytest.mark.parametrize(
    ("target", "function", "cases", "words"),
    [
        (keras.layers.Lambda, without_sections, CASES, "no section Shapes:, VJP:, Kinks:"),
        (keras.layers.Lambda, wrong_arguments, CASES, r"takes \(call, inputs\)"),
        (keras.layers.Lambda, good, [], "no cases"),
        (keras.layers.Dense, good, CASES, "has a rule for it already"),
    ],
)
def test_a_rule_of_another_shape_is_refused(target, function, cases, words):
    find_rule(keras.layers.Dense)
    with pytest.raises(RuleDefinitionError, match=words):
        rule(target, cases=cases, source="here")(function)
    assert find_rule(keras.layers.Lambda) is None


def test_every_activation_of_keras_has_a_rule():
    functions = {
        value
        for name, value in vars(keras.activations).items()
        if callable(value) and name not in ("get", "serialize", "deserialize")
    }
    assert len(functions) >= 30
    assert [f.__name__ for f in functions if find_rule(f) is None] == []


def test_every_loss_of_keras_but_ctc_s_has_a_rule():
    classes = {
        value
        for value in vars(keras.losses).values()
        if inspect.isclass(value) and value not in (keras.losses.Loss, keras.losses.CTC)
    }
    assert len(classes) >= 21
    assert [c.__name__ for c in classes if find_rule(c().fn) is None] == []
    assert find_rule(keras.losses.ctc) is None


def test_a_subclass_has_no_part_in_its_parent_s_rule():
    class Mine(keras.layers.Dense):
        pass

    assert find_rule(keras.layers.Dense(2)) is not None
    assert find_rule(Mine(2)) is None


def test_a_rule_that_must_be_there_is_asked_for_by_rule_for():
    assert rule_for(keras.layers.Dense) is find_rule(keras.layers.Dense)
    with pytest.raises(UnsupportedModelError, match=r"Lambda.* has no derived rule"):
        rule_for(keras.layers.Lambda)


def test_each_module_of_layers_registers_a_rule():
    folder = Path(inspect.getfile(rule)).parent / "layers"
    modules = {path for path in folder.glob("*.py") if path.name != "__init__.py"}
    assert {
        path for path in modules if not re.search(r"^@?rule\(", path.read_text(), re.M)
    } == set()
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {"__pycache__"} == {
        "families"
    }


def test_primitives_import_no_keras():
    folder = Path(inspect.getfile(rule)).parent / "primitives"
    for path in folder.glob("*.py"):
        imports = re.findall(r"^\s*(?:from|import) (keras|gradaudit\.rules\.(?!primitives))",
                             path.read_text(), re.M)  # fmt: skip
        assert imports == [], path.name


def test_options_bound_by_a_partial_find_the_function_s_rule():
    bound = functools.partial(keras.activations.leaky_relu, negative_slope=0.3)
    assert find_rule(bound) is find_rule(keras.activations.leaky_relu)


def test_a_planted_rule_is_gone_afterwards():
    right = find_rule(keras.layers.Dense)
    with registered(right.__class__(**{**vars(right), "function": good})):
        assert find_rule(keras.layers.Dense).function is good
    assert find_rule(keras.layers.Dense) is right


def test_rules_of_layers_and_losses_fit_on_a_screen():
    for known in all_rules():
        if known.kind in ("layer", "loss", "optimizer"):
            function = ast.parse(dedent(inspect.getsource(known.function))).body[0]  # no cases
            lines = function.end_lineno - function.lineno + 1
            assert lines <= 62, f"{known.name} has {lines} lines"


def test_a_rule_that_tells_of_kinks_has_a_case_at_them():
    for known in all_rules():
        _, _, kinks = (inspect.getdoc(known.function) or "").partition("Kinks:")
        if kinks and not re.match(r"\s*(none|those of the)", kinks):
            assert any(case.kinks or case.ties for case in known.cases), (
                f"{known.kind} {known.name}"
            )


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (operations.Divide, "VJP: da = dy / b; db = −a dy / b²;"),
        (operations.Sqrt, "VJP: dx = dy / (2 y)."),
        (operations.Tanh, "VJP: dz = (1 − y²) dy."),
        (keras.activations.sigmoid, "VJP: dz = y (1 − y) dy."),
    ],
)
def test_a_derivation_names_each_cotangent(target, words):
    assert words in inspect.getdoc(find_rule(target).function)


def test_a_file_that_registers_a_rule_is_short():
    rules = Path(inspect.getfile(rule)).parent
    sources = [path.read_text() for kind in FOLDERS for path in (rules / kind).glob("*.py")]
    lengths = [
        len(source.splitlines()) for source in sources if re.search(r"^ *@?rule\(", source, re.M)
    ]
    assert len(lengths) > 70
    assert statistics.median(lengths) < 60


def test_the_cell_of_a_notebook_may_register_its_rule_again():
    class Mine(keras.layers.Layer):
        pass

    def run_cell(module, name):
        def own(call, x):
            """Shapes: x. VJP: dx = dy. Kinks: none."""
            return x, lambda dy: (dy, {})

        own.__module__, own.__qualname__ = module, name
        return rule(Mine, cases=CASES, source="here")(own)

    run_cell("__main__", "mine")
    again = run_cell("__main__", "mine")
    assert find_rule(Mine()).function is again
    for module, name in (("__main__", "another"), ("nets", "mine")):
        with pytest.raises(RuleDefinitionError, match="has a rule for it already"):
            run_cell(module, name)
