"""The check of a whole audit: a small net around the rule's object is trained and audited."""

import tempfile
from typing import Any

import keras
import numpy as np

from gradaudit.audit.settings import OnFail, Settings
from gradaudit.audit.single_step import judged, recorded
from gradaudit.callback import GradientAudit
from gradaudit.errors import CheckFailure
from gradaudit.nets.precision import floats
from gradaudit.records import Oracle
from gradaudit.report import Run, load
from gradaudit.rules import Case, Rule
from gradaudit.rules.registry import registered
from gradaudit.testing.kernels import needs_xla
from gradaudit.testing.nets import net
from gradaudit.testing.rounding import HALF_THRESHOLD
from gradaudit.testing.subjects import Subjects
from gradaudit.testing.updates import KINDS


def audit_passes(rule: Rule, case: Case, subjects: Subjects) -> None:
    """A net around the rule's object passes an audit in float32, in graph mode and under XLA.

    Each step is judged by the derived rule and by a trace of Keras's code. There is no trace of an
    update: for an optimizer or a constraint, a fit is audited instead, too. A case whose kernels
    TensorFlow has under XLA alone is not run in graph mode.
    """
    with floats("float32"), registered(rule):
        if rule.kind in KINDS:
            _require_pass(_trained(rule, case), "that was trained")
        modes = [(False, "in graph mode"), (True, "under XLA")]
        if needs_xla(case, "float32"):
            modes = modes[1:]
        for jit, mode in modes:
            model, x, y, _ = _net(rule, case, jit)
            step = recorded(model, x, y)
            derived = Settings(on_fail=OnFail.RAISE)
            _require_pass(judged(model, *step, derived), mode)
            if rule.kind not in KINDS:
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
        raise CheckFailure(
            f"the audit of a one-layer net {mode} has z = {run.run['max_z']:.2f}. Expected at most "
            f"{HALF_THRESHOLD}"
        )
