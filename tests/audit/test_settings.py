import dataclasses

import pytest

from gradaudit.audit.selection import Selection
from gradaudit.audit.settings import OnFail, Settings
from gradaudit.errors import UsageError
from gradaudit.records import Oracle, Stage


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"threshold": 0}, "threshold is 0. Expected a number above 0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"budget": -0.1}, "budget is -0.1. Expected a share of the time"),
        ({"oracle": "numeric"}, "oracle is 'numeric'. Expected one of derived, traced, both"),
        ({"expect": {"swish": "right"}}, "expect has 'swish': 'right'. Expected \"custom\""),
        ({"rows_per_tensor": 0}, "rows_per_tensor is 0. Expected a whole number from 1 on"),
        ({"on_fail": "ignore"}, "on_fail is 'ignore'. Expected one of record, stop, raise"),
        ({"verbose": 3}, "verbose is 3. Expected 0, 1 or 2"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(setting, words):
    with pytest.raises(UsageError, match=words):
        Settings(**setting)


def test_settings_cannot_change_after_they_were_validated():
    expect = {"swish": "custom"}
    settings = Settings(expect=expect)
    expect["tanh"] = "right"
    assert settings.expect == {"swish": "custom"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.threshold = -1.0


def test_the_policy_of_a_step_is_that_of_the_settings():
    policy = Settings(Selection(layers="first"), oracle="both", expect={"f": "custom"}).policy()
    assert policy.oracle is Oracle.BOTH
    assert policy.expect == ("f",)
    assert policy.stages == (Stage.GRADIENT, Stage.UPDATE)
    assert policy.wanted("net/first/kernel")
    assert not policy.wanted("net/second/kernel")


@pytest.mark.parametrize("setting", [{"budget": 0.1}, {"on_fail": OnFail.STOP}])
def test_workers_audit_and_end_together(setting):
    Settings().check_workers()
    with pytest.raises(UsageError, match="several workers train together"):
        Settings(**setting).check_workers()
