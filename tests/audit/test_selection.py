import pytest

from gradaudit.audit.selection import Budget, Selection
from gradaudit.errors import UsageError


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def test_every_step_is_taken_where_nothing_is_said():
    assert Selection().options() == {"every": 1, "steps": (), "first": 0, "layers": None}
    assert Selection().left_out() == []


def test_what_is_left_out_is_told():
    chosen = Selection(every="epoch", steps=[3, 9], first=2, layers="encoder.*")
    assert chosen.left_out() == [
        "all steps but the first 2 and number 3, 9 and the first of each epoch",
        "weights of layers in whose path 'encoder.*' is not found",
    ]


def test_layers_are_found_in_the_path_without_the_weight_s_own_name():
    chosen = Selection(layers="encoder.*")
    assert chosen.weight("net/encoder_2/kernel")
    assert not chosen.weight("net/decoder/encoder")
    assert not Selection(layers="kernel").weight("net/encoder_2/kernel")


@pytest.mark.parametrize("share", [0.0, -1.0, float("inf"), float("nan")])
def test_a_budget_is_a_share(share):
    with pytest.raises(UsageError, match="Expected a share of the time"):
        Budget(share)


def training(share, audit_s, step_s, steps):
    """Train steps that take `step_s`; those that the budget allows take `audit_s` more."""
    clock = Clock()
    budget = Budget(share, clock)
    budget.start()
    audited = []
    for step in range(steps):
        if budget.allows():
            audited.append(step)
            clock.now += audit_s[min(len(audited), len(audit_s)) - 1]
            budget.spend(audit_s[min(len(audited), len(audit_s)) - 1])
        clock.now += step_s
    budget.stop()
    return budget, audited


def test_the_audit_stays_within_its_share_of_the_training():
    budget, audited = training(0.05, [1.0], 1.0, 1000)
    assert audited[:3] == [0, 40, 60]  # 1 + 1 s are 5 % of 40 s
    assert budget.audit_s / (budget.elapsed_s - budget.audit_s) <= 0.05
    assert len(audited) == 49
    assert budget.passed_over == 1000 - 49
    (words,) = budget.words()
    assert words.startswith("951 selected executions, for budget=0.05: the audit took 4.9%")


def test_a_first_step_that_compiles_is_made_up_for():
    budget, audited = training(0.05, [10.0, 1.0], 1.0, 1000)
    assert audited[1] >= 400 - 1  # the next one is taken to be as dear as the first
    assert budget.audit_s / (budget.elapsed_s - budget.audit_s) <= 0.05


def test_a_training_too_short_for_its_first_audited_step_is_told():
    budget, audited = training(0.05, [10.0], 1.0, 20)
    assert audited == [0]
    assert budget.words()[0].endswith("compiles and the training was short")


def test_without_a_budget_every_step_is_allowed():
    budget, audited = training(None, [10.0], 1.0, 5)
    assert audited == list(range(5))
    assert budget.words() == []
