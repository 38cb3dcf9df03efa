"""The old names of packages that users import still work, and say where the packages are now."""

import importlib
import sys

import pytest

import gradaudit.nets
import gradaudit.testing


@pytest.mark.parametrize(
    ("old", "new"),
    [("gradaudit.checks", gradaudit.testing), ("gradaudit.models", gradaudit.nets)],
)
def test_an_old_name_works_and_names_the_new_one(old, new, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"^{old} is {new.__name__} now"):
        module = importlib.import_module(old)
    assert module.__all__
    assert all(getattr(module, name) is getattr(new, name) for name in module.__all__)
