"""What a case needs of the processor is asked for."""

import subprocess
import sys

import keras
import pytest

from gradaudit.rules import find_rule
from gradaudit.testing import kernels
from gradaudit.testing.kernels import needs_xla

RULE = find_rule(keras.layers.Conv1D)
FIRST = next(case for case in RULE.cases if case.name == "channels first")


def test_a_case_runs_under_xla_where_there_is_no_other_kernel(monkeypatch):
    monkeypatch.setattr(kernels, "_has_channels_first_kernels", lambda: True)
    assert needs_xla(FIRST, "float64")
    assert not needs_xla(FIRST, "float32")
    assert not needs_xla(RULE.cases[0], "float64")
    monkeypatch.setattr(kernels, "_has_channels_first_kernels", lambda: False)
    assert needs_xla(FIRST, "float32")
    assert not needs_xla(RULE.cases[0], "float32")


SCRIPT = """
import dataclasses, sys
import keras
from gradaudit.rules import find_rule
from gradaudit.testing import check_rule
from gradaudit.testing.kernels import _has_channels_first_kernels

assert not _has_channels_first_kernels()
found = {"Conv1D": "channels first", "Conv1DTranspose": "dilation"}
for layer, name in found.items():
    rule = find_rule(getattr(keras.layers, layer))
    cases = tuple(case for case in rule.cases if case.name == name)
    check_rule(dataclasses.replace(rule, cases=cases))
"""


@pytest.mark.long
def test_every_check_passes_without_onednn(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
