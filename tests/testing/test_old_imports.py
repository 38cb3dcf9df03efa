"""Names that earlier documents told users to import still work; old packages name the new ones."""

import importlib
import pkgutil
import sys

import pytest

import gradaudit.nets
import gradaudit.testing

DOCUMENTED = (
    "gradaudit.AuditFailure gradaudit.Case gradaudit.GradientAudit gradaudit.audit_gradients "
    "gradaudit.check gradaudit.explain gradaudit.load gradaudit.published gradaudit.rule "
    "gradaudit.checks.check_rule gradaudit.errors.AuditFailure gradaudit.models.NETS "
    "gradaudit.rules.summed"
).split()
"""The names of the package in README.md and CONTRIBUTING.md before the packages moved."""


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


@pytest.mark.filterwarnings("ignore:gradaudit.(checks|models) is:DeprecationWarning")
@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_name_that_documents_had_can_be_imported(name):
    assert pkgutil.resolve_name(name)
