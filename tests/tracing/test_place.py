"""Which line of a call is the user's own."""

import functools
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from gradaudit import tracing
from gradaudit.tracing.place import Place, library_function_of, place_of

NET = "/home/u/net.py"
PACKAGE = "/v/lib/python3/site-packages/nets/vit.py"
OPTREE = "/v/lib/python3/site-packages/optree/ops.py"
DEBIAN = "/usr/lib/python3/dist-packages/nets/vit.py"
KERAS = f"{keras.__path__[0]}/src/tree/optree_impl.py"
TF = f"{tf.__path__[0]}/python/ops/math_ops.py"
STANDARD = functools.__file__
OURS = f"{tracing.__path__[0]}/trace.py"


def _operation(*files):
    frames = [
        SimpleNamespace(filename=file, lineno=i, line=f"line {i}", name=f"f{i}")
        for i, file in enumerate(files)
    ]
    return SimpleNamespace(traceback=frames, type="Relu")


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ((NET, KERAS, TF), 0),
        ((NET, OPTREE, KERAS, TF), 0),
        ((NET, KERAS, NET, STANDARD, TF), 2),
        ((KERAS, NET, PACKAGE, TF), 1),
        ((KERAS, PACKAGE, OPTREE, KERAS, TF), 1),
        ((KERAS, DEBIAN, STANDARD, TF), 1),
        ((NET, PACKAGE, OURS, KERAS, PACKAGE, TF), 4),
        ((NET, OURS, STANDARD, KERAS, OPTREE, KERAS, TF), None),
        ((NET, OURS, "<string>", TF), None),
    ],
)
def test_the_innermost_line_outside_what_is_installed_is_the_users(files, own):
    place = place_of(_operation(*files))
    assert place == (Place() if own is None else Place(files[own], own, f"line {own}"))


def test_a_function_of_a_package_that_the_user_calls_is_named():
    assert library_function_of(_operation(KERAS, NET, PACKAGE, TF)) == "f2"
    assert library_function_of(_operation(KERAS, PACKAGE, TF, TF)) == "f2"
