"""The README's tour, its commands, and every example in a docstring."""

import doctest
import importlib
import pkgutil
import shlex
import sys
from pathlib import Path

import pytest

import gradaudit
from gradaudit import cli

OLD = ("gradaudit.checks", "gradaudit.models")  # importing them warns
README = Path(__file__).parents[1] / "README.md"
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples():
    """Return every docstring of the package that has examples."""
    found = []
    for module in pkgutil.walk_packages(gradaudit.__path__, "gradaudit."):
        if not module.name.endswith("__main__") and module.name not in OLD:
            tests = doctest.DocTestFinder().find(importlib.import_module(module.name))
            found += [test for test in tests if test.examples]
    return found


EXAMPLES = examples()


def test_the_public_functions_have_examples():
    named = {test.name.rpartition(".")[2] for test in EXAMPLES}
    assert {"GradientAudit", "check", "audit_gradients", "explain", "published"} <= named


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_in_a_docstring_is_right(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "SKIP" not in test.docstring
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(test)
    assert runner.summarize().failed == 0


def test_the_readme_s_tour_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(README), module_relative=False, optionflags=OPTIONS)
    assert found.attempted > 15
    assert found.failed == 0


def commands():
    """Return the commands of the README but those that make an environment, and their exit codes.

    Words set off by two spaces say what a command is for.
    """
    lines, fence = [], ""
    for line in README.read_text().splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```" and line.startswith("gradaudit "):
            lines.append(line.partition("  ")[0])
    return [(line, 1 if line.startswith("gradaudit published") else 0) for line in lines]


@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_readme_s_commands_do_what_they_say(monkeypatch, capfd):
    Path("my_nets.py").write_text(
        "import keras\n\n"
        "def build():\n"
        "    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "    model.compile('adam', 'mse')\n"
        "    return model\n"
    )
    Path("table.csv").write_text("size,age,price\n1,2,3\n2,3,5\n4,1,2\n")
    Path("claims.csv").write_text("model,quantity,index,printed,given\ndeep_tanh,loss,,0.50,\n")
    found = commands()
    assert len(found) > 5
    for line, expected in found:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == expected, (line, capfd.readouterr().err)
