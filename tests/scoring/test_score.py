import numpy as np
import pytest

from gradaudit.audit.tally import Tally
from gradaudit.errors import GapCode
from gradaudit.records import Estimate, Gap, Origin, Reference, Stage, StepRecord, Verdict
from gradaudit.scoring import NO_ROWS, compare

NO_RULE = Gap(GapCode.NO_RULE, "d", "no rule")


def record(gradient, weight=None):
    gradient = np.asarray(gradient, np.float32)
    weight = np.zeros_like(gradient) if weight is None else weight
    return StepRecord(
        step=3, epoch=1, x=np.ones((5, 2)), y=None, sample_weight=None,
        variables={"d/kernel": weight}, optimizer_variables={},
        variables_after={"d/kernel": weight - 0.5}, optimizer_variables_after={},
        gradients={"d/kernel": gradient}, replica_gradients=(), repeating=frozenset(),
        applications=1, loss=1.0, loss_scale=1.0, learning_rates=(0.1,), jit=False,
        tensorfloat32=False, capture_ms=1.0,
    )  # fmt: skip


class Kept:
    """Keeps the rows of single weights, tensor by tensor."""

    def begin(self):
        self.rows = []

    def add(self, rows):
        self.rows.append(rows)

    @property
    def verdicts(self):
        (only,) = self.rows
        return [list(Verdict)[code] for code in only.verdict]


def rows_of(tape, value, sigma, kink=None):
    kept = Kept()
    compared(tape, value, sigma, kink, sink=kept)
    return kept


def compared(tape, value, sigma, kink=None, threshold=8.0, sink=NO_ROWS):
    value = np.asarray(value, np.float64)
    sigma = np.broadcast_to(np.asarray(sigma, np.float64), value.shape)
    kink = None if kink is None else np.asarray(kink, np.float64)
    estimate = Estimate(value, sigma, kink, 1.0, "derived")
    reference = Reference(None, {"d/kernel": estimate})
    return compare(record(tape), reference, threshold, sink=sink)


def test_z_is_the_difference_in_sigma():
    found = compared([1.5, 2.0], [1.0, 2.0], 0.125)
    assert rows_of([1.5, 2.0], [1.0, 2.0], 0.125).rows[0].z.tolist() == [4, 0]
    assert found.max_z == 4
    assert found.worst_path == "d/kernel"
    assert found.worst_index == (0,)
    assert found.verdict == "pass"


@pytest.mark.parametrize(
    ("tape", "value", "sigma", "kink", "verdicts"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.03, None, ["pass", "fail"]),
        ([1.0, 2.0], [1.0, 2.5], 0.03, [0, 0.3], ["pass", "kink"]),
        ([1.0, 2.0], [1.0, 2.5], 0.03, [0, 0.2], ["pass", "fail"]),
        ([1.0, -2.0], [1.0, 2.5], 0.03, [0, 5.0], ["pass", "unresolved"]),
        ([1.0, 7.0], [1.0, np.nan], np.inf, None, ["pass", "unresolved"]),
        ([1.0, 7.0], [1.0, np.inf], 0.03, [0, np.inf], ["pass", "unresolved"]),
        ([1.0, np.nan], [1.0, np.inf], 0.03, [0, np.inf], ["pass", "nonfinite"]),
        ([1.0, np.inf], [1.0, 2.5], 0.03, None, ["pass", "nonfinite"]),
        ([1.0, np.nan], [1.0, 2.5], 0.03, None, ["pass", "nonfinite"]),
        ([1.0, np.nan], [1.0, np.nan], 0.03, None, ["pass", "nonfinite"]),
        ([1.0, np.inf], [1.0, np.inf], 0.03, None, ["pass", "nonfinite"]),
        ([1.0, np.inf], [1.0, -np.inf], 0.03, None, ["pass", "nonfinite"]),
        ([1.0, 1.0], [1.0, np.nan], 0.03, None, ["pass", "unresolved"]),
        ([1.0, np.inf], [1.0, 2.5], 0.03, [0, np.inf], ["pass", "nonfinite"]),
        ([1.0, 2.5], [1.0, 2.5], 0.03, [0, np.inf], ["pass", "pass"]),
        ([1.0, 2.0], [1.0, 2.5], 0.03, [0, np.nan], ["pass", "unresolved"]),
        ([0.0, 1.0], [0.0, 1.0], 0.0, None, ["pass", "pass"]),
        ([1.0, 7.0], [1.0, 2.0], [0.01, np.inf], None, ["pass", "unresolved"]),
        ([1.0, 7.0], [1.0, 2.0], [0.01, np.nan], None, ["pass", "unresolved"]),
        ([1e-30, 1.0], [0.0, 1.0], 0.0, None, ["fail", "pass"]),
        ([1.0, 1.0], [1.0, 1.0], 0.3, None, ["unresolved", "unresolved"]),
        ([99.0, 1.0], [1.0, 1.0], 0.3, None, ["fail", "unresolved"]),
    ],
)
def test_verdicts(tape, value, sigma, kink, verdicts):
    assert rows_of(tape, value, sigma, kink).verdicts == verdicts


def test_detectable_rel_is_the_smallest_error_of_the_whole_that_fails():
    tensor = compared([3.0, 4.0], [3.0, 4.0], 0.001).tensors[0]
    assert tensor.detectable_rel == pytest.approx(8 * 0.001 * np.sqrt(2) / 5)
    scaled = compared(np.array([3.0, 4.0]) * (1 + 1.01 * tensor.detectable_rel), [3, 4], 0.001)
    assert scaled.verdict == "fail"


def test_a_missing_gradient_counts_as_zero():
    base = record([1.0])
    estimate = Estimate(np.array([1.0]), np.array([1e-3]), None, 1.0, "derived")
    reference = Reference(None, {"d/kernel": estimate})
    without = StepRecord(**{**vars(base), "gradients": {"d/kernel": None}})
    tensor = compare(without, reference, 8.0).tensors[0]
    assert tensor.verdict == "fail"
    assert tensor.cause == "the tape is zero: no gradient arrives"


def test_what_has_no_reference_is_unjudged():
    reference = Reference(None, {}, unjudged={(Stage.GRADIENT, "d/kernel"): (NO_RULE,)})
    kept = Kept()
    found = compare(record([1.0]), reference, 8.0, sink=kept)
    assert found.verdict == "unjudged"
    assert kept.verdicts == ["unjudged"]
    assert found.tensors[0].cause == "no rule"
    assert kept.rows[0].tape.tolist() == [1]


def test_the_update_is_the_change_of_the_variable():
    estimate = Estimate(np.array([-0.5]), np.array([1e-9]), None, 1.0, "derived")
    reference = Reference(None, {}, lambda: iter([("d/kernel", estimate)]))
    kept = Kept()
    step = record([1.0], np.array([2.0], np.float32))
    tensor = compare(step, reference, 8.0, sink=kept).tensors[0]
    assert (tensor.stage, tensor.verdict) == ("update", "pass")
    assert kept.rows[0].tape.tolist() == [-0.5]
    assert kept.rows[0].weight.tolist() == [2.0]


def test_a_tally_counts_single_weights():
    tally = Tally()
    assert tally.verdict == "unjudged"
    tally.add(compared([1.0, 2.0], [1.0, 2.0], 1e-3), 8.0)
    assert tally.verdict == "pass"
    failures = tally.add(compared([1.0, 2.0], [1.0, 2.5], 1e-3), 8.0)
    assert tally.verdict == "fail"
    assert tally.steps == 1  # both were of step 3
    assert tally.counts["gradient"] == {"pass": 3, "fail": 1}
    assert tally.worst == "d/kernel[1] in step 3"
    words = "step 3, gradient of d/kernel: 1 of 2 values differ, [1] by a relative -0.2"
    assert tally.failures == failures == [words]


@pytest.mark.parametrize(
    ("tape", "kink", "verdict"), [(1.5, None, "fail"), (np.inf, np.inf, "nonfinite")]
)
def test_a_wrong_loss_fails_the_step(tape, kink, verdict):
    right = Estimate(np.array([1.0]), np.array([1e-3]), None, 1.0, "derived")
    kink = None if kink is None else np.asarray(kink)
    loss = Estimate(np.asarray(1.0), np.asarray(1e-6), kink, 1.0, "derived")
    found = compare(
        StepRecord(**{**vars(record([1.0])), "loss": tape}),
        Reference(loss, {"d/kernel": right}),
        8.0,
    )
    tally = Tally()
    tally.add(found, 8.0)
    assert found.verdict == tally.verdict == verdict
    assert len(tally.failures) == 1


def test_of_a_large_tensor_the_worst_weights_are_kept_and_the_rest_counted():
    value = np.ones(12)
    tape = value + 1e-3 * np.arange(12.0)[::-1]
    reference = Reference(
        None, {"d/kernel": Estimate(value, np.full(12, 1.01e-3), None, 1.0, "derived")}
    )
    kept = Kept()
    found = compare(record(tape), reference, 8.0, 5, kept)
    tally = Tally()
    tally.add(found, 8.0)
    assert kept.rows[0].place.tolist() == [0, 1, 2, 3, 4]
    assert found.tensors[0].counts == {"fail": 3, "pass": 9}
    assert found.tensors[0].worst_index == (0,)
    assert tally.rows_left_out == 7


def test_what_is_not_judged_is_told_by_stage_and_reason():
    paths = [f"d{i}/kernel" for i in range(5)]
    weights = {path: np.zeros(2) for path in paths}
    base = record([1.0])
    step = StepRecord(**{**vars(base), "variables": weights, "gradients": {}})
    unjudged = {(Stage.GRADIENT, path): (NO_RULE,) for path in paths}
    tally = Tally()
    tally.add(compare(step, Reference(None, {}, unjudged=unjudged), 8.0), 8.0)
    assert tally.unjudged_in_words() == [
        "gradient of d0/kernel, d1/kernel, d2/kernel and 2 more: no rule"
    ]


def test_one_replica_s_failure_names_it():
    estimate = Estimate(np.array([1.0]), np.array([1e-3]), None, 1.0, "derived")
    step = StepRecord(**{**vars(record([2.0])), "replica": 1})
    tally = Tally()
    (words,) = tally.add(compare(step, Reference(None, {"d/kernel": estimate}), 8.0), 8)
    assert words.startswith("step 3, replica 1, gradient of d/kernel: ")


def test_a_weight_that_is_one_number_counts_in_its_stage():
    estimate = Estimate(np.array(1.0), np.array(1e-3), None, 1.0, "derived")
    scalar = StepRecord(**{**vars(record(1.0)), "gradients": {"d/kernel": np.array(1.0)}})
    found = compare(scalar, Reference(None, {"d/kernel": estimate}), 8.0)
    assert found.verdict == "pass"


def test_what_may_overflow_names_the_op_that_may():
    estimate = Estimate(np.array([2.5]), np.array([0.03]), np.array([np.inf]), 1.0, "derived")
    reference = Reference(
        None, {"d/kernel": estimate}, overflow=lambda: Origin("Exp(89) may overflow")
    )
    tensor = compare(record([7.0]), reference, 8.0).tensors[0]
    assert tensor.verdict == "unresolved"
    assert tensor.cause.endswith("may overflow in the precision of the step: Exp(89) may overflow")


def test_a_kink_of_branches_that_lead_to_the_same_excuses_nothing():
    """The kink 5 of the first element is that of a choice that moves nothing; that of the second
    has another reason, and stays."""
    value, sigma = np.array([2.0, 2.0]), np.array([0.01, 0.01])
    estimate = Estimate(value, sigma, np.array([5.0, 5.0]), 1.0, "derived")
    left = Estimate(value, sigma, np.array([0.0, 5.0]), 1.0, "derived")
    turned = [{"d/kernel": left}] * 4
    kept, step = Kept(), record([3.0, 3.0])
    gradients = {"d/kernel": estimate}
    compare(step, Reference(None, gradients, turned=lambda: iter(turned)), 8, sink=kept)
    assert kept.verdicts == ["fail", "unresolved"]
    moved = [{"d/kernel": Estimate(value + 3, sigma, None, 1.0, "derived")}, *turned[:3]]
    compare(step, Reference(None, gradients, turned=lambda: iter(moved)), 8, sink=kept)
    assert kept.verdicts == ["unresolved", "unresolved"]
