"""The checks, and `check_rule`, which runs them."""

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from gradaudit.callback import GradientAudit
from gradaudit.checks.subject import Subject, subject, targets
from gradaudit.checks.updates import KINDS, updates
from gradaudit.errors import CheckFailure, UnknownNameError
from gradaudit.models.precision import floats
from gradaudit.numerics import PRECISIONS, Plain, Rounded, Rounding
from gradaudit.report import load
from gradaudit.rules import Case, Rule, find_rule
from gradaudit.rules.registry import registered

RELATIVE = 1e-12
"""Two float64 computations of the same thing agree to this part of the largest value."""

HALF_THRESHOLD = 4.0
"""Correct float32 code stays below this many σ: half the default threshold of an audit."""

LEAST_RMS = 0.02
"""σ is useless where real rounding errors are below this part of it."""

_DOUBLE = Plain(np.float64)


def check_rule(target: Any, checks: Mapping[str, Callable] | None = None) -> None:
    """Run the checks on every case of the rule that is registered for a Keras class or function.

    Args:
        target: the class or function, or a `Rule`.
        checks: those to run, by name; all of `CHECKS` where left out.

    Raises:
        UnknownNameError: no rule is registered for the target.
        CheckFailure: a check refuses the rule; the message names check, case and values.
    """
    rule = target if isinstance(target, Rule) else find_rule(target)
    if rule is None:
        raise UnknownNameError("rule for", str(target), [])
    for name, check in (checks or CHECKS).items():
        for case in rule.cases:
            try:
                check(rule, case)
            except CheckFailure as failure:
                raise CheckFailure(
                    f"{rule.kind} rule {rule.name}, case {case.name!r}, check {name}: {failure}"
                ) from failure


def forward_equals_keras(rule: Rule, case: Case) -> None:
    """The output is Keras's, in float64."""
    if rule.kind in KINDS:
        for ours, theirs in updates(rule, case, "float64", _DOUBLE):
            _require_close(ours, theirs, "the rule's update", "Keras's")
        return
    with floats("float64"):
        found = _subject(rule, case)
        y, _ = found.rule(_DOUBLE, found.primals)
        theirs, _ = found.tape(found.primals)
    _require_close({"y": y}, {"y": theirs}, "the rule's output", "Keras's")


def vjp_equals_tape(rule: Rule, case: Case) -> None:
    """The VJP is that of TensorFlow's tape, in float64."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = _subject(rule, case)
        y, vjp = found.rule(_DOUBLE, found.primals)
        dy = _cotangent(y)
        _, tape_vjp = found.tape(found.primals)
        _require_close(vjp(dy), tape_vjp(dy), "the rule's VJP", "the tape's")


def vjp_equals_differences(rule: Rule, case: Case) -> None:
    """⟨dy, y(p + h v) − y(p − h v)⟩ / 2h is ⟨vjp(dy), v⟩ in random directions v."""
    if rule.kind in KINDS:
        return
    rng = np.random.default_rng(7)
    with floats("float64"):
        found = _subject(rule, case)
        y, vjp = found.rule(_DOUBLE, found.primals)
        dy = _cotangent(y)
        cotangents = vjp(dy)
        step = 1e-5  # error h² of the formula and 1e-16/h of the arithmetic are both 1e-10
        for name in found.primals:
            direction = rng.standard_normal(found.primals[name].shape)

            def shifted(h: float, name: str = name, v: np.ndarray = direction) -> np.ndarray:
                moved = {**found.primals, name: found.primals[name] + h * v}
                return np.vdot(dy, found.rule(_DOUBLE, moved)[0])

            slope = (shifted(step) - shifted(-step)) / (2 * step)
            ours = np.vdot(cotangents.get(name, 0.0 * direction), direction)
            size = max(abs(slope), float(np.linalg.norm(dy)), 1e-3)
            if abs(ours - slope) > 1e-7 * size:
                raise CheckFailure(
                    f"d{name} gives {ours!r} in a direction in which differences give {slope!r}"
                )


def vjp_is_linear(rule: Rule, case: Case) -> None:
    """vjp(2 a − 3 b) = 2 vjp(a) − 3 vjp(b)."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = _subject(rule, case)
        y, vjp = found.rule(_DOUBLE, found.primals)
        a, b = _cotangent(y), _cotangent(y, seed=6)
        of_a, of_b = vjp(a), vjp(b)
        both = {name: 2 * of_a[name] - 3 * of_b[name] for name in of_a}
        _require_close(vjp(2 * a - 3 * b), both, "the VJP of a sum", "the sum of the VJPs")


def rule_is_pure(rule: Rule, case: Case) -> None:
    """Inputs stay as they were, and a second call of the VJP gives the same."""
    if rule.kind in KINDS:
        first, second = (updates(rule, case, "float64", _DOUBLE) for _ in range(2))
        for (ours, _), (again, _) in zip(first, second, strict=True):
            _require_close(again, ours, "a second update", "the first", tolerance=0.0)
        return
    with floats("float64"):
        found = _subject(rule, case)
        primals = {name: value.copy() for name, value in found.primals.items()}
        y, vjp = found.rule(_DOUBLE, primals)
        kept, dy = y.copy(), _cotangent(y)
        kept_dy = dy.copy()
        first = {name: value.copy() for name, value in vjp(dy).items()}
        _require_close(vjp(dy), first, "a second VJP", "the first", tolerance=0.0)
        now = {**primals, "y": y, "dy": dy}
        _require_close(
            now, {**found.primals, "y": kept, "dy": kept_dy}, "after the VJP", "before", 0.0
        )


def every_weight_has_a_cotangent(rule: Rule, case: Case) -> None:
    """The VJP returns a cotangent of the right shape for the input and each trainable weight."""
    if rule.kind in KINDS:
        return
    with floats("float64"):
        found = _subject(rule, case)
        y, vjp = found.rule(_DOUBLE, found.primals)
        cotangents = vjp(_cotangent(y))
        for name in found.primals:
            if name not in cotangents and name in found.variables:
                raise CheckFailure(f"there is no cotangent for the trainable weight {name!r}")
            if name in cotangents and cotangents[name].shape != found.primals[name].shape:
                raise CheckFailure(
                    f"d{name} has shape {cotangents[name].shape}, and {name} has "
                    f"{found.primals[name].shape}"
                )


def kinks_as_keras(rule: Rule, case: Case) -> None:
    """Where the derivative jumps, the VJP takes the side that TensorFlow takes."""
    with floats("float64"):
        for kink in case.kinks:
            found = _subject(rule, case)
            name = next(iter(found.primals))
            primals = {**found.primals, name: np.full(case.shape, kink)}
            y, vjp = found.rule(_DOUBLE, primals)
            _, tape_vjp = found.tape(primals)
            dy = _cotangent(y)
            _require_close(vjp(dy), tape_vjp(dy), f"the VJP at {kink}", "the tape's")


def stays_float32(rule: Rule, case: Case) -> None:
    """Run in float32, the rule makes no float64 array: the twin run would not be one."""
    single = Plain(np.float32)
    if rule.kind in KINDS:
        arrays = {
            k: v for ours, _ in updates(rule, case, "float32", single) for k, v in ours.items()
        }
    else:
        with floats("float32"):
            found = _subject(rule, case, "float32")
            y, vjp = found.rule(single, found.primals)
            arrays = {"y": y, **{f"d{k}": v for k, v in vjp(_cotangent(y)).items()}}
    for name, value in arrays.items():
        if value.dtype != np.float32:
            raise CheckFailure(f"{name} is {value.dtype}. Expected float32: a constant is an array")


def rounding_is_calibrated(rule: Rule, case: Case) -> None:
    """Keras's own float32 errors are below HALF_THRESHOLD σ, and not below LEAST_RMS σ all told."""
    scores: dict[str, list[np.ndarray]] = {}
    for seed in range(12):
        for name, theirs, ours in _float32_runs(rule, case, seed):
            kink = 0.0 if ours.kink is None else ours.kink
            with np.errstate(all="ignore"):
                beyond = np.maximum(np.abs(theirs - ours.value) - kink, 0.0)
                z = np.where(beyond == 0, 0.0, beyond / ours.sigma)
            if z.size and np.max(z) > HALF_THRESHOLD:
                raise CheckFailure(
                    f"{name} is off by {np.max(z):.2f} σ in correct code. Expected at most "
                    f"{HALF_THRESHOLD}: the rule is better conditioned than Keras's computation"
                )
            if (ours.sigma > 0).any():
                scores.setdefault(name, []).append(z[ours.sigma > 0].ravel())
    for name, found in scores.items():
        z = np.concatenate(found)
        rms = float(np.sqrt(np.mean(z**2)))
        if z.any() and rms < LEAST_RMS:
            raise CheckFailure(
                f"errors of {name} are {rms:.3f} σ in the mean. Expected more than {LEAST_RMS}: "
                "the rule is worse conditioned than Keras's computation, and would hide errors"
            )


def audit_passes(rule: Rule, case: Case) -> None:
    """A net of a Dense layer and the rule's own object trains in float32 under a passing audit."""
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(5)
    with floats("float32"), registered(rule), tempfile.TemporaryDirectory() as folder:
        rows, *features = case.shape if rule.kind not in KINDS else (3, 4)
        x = rng.standard_normal((3 * rows, *features)).astype(np.float32)
        model, y = _net(rule, case, x.shape, rng)
        audit = GradientAudit(folder, verbose=0)
        model.fit(x, y, batch_size=2 * rows, epochs=2, verbose=0, callbacks=[audit])
        run = load(folder).run
    if audit.verdict != "pass":
        reasons = run["failures"] or run["unjudged"] or run["faults"]["tracebacks"]
        raise CheckFailure(f"the audit of a one-layer net says {audit.verdict}: {reasons}")
    if audit.max_z > HALF_THRESHOLD:
        raise CheckFailure(f"the audit of a one-layer net has z = {audit.max_z:.2f}")


CHECKS: dict[str, Callable[[Rule, Case], None]] = {
    check.__name__: check
    for check in (
        forward_equals_keras,
        vjp_equals_tape,
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


def _net(
    rule: Rule, case: Case, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[keras.Model, np.ndarray]:
    """Return a compiled net around the rule's object, and targets for `shape`."""
    width, target = shape[-1], case.build()
    first = keras.layers.Dense(width, bias_initializer="normal")
    layers, loss, optimizer = [keras.Input(shape[1:]), first], "mean_squared_error", "sgd"
    if rule.kind == "layer":
        layers += [target, keras.layers.Dense(2)]
    elif rule.kind == "activation":
        layers.append(keras.layers.Activation(target))
    elif rule.kind == "regularizer":
        first.kernel_regularizer = target
        layers.append(keras.layers.Dense(2))
    elif rule.kind == "loss":
        loss = target
        if case.inputs == "probability":  # softmax and sigmoid would pass their logits on
            layers.append(keras.layers.Activation("hard_sigmoid"))
    elif rule.kind == "constraint":
        first.kernel_constraint = target
    else:
        optimizer = target
    model = keras.Sequential(layers)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    if rule.kind == "loss":
        wanted = Case(case.name, case.build, shape, targets=case.targets)
        return model, targets(wanted, rng)
    output = model(np.zeros(shape, np.float32))  # the shape that Activation declares is its input's
    return model, rng.standard_normal(tuple(output.shape))


def _subject(rule: Rule, case: Case, dtype: str = "float64", seed: int = 4) -> Subject:
    keras.utils.set_random_seed(seed)
    return subject(rule, case, dtype, np.random.default_rng(seed))


def _cotangent(y: Any, seed: int = 5) -> np.ndarray:
    value = np.random.default_rng(seed).standard_normal(y.shape)
    return np.asarray(value, getattr(y, "dtype", np.float64))


def _require_close(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    our_name: str,
    their_name: str,
    tolerance: float = RELATIVE,
) -> None:
    for name, value in ours.items():
        expected = np.asarray(theirs[name])
        size = max(1e-3, float(np.max(np.abs(expected), initial=0.0)))
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


def _float32_runs(rule: Rule, case: Case, seed: int) -> list[tuple[str, np.ndarray, Rounded]]:
    """Return (name, Keras's float32 value, the rule's value with its rounding error)."""
    rounding = Rounding()
    if rule.kind in KINDS:
        return [
            (name, theirs[name], value)
            for ours, theirs in updates(rule, case, "float32", rounding, seed)
            for name, value in ours.items()
        ]
    with floats("float32"):
        found = _subject(rule, case, "float32", seed)
        y, vjp = found.rule(rounding, found.primals)
        theirs, tape_vjp = found.tape(found.primals)
        dy = np.asarray(_cotangent(y, seed), np.float32)
        tape = tape_vjp(dy)
        runs = [("y", theirs, y)]
        exact = Rounded(dy, None, None, PRECISIONS["float32"])
        return runs + [(f"d{name}", tape[name], value) for name, value in vjp(exact).items()]
