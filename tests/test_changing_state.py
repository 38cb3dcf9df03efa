"""The cases of `benchmarks/changing_state.py`: with and without an audit, the same to the bit."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest

from suite import by_default

_PATH = Path(__file__).parents[1] / "benchmarks" / "changing_state.py"


def _loaded():
    spec = importlib.util.spec_from_file_location("changing_state", _PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


changing_state = _loaded()


@pytest.mark.parametrize("number", by_default(range(40), [12]))
def test_a_training_whose_python_state_changes(number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of layers that its user's code leaves unbuilt
        is_equal, run = changing_state.outcome(number)
    assert is_equal
    assert run.run["faults"]["count"] == 0, run.run["faults"]["tracebacks"][0]
    assert run.verdict != "fail" or run.run["stale"]
