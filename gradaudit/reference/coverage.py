"""What derived rules cover of the steps of a spec: what is traced, and what is unjudged."""

import weakref
from dataclasses import dataclass

from gradaudit.errors import GapCode
from gradaudit.records import Gap, StepSpec
from gradaudit.reference.gaps import model_gaps, overrides, traced_layers
from gradaudit.rules import find_rule, single_optimizers
from gradaudit.rules.registry import version


@dataclass(frozen=True)
class Coverage:
    """What derived rules cover of a step.

    step: why no gradient can be derived, not even by a trace. model: which parts have no derived
    rule. update: why the update cannot be derived.
    whole: the whole step is traced. traced: otherwise, ids of the parts that are.
    """

    step: tuple[Gap, ...]
    model: tuple[Gap, ...]
    update: tuple[Gap, ...]
    whole: bool
    traced: frozenset[int]


_COVERAGE: weakref.WeakKeyDictionary[StepSpec, tuple[int, Coverage]] = weakref.WeakKeyDictionary()
"""With the version of the register of rules that each was found with."""


def coverage(spec: StepSpec) -> Coverage:
    """Return what derived rules cover of the steps of a spec."""
    now = version()
    before, known = _COVERAGE.get(spec, (None, None))
    if known is not None and before == now:
        return known
    model = spec.model
    gaps = model_gaps(model)
    layers = traced_layers(model) if gaps else []
    found = Coverage(
        step=_step_gaps(spec),
        model=gaps,
        update=_update_gaps(spec),
        whole=layers is None,
        traced=frozenset(map(id, layers or ())),
    )
    _COVERAGE[spec] = now, found
    return found


def _step_gaps(spec: StepSpec) -> tuple[Gap, ...]:
    """Return why no gradient of the model can be derived, not even by a trace of its code."""
    model, gaps = spec.model, []
    if overrides(model, "train_step"):
        gaps.append(Gap(GapCode.TRAIN_STEP, model.name, "the model overrides train_step"))
    if spec.optimizer is not None and "apply" in vars(spec.optimizer):
        words = "the optimizer's apply was replaced on the instance"
        gaps.append(Gap(GapCode.APPLY_REPLACED, spec.optimizer.name, words))
    if model.built and not model.trainable_variables:
        gaps.append(Gap(GapCode.NO_WEIGHTS, model.name, "the model has no trainable weights"))
    return tuple(gaps)


def _update_gaps(spec: StepSpec) -> tuple[Gap, ...]:
    """Return, for each part of the update that cannot be derived, what and why."""
    model, optimizer = spec.model, spec.optimizer
    if optimizer is None:
        words = "the model was compiled without an optimizer"
        return (Gap(GapCode.NO_OPTIMIZER, model.name, words),)
    gaps = []
    for single in single_optimizers(optimizer):
        if find_rule(single) is None:
            where = f"the optimizer {single.name!r} ({type(single).__name__})"
            gaps.append(Gap(GapCode.NO_RULE, single.name, f"{where} has no derived rule"))
    for variable in model.trainable_variables:
        where, path = f"the weight {variable.path!r}", variable.path
        if variable.constraint is not None and find_rule(variable.constraint) is None:
            kind = type(variable.constraint).__name__
            words = f"{where} has the constraint {kind}, which has no derived rule"
            gaps.append(Gap(GapCode.NO_RULE, path, words))
        if getattr(variable, "overwrite_with_gradient", False):
            gaps.append(Gap(GapCode.WEIGHT, path, f"{where} is overwritten with its gradient"))
    return tuple(gaps)
