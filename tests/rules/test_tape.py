"""The tape by itself: order, sums, zeros, and what a cotangent passed."""

import numpy as np
import pytest

from gradaudit.numerics import Rounding, SumOfSteps
from gradaudit.records import Passed, Provenance
from gradaudit.rules.tape import Gradients, Primal, Sum, Tape

CUSTOM = Provenance(Passed.CUSTOM, function="mine", file="mine.py", line=3)
MISLED = Provenance(Passed.MISLED, op="pad")


def scaled(tape, x, factor, passed=frozenset()):
    y = Primal(factor * x.value)
    tape.record([x], [y], lambda dy: (factor * dy,), passed)
    return y


def test_cotangents_of_all_uses_are_added():
    tape, x = Tape(Gradients()), Primal(np.array([1.0, 2.0]))
    y, z = scaled(tape, x, 3.0), scaled(tape, x, 5.0)
    total = Primal(y.value + z.value)
    tape.record([y, z], [total], lambda d: (d, d))
    total.add(np.array([1.0, 10.0]))
    tape.backward()
    np.testing.assert_array_equal(x.cotangent, [8.0, 80.0])


def test_an_operation_without_cotangents_is_skipped_and_a_missing_one_is_zero():
    tape, x, given = Tape(Gradients()), Primal(np.ones(2)), []
    left, right = Primal(np.ones(2)), Primal(np.ones(3))
    tape.record([x], [left, right], lambda *dys: given.extend(dys) or (dys[0],))
    tape.record([x], [Primal(np.ones(2))], lambda dy: pytest.fail("no cotangent came"))
    left.add(np.array([1.0, 2.0]))
    tape.backward()
    np.testing.assert_array_equal(given[1], np.zeros(3))
    np.testing.assert_array_equal(x.cotangent, [1.0, 2.0])


def test_no_gradient_goes_to_an_input_that_has_none():
    tape, x, y = Tape(Gradients()), Primal(np.ones(2)), Primal(np.ones(2))
    tape.record([x, None, x], [y], lambda dy: (dy, dy, None))
    y.add(np.ones(2))
    tape.backward()
    np.testing.assert_array_equal(x.cotangent, np.ones(2))


def test_a_list_of_outputs_may_be_changed_after_it_was_recorded():
    tape, x, made = Tape(Gradients()), Primal(np.ones(())), [Primal(np.ones(()))]
    tape.record([x], made, lambda dy: (dy,))
    made[0].add(np.ones(()))
    made[0] = Primal(np.zeros(()))
    tape.backward()
    assert x.cotangent == 1


def read(tape, path, value):
    """Return a variable as a primal, whose cotangent is collected."""
    y = Primal(value)
    tape.record([], [y], lambda dy: tape.gradients.add(path, dy) or ())
    return y


def test_provenance_is_that_of_what_stands_between_the_loss_and_the_variable():
    tape = Tape(Gradients())
    before = scaled(tape, read(tape, "before", np.ones(2)), 2.0, frozenset({CUSTOM}))
    behind = read(tape, "behind", np.ones(2))
    loss = Primal(np.ones(2))
    tape.record([before, behind], [loss], lambda d: (d, d))
    loss.add(np.ones(2), frozenset({MISLED}))
    tape.backward()
    assert tape.gradients.provenance == {
        "before": frozenset({CUSTOM, MISLED}),
        "behind": frozenset({MISLED}),
    }
    np.testing.assert_array_equal(tape.gradients.totals()["before"], [2.0, 2.0])
    assert not tape.gradients.passing


def test_what_is_passed_in_a_round_of_a_loop_is_passed_by_earlier_rounds():
    gradients = Gradients()
    outer, x = Tape(gradients), Primal(np.ones(()))
    rounds = []
    for number in range(2):  # each round passes a custom gradient, and adds a weight to the state
        tape, state, sum_ = Tape(gradients), Primal(np.ones(())), Primal(np.ones(()))
        terms = [scaled(tape, state, 2.0, frozenset({CUSTOM}))]
        terms.append(read(tape, f"weight {number}", np.ones(())))
        tape.record(terms, [sum_], lambda d: (d, d))
        rounds.append((tape, state, sum_))

    def vjp(dy):
        for tape, state, sum_ in reversed(rounds):
            sum_.add(dy)
            tape.backward()
            gradients.passing |= state.passed
            dy = state.cotangent
        return (dy,)

    y = Primal(np.ones(()))
    outer.record([x], [y], vjp)
    y.add(np.ones(()))
    outer.backward()
    assert gradients.provenance == {"weight 1": frozenset(), "weight 0": frozenset({CUSTOM})}
    assert x.passed == {CUSTOM}
    assert x.cotangent == 4


def test_the_provenance_of_a_variable_is_that_of_all_its_uses():
    gradients = Gradients()
    gradients.add("w", np.ones(2), frozenset({CUSTOM}))
    gradients.add("w", np.ones(2), frozenset({MISLED}))
    gradients.add("w", np.ones(2))
    assert gradients.provenance == {"w": frozenset({CUSTOM, MISLED})}


@pytest.mark.parametrize("new_sum", [Sum, SumOfSteps])
def test_a_variable_s_terms_are_added_one_after_the_other(new_sum):
    gradients = Gradients(new_sum)
    terms = [np.float32(x) for x in (1e8, 1.0, -1e8, 3.0)]
    for term in terms:
        gradients.add("w", np.asarray(term))
    assert gradients.totals()["w"] == ((terms[0] + terms[1]) + terms[2]) + terms[3]


def test_errors_of_steps_are_not_independent_and_those_of_uses_are():
    term = Rounding().array(np.ones(3), "float32")
    sigmas = []
    for new_sum in (Sum, SumOfSteps):
        gradients = Gradients(new_sum)
        for _ in range(4):
            gradients.add("w", term * term)
        sigmas.append(gradients.totals()["w"].sigma)
    assert (sigmas[1] > 1.5 * sigmas[0]).all()
