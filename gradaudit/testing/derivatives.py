"""The checks in float64: the rule's output and VJP beside Keras's, differences and the rule itself.

Each check is a function (rule, case, subjects) that returns None, or raises `CheckFailure` with the
values that differ.
"""

import numpy as np

from gradaudit.errors import CheckFailure
from gradaudit.nets.precision import floats
from gradaudit.numerics import Plain
from gradaudit.rules import Case, Rule
from gradaudit.testing.agreement import copied, random_cotangents, require_close, with_zeros
from gradaudit.testing.subjects import Subjects
from gradaudit.testing.updates import KINDS, updates

_DOUBLE = Plain(np.float64)


def forward_equals_keras(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The output, or the updated weight, equals Keras's."""
    if rule.kind in KINDS:
        for new, keras_new in updates(rule, case, "float64", _DOUBLE):
            require_close(new, keras_new, "the rule's update", "Keras's")
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        ours, theirs = found.run(rule, _DOUBLE, found.primals), found.tape(found.primals)
        require_close(ours.y, theirs.y, "the rule's output", "Keras's")
        require_close(ours.assigned, theirs.assigned, "the rule's new value", "Keras's")


def vjp_equals_tape(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The VJP equals that of TensorFlow's tape."""
    with floats("float64"):
        found = subjects.of(rule, case)
        ours, theirs = found.run(rule, _DOUBLE, found.primals), found.tape(found.primals)
        dy = random_cotangents(ours.y)
        cotangents = with_zeros(ours.vjp(dy), found.primals)
        require_close(
            cotangents, theirs.vjp(dy), "the rule's VJP", "the tape's", vanishing=case.vanishing
        )


def rule_equals_trace(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Output and VJP equal those of a trace of Keras's own code, interpreted op by op."""
    with floats("float64"):
        found = subjects.of(rule, case)
        ours, theirs = found.run(rule, _DOUBLE, found.primals), found.traced
        require_close(ours.y, theirs.y, "the rule's output", "the trace's")
        dy = random_cotangents(ours.y)
        cotangents, others = with_zeros(ours.vjp(dy), found.primals), dict(theirs.vjp(dy))
        for name in ours.assigned:  # the rule gives the cotangent of the value after assignment
            cotangents.pop(name, None)
            others.pop(name, None)
        require_close(cotangents, others, "the rule's VJP", "the trace's", vanishing=case.vanishing)


def vjp_equals_differences(rule: Rule, case: Case, subjects: Subjects) -> None:
    """⟨dy, y(p + h v) − y(p − h v)⟩ / 2h equals ⟨vjp(dy), v⟩ in random directions v.

    A variable that the rule assigns to is moved after the assignment, and not before.
    """
    rng = np.random.default_rng(7)
    with floats("float64"):
        found = subjects.of(rule, case)
        run = found.run(rule, _DOUBLE, found.primals)
        dy = random_cotangents(run.y)
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
    with floats("float64"):
        found = subjects.of(rule, case)
        y, vjp, *_ = found.run(rule, _DOUBLE, found.primals)
        a, b = random_cotangents(y), random_cotangents(y, seed=6)
        of_a, of_b = vjp(a), vjp(b)
        both = {name: 2 * of_a[name] - 3 * of_b[name] for name in of_a}
        of_both = vjp({name: 2 * a[name] - 3 * b[name] for name in a})
        require_close(
            of_both, both, "the VJP of a sum", "the sum of the VJPs", vanishing=case.vanishing
        )


def rule_is_pure(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The rule changes none of its inputs, and a second VJP or update gives the same values."""
    if rule.kind in KINDS:
        one, other = (updates(rule, case, "float64", _DOUBLE) for _ in range(2))
        for (new, _), (again, _) in zip(one, other, strict=True):
            require_close(again, new, "a second update", "the first", tolerance=0.0)
        return
    with floats("float64"):
        found = subjects.of(rule, case)
        primals = copied(found.primals)
        y, vjp, *_ = found.run(rule, _DOUBLE, primals)
        dy = random_cotangents(y)
        kept, kept_dy = copied(y), copied(dy)
        first = copied(vjp(dy))
        require_close(vjp(dy), first, "a second VJP", "the first", tolerance=0.0)
        for now, before in ((primals, found.primals), (y, kept), (dy, kept_dy)):
            require_close(now, before, "after the VJP", "before", tolerance=0.0)


def every_weight_has_a_cotangent(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The VJP returns a cotangent of the right shape for each input and each trainable weight."""
    with floats("float64"):
        found = subjects.of(rule, case)
        y, vjp, *_ = found.run(rule, _DOUBLE, found.primals)
        cotangents = vjp(random_cotangents(y))
        for name, primal in found.primals.items():
            if name not in cotangents and name in found.differentiable:
                raise CheckFailure(f"the VJP returns no cotangent for {name!r}")
            if name in cotangents and cotangents[name].shape != primal.shape:
                raise CheckFailure(
                    f"d{name} has shape {cotangents[name].shape}, and {name} has {primal.shape}"
                )


def kinks_as_keras(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Where the derivative jumps, the VJP takes the subgradient that TensorFlow takes.

    Unless the rule says that TensorFlow's is none: see `LayerCall.misleads`.
    """
    with floats("float64"):
        for kink in case.kinks:
            found = subjects.of(rule, case)
            name = next(iter(found.primals))
            primals = {**found.primals, name: np.full(case.shapes[0], kink)}
            with np.errstate(divide="ignore"):  # at a kink 1/0 may be what a minimum cuts off
                ours, theirs = found.run(rule, _DOUBLE, primals), found.tape(primals)
                dy = random_cotangents(ours.y)
                cotangents = with_zeros(ours.vjp(dy), primals)
            if not ours.passed:
                require_close(cotangents, theirs.vjp(dy), f"the VJP at {kink!r}", "the tape's")
