"""Layers and losses as users write them: right ones pass, and one wrong line fails and is named."""

import inspect
import re

import pytest

import custom_nets
import gradaudit
from custom_nets import NETS, right, wrong


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_right_one_passes(name, jit):
    build, _ = NETS[name]
    model, x, y = build(right)
    model.compile(model.optimizer, model.loss, jit_compile=jit)
    run = gradaudit.check(model, x, y)
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    gradients = run.tensors.query("stage == 'gradient'")
    assert "traced" in set(gradients["oracle"])
    assert gradients["max_z"].max() < 4


@pytest.mark.parametrize("name", NETS)
def test_one_wrong_line_is_found_and_named(name):
    build, layer = NETS[name]
    model, x, y = build(wrong)
    run = gradaudit.check(model, x, y)
    assert run.verdict == "fail", run.run["unjudged"]
    lines = inspect.getsource(custom_nets).splitlines()
    for cause in run.tensors.query("stage == 'gradient' and verdict == 'fail'")["cause"]:
        place = re.search(r"custom gradient .*custom_nets\.py:(\d+)", cause)
        assert "line(" in lines[int(place[1]) - 1]
        assert layer in cause
