"""Provenance in words."""

import pytest

from gradaudit.records import Passed, Provenance
from gradaudit.scoring.provenance import described

LINE = {"file": "net.py", "line": 7, "source": "y = f(x)"}
OP = {"op": "net/pad", "op_type": "PadV2"}
WORDS = {
    "the custom gradient of 'f' in net at net.py:7 (y = f(x))": Provenance(
        Passed.CUSTOM, **OP, function="f", layer="net", **LINE
    ),
    "the custom gradient of 'f', as expected, in net at net.py:7": Provenance(
        Passed.EXPECTED, function="f", layer="net", file="net.py", line=7
    ),
    "the custom gradient of 'f' in net at its call": Provenance(
        Passed.CUSTOM, function="f", layer="net"
    ),
    "the derivative by differences of the op 'net/pad' (PadV2) at net.py:7 (y = f(x))": Provenance(
        Passed.NUMERIC, **OP, **LINE
    ),
    "TensorFlow's gradient of the op 'net/pad' (PadV2), which is not its derivative,": Provenance(
        Passed.MISLED, **OP
    ),
    "TensorFlow's gradient of the op 'a' (B) of f in net, which is not its derivative at 0,": (
        Provenance(Passed.MISLED, "a", "B", function="f", layer="net", detail="at 0")
    ),
}


@pytest.mark.parametrize("words", WORDS)
def test_each_kind_has_its_words(words):
    assert described([WORDS[words]]) == [words]


def test_words_are_sorted_and_said_once_and_code_that_was_traced_has_none():
    same = Provenance(Passed.CUSTOM, op="another", function="f", layer="net", **LINE)
    assert described([Provenance(Passed.TRACED), same, *WORDS.values()]) == sorted(WORDS)
