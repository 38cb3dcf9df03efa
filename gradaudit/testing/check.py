"""The checks, and `check_rule`, which runs them."""

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from gradaudit.audit.settings import OnFail, Settings
from gradaudit.audit.single_step import judged, recorded
from gradaudit.callback import GradientAudit
from gradaudit.errors import CheckFailure, UnknownNameError
from gradaudit.nets.precision import floats
from gradaudit.numerics import PRECISIONS, Plain, Rounded, Rounding
from gradaudit.records import Oracle
from gradaudit.report import Run, load
from gradaudit.rules import Case, Rule, find_rule
from gradaudit.rules.registry import registered
from gradaudit.testing.nets import net
from gradaudit.testing.subject import Subjects
from gradaudit.testing.updates import KINDS, updates

RELATIVE = 1e-12
"""Two float64 computations of the same thing agree to this part of the largest value."""

HALF_THRESHOLD = 4.0
"""Correct float32 code stays below this many σ: half the default threshold of an audit."""

LEAST_RMS = 0.02
"""σ is useless where real rounding errors are below this part of it."""

_DOUBLE = Plain(np.float64)


def check_rule(
    target: Any,
    checks: Mapping[str, Callable] | None = None,
    subjects: Subjects | None = None,
) -> None:
    """Run the checks on every case of the rule that is registered for a Keras class or function.

    Args:
        target: the class or function, or a `Rule`.
        checks: those to run, by name; all of `CHECKS` where left out.
        subjects: those that earlier checks of the rule have built, and that this one may use.

    Raises:
        UnknownNameError: no rule is registered for the target.
        CheckFailure: a check refuses the rule; the message names check, case and values.
    """
    rule = target if isinstance(target, Rule) else find_rule(target)
    if rule is None:
        raise UnknownNameError("rule for", str(target), [])
    subjects = subjects or Subjects()
    for name, check in (checks or CHECKS).items():
        for case in rule.cases:
            try:
                check(rule, case, subjects)
            except CheckFailure as failure:
                raise CheckFailure(
                    f"{rule.kind} rule {rule.name}, case {case.name!r}, check {name}: {failure}"
                ) from failure


def forward_equals_keras(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The output is Keras's, in float64."""
    if rule.kind in KINDS:
        for ours, theirs in updates(rule, case, "float64", _DOUBLE):
            _require_close(ours, theirs, "the rule's update", "Keras's")
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        ours, theirs = found.run(rule, _DOUBLE, found.primals), found.tape(found.primals)
        _require_close(ours.y, theirs.y, "the rule's output", "Keras's")
        _require_close(ours.assigned, theirs.assigned, "the rule's new value", "Keras's")


def vjp_equals_tape(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The VJP is that of TensorFlow's tape, in float64."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        ours, theirs = found.run(rule, _DOUBLE, found.primals), found.tape(found.primals)
        dy = _cotangents(ours.y)
        cotangents = _with_zeros(ours.vjp(dy), found.primals)
        _require_close(
            cotangents, theirs.vjp(dy), "the rule's VJP", "the tape's", vanishing=case.vanishing
        )


def rule_equals_trace(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Output and VJP are those of a trace of Keras's own code, run op by op, in float64."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        ours, theirs = found.run(rule, _DOUBLE, found.primals), found.traced
        _require_close(ours.y, theirs.y, "the rule's output", "the trace's")
        dy = _cotangents(ours.y)
        cotangents, others = _with_zeros(ours.vjp(dy), found.primals), theirs.vjp(dy)
        for name in ours.assigned:  # what is assigned to takes its cotangent after that
            cotangents.pop(name, None)
            others.pop(name, None)
        _require_close(
            cotangents, others, "the rule's VJP", "the trace's", vanishing=case.vanishing
        )


def vjp_equals_differences(rule: Rule, case: Case, subjects: Subjects) -> None:
    """⟨dy, y(p + h v) − y(p − h v)⟩ / 2h is ⟨vjp(dy), v⟩ in random directions v.

    A variable that the rule assigns to is moved after that, and not before.
    """
    if rule.kind in KINDS or case.ties:
        return  # at ties there is no derivative that differences could show
    rng = np.random.default_rng(7)
    with floats("float64"):
        found = subjects.of(rule, case)
        run = found.run(rule, _DOUBLE, found.primals)
        dy = _cotangents(run.y)
        cotangents = run.vjp(dy)
        size_of_dy = float(np.sqrt(sum(np.vdot(part, part) for part in dy.values())))
        step = 1e-5  # error h² of the formula and 1e-16/h of the arithmetic are both 1e-10
        for name in found.primals:
            direction = rng.standard_normal(found.primals[name].shape)

            def shifted(h: float, name: str = name, v: np.ndarray = direction) -> float:
                primals, fixed = dict(found.primals), dict(run.assigned)
                moved = fixed if name in fixed else primals
                moved[name] = moved[name] + h * v
                given = (primals, fixed) if fixed else (primals,)  # only layers assign
                ys = found.run(rule, _DOUBLE, *given).y
                return sum(float(np.vdot(dy[key], y)) for key, y in ys.items())

            slope = (shifted(step) - shifted(-step)) / (2 * step)
            ours = float(np.vdot(cotangents.get(name, 0.0 * direction), direction))
            size = max(abs(slope), size_of_dy, 1e-3)
            if abs(ours - slope) > 1e-7 * size:
                raise CheckFailure(
                    f"d{name} gives {ours!r} in a direction in which differences give {slope!r}"
                )


def vjp_is_linear(rule: Rule, case: Case, subjects: Subjects) -> None:
    """vjp(2 a − 3 b) = 2 vjp(a) − 3 vjp(b)."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        y, vjp, _ = found.run(rule, _DOUBLE, found.primals)
        a, b = _cotangents(y), _cotangents(y, seed=6)
        of_a, of_b = vjp(a), vjp(b)
        both = {name: 2 * of_a[name] - 3 * of_b[name] for name in of_a}
        of_both = vjp({name: 2 * a[name] - 3 * b[name] for name in a})
        _require_close(
            of_both, both, "the VJP of a sum", "the sum of the VJPs", vanishing=case.vanishing
        )


def rule_is_pure(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Inputs stay as they were, and a second call of the VJP gives the same."""
    if rule.kind in KINDS:
        first, second = (updates(rule, case, "float64", _DOUBLE) for _ in range(2))
        for (ours, _), (again, _) in zip(first, second, strict=True):
            _require_close(again, ours, "a second update", "the first", tolerance=0.0)
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        primals = {name: value.copy() for name, value in found.primals.items()}
        y, vjp, _ = found.run(rule, _DOUBLE, primals)
        dy = _cotangents(y)
        kept, kept_dy = _copied(y), _copied(dy)
        first = _copied(vjp(dy))
        _require_close(vjp(dy), first, "a second VJP", "the first", tolerance=0.0)
        for now, before in ((primals, found.primals), (y, kept), (dy, kept_dy)):
            _require_close(now, before, "after the VJP", "before", 0.0)


def every_weight_has_a_cotangent(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The VJP returns a cotangent of the right shape for each input and each trainable weight."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        y, vjp, _ = found.run(rule, _DOUBLE, found.primals)
        cotangents = vjp(_cotangents(y))
        for name in found.primals:
            if name not in cotangents and name in found.differentiable:
                raise CheckFailure(f"there is no cotangent for {name!r}")
            if name in cotangents and cotangents[name].shape != found.primals[name].shape:
                raise CheckFailure(
                    f"d{name} has shape {cotangents[name].shape}, and {name} has "
                    f"{found.primals[name].shape}"
                )


def kinks_as_keras(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Where the derivative jumps, the VJP takes the side that TensorFlow takes."""
    with floats("float64"):
        for kink in case.kinks:
            found = subjects.of(rule, case)
            name = next(iter(found.primals))
            primals = {**found.primals, name: np.full(case.shapes[0], kink)}
            with np.errstate(divide="ignore"):  # at a kink 1/0 may be what a minimum cuts off
                ours, theirs = found.run(rule, _DOUBLE, primals), found.tape(primals)
                dy = _cotangents(ours.y)
                cotangents = _with_zeros(ours.vjp(dy), primals)
            _require_close(cotangents, theirs.vjp(dy), f"the VJP at {kink}", "the tape's")


def stays_float32(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Run in float32, the rule makes no float64 array: the twin run would not be one."""
    single = Plain(np.float32)
    if rule.kind in KINDS:
        arrays = {
            k: v for ours, _ in updates(rule, case, "float32", single) for k, v in ours.items()
        }
    else:
        with floats("float32"):
            found = subjects.of(rule, case, "float32")
            y, vjp, assigned = found.run(rule, single, found.primals)
            arrays = {**y, **assigned, **{f"d{k}": v for k, v in vjp(_cotangents(y)).items()}}
    for name, value in arrays.items():
        if value.dtype != np.float32:
            raise CheckFailure(f"{name} is {value.dtype}. Expected float32: a constant is an array")


def rounding_is_calibrated(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Keras's own float32 errors are below HALF_THRESHOLD σ, and not below LEAST_RMS σ all told."""
    scores: dict[int, list[np.ndarray]] = {}  # by place: the names of parts differ in each run
    names: dict[int, str] = {}
    for seed in range(12):
        for place, (name, theirs, ours) in enumerate(_float32_runs(rule, case, subjects, seed)):
            names.setdefault(place, name)
            kink = 0.0 if ours.kink is None else ours.kink
            with np.errstate(all="ignore"):
                beyond = np.maximum(np.abs(theirs - ours.value) - kink, 0.0)
                z = np.where(beyond == 0, 0.0, beyond / ours.sigma)
            if not np.max(z, initial=0.0) <= HALF_THRESHOLD:  # nor is NaN
                raise CheckFailure(
                    f"{name} is off by {np.max(z):.2f} σ in correct code. Expected at most "
                    f"{HALF_THRESHOLD}: the rule is better conditioned than Keras's computation"
                )
            if (ours.sigma > 0).any():
                scores.setdefault(place, []).append(z[ours.sigma > 0].ravel())
    for place, found in scores.items():
        z = np.concatenate(found)
        rms = float(np.sqrt(np.mean(z**2)))
        if z.any() and not rms >= LEAST_RMS:
            raise CheckFailure(
                f"errors of {names[place]} are {rms:.3f} σ in the mean. Expected more than "
                f"{LEAST_RMS}: the rule is worse conditioned than Keras's computation, and would "
                "hide errors"
            )


def audit_passes(rule: Rule, case: Case, subjects: Subjects) -> None:
    """A net around the rule's own object passes an audit in float32, in graph mode and under XLA.

    By the rule, and by a trace of Keras's code alone; an optimizer also in the steps of a training.
    """
    with floats("float32"), registered(rule):
        if rule.kind in KINDS:
            _require_pass(_trained(rule, case), "that was trained")
        for jit, mode in ((False, "in graph mode"), (True, "under XLA")):
            model, x, y, _ = _net(rule, case, jit)
            step = recorded(model, x, y)
            settings = Settings(on_fail=OnFail.RAISE)
            _require_pass(judged(model, *step, settings), mode)
            if rule.kind not in KINDS:  # there is no trace of an update
                traced = Settings(oracle=Oracle.TRACED, on_fail=OnFail.RAISE)
                _require_pass(judged(model, *step, traced), f"{mode}, by a trace of Keras's code,")


def _trained(rule: Rule, case: Case) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        model, x, y, rows = _net(rule, case, jit=False)
        audit = GradientAudit(folder, verbose=0)
        model.fit(x, y, batch_size=2 * rows, verbose=0, callbacks=[audit])
        return load(folder)


def _net(rule: Rule, case: Case, jit: bool) -> tuple[keras.Model, Any, Any, int]:
    keras.utils.set_random_seed(5)
    return net(rule, case, np.random.default_rng(5), jit)


def _require_pass(run: Run, mode: str) -> None:
    if run.verdict != "pass":
        told = run.run
        reasons = told["failures"] or told["unjudged"] or told["faults"]["tracebacks"]
        raise CheckFailure(f"the audit of a one-layer net {mode} says {run.verdict}: {reasons}")
    if not run.run["max_z"] <= HALF_THRESHOLD:
        raise CheckFailure(f"the audit of a one-layer net {mode} has z = {run.run['max_z']:.2f}")


CHECKS: dict[str, Callable[[Rule, Case, Subjects], None]] = {
    check.__name__: check
    for check in (
        forward_equals_keras,
        vjp_equals_tape,
        rule_equals_trace,
        vjp_equals_differences,
        vjp_is_linear,
        rule_is_pure,
        every_weight_has_a_cotangent,
        kinks_as_keras,
        stays_float32,
        rounding_is_calibrated,
        audit_passes,
    )
}


def _cotangents(ys: Mapping[str, Any], seed: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.standard_normal(y.shape), getattr(y, "dtype", np.float64))
        for name, y in ys.items()
    }


def _with_zeros(cotangents: Mapping[str, Any], primals: Mapping[str, Any]) -> dict[str, Any]:
    """Return cotangents with 0 for each primal that a VJP returns none for."""
    return {**{name: np.zeros(value.shape) for name, value in primals.items()}, **cotangents}


def _copied(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


def _require_close(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    our_name: str,
    their_name: str,
    tolerance: float = RELATIVE,
    vanishing: tuple[str, ...] = (),
) -> None:
    # A gradient that is 0 in theory is what is left when terms of about 1 cancel: of attention's
    # key bias, up to 3e-14 in float64, which no part of the gradient's own size would allow.
    if ours.keys() != theirs.keys():
        raise CheckFailure(f"{our_name} has {sorted(ours)}, {their_name} has {sorted(theirs)}")
    for name, value in ours.items():
        expected = np.asarray(theirs[name])
        least = 1.0 if name.endswith(vanishing) else 1e-3
        size = max(least, float(np.max(np.abs(expected), initial=0.0)))
        if value.shape != expected.shape:
            raise CheckFailure(
                f"{our_name} ({name}) has shape {value.shape}, {their_name} has {expected.shape}"
            )
        worst = float(np.max(np.abs(value - expected), initial=0.0))
        if not worst <= tolerance * size:
            raise CheckFailure(
                f"{our_name} ({name}) differs by {worst:.3g} from {their_name}, whose largest "
                f"value is {size:.3g}. Expected a difference of at most {tolerance * size:.3g}"
            )


def _float32_runs(
    rule: Rule, case: Case, subjects: Subjects, seed: int
) -> list[tuple[str, np.ndarray, Rounded]]:
    """Return (name, Keras's float32 value, the rule's value with its rounding error)."""
    rounding = Rounding()
    if rule.kind in KINDS:
        return [
            (name, theirs[name], value)
            for ours, theirs in updates(rule, case, "float32", rounding, seed)
            for name, value in ours.items()
        ]
    with floats("float32"):
        found = subjects.of(rule, case, "float32", seed)
        ours, theirs = found.run(rule, rounding, found.primals), found.tape(found.primals)
        dys = {name: np.asarray(dy, np.float32) for name, dy in _cotangents(ours.y, seed).items()}
        tape = theirs.vjp(dys)
        exact = {name: Rounded(dy, None, None, PRECISIONS["float32"]) for name, dy in dys.items()}
        return [
            *((name, theirs.y[name], value) for name, value in ours.y.items()),
            *((name, theirs.assigned[name], value) for name, value in ours.assigned.items()),
            *((f"d{name}", tape[name], value) for name, value in ours.vjp(exact).items()),
        ]
