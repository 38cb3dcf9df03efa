"""`gradaudit selftest`."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradaudit.cli.nets import import_tensorflow
from gradaudit.cli.output import print_table
from gradaudit.errors import CheckFailure, UnknownNameError, UsageError

if TYPE_CHECKING:
    from gradaudit.rules import Rule
    from gradaudit.testing.trials import Trial


def selftest(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only rules for these classes and functions."),
    ] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="Plant at least three errors in every rule instead.")
    ] = False,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK",
            help="Run this check; may be given several times "
            "(default with --rules: the quick checks).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Plant errors in rules, and print which check refuses which.

    Without --rules: the wrong rules that are shipped with gradaudit. Each
    is tried by the checks that must refuse it.

    With --rules: every rule with a wrong sign, a factor, a missing term and
    a wrong axis in each of its gradients, tried by the quick checks.

    The exit code is 1 if no check refuses one of them.
    """
    import_tensorflow()
    from gradaudit.testing import CHECKS

    for name in check or []:
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS)
    with _quiet_tensorflow():
        failed = (_of_every_rule if rules else _shipped)(names or [], check or [], as_json)
    raise typer.Exit(1 if failed else 0)


def _shipped(names: Sequence[str], checks: Sequence[str], as_json: bool) -> bool:
    """Try the wrong rules of `PLANTED`; return whether a check did not refuse one."""
    from gradaudit.testing import CHECKS, PLANTED
    from gradaudit.testing.subjects import Subjects
    from gradaudit.testing.trials import refuses

    chosen = [planted for planted in PLANTED if not names]
    for name in names:
        targets = [rule.target for rule in _rules_of(name)]
        own = [planted for planted in PLANTED if planted.rule.target in targets]
        if not own:
            known = {planted.rule.name for planted in PLANTED}
            unknown = UnknownNameError("rule with planted errors for", name, known)
            raise UsageError(f"{unknown} Give --rules to plant errors in any rule.")
        chosen += [planted for planted in own if planted not in chosen]
    pairs = [
        (planted, check)
        for planted in chosen
        for check in planted.refused_by
        if check in (checks or CHECKS)
    ]
    if not pairs:
        raise UsageError(
            f"none of the chosen errors is one that {' or '.join(checks)} must refuse. Leave out "
            "--check, or give --rules to plant other errors."
        )
    found = []
    with _progress("planted errors", len(pairs)) as advance:
        for planted, check in pairs:
            advance(planted.name)
            rule, subjects = planted.rule, Subjects()
            refused = any(refuses(check, rule, case, subjects) for case in rule.cases)
            found.append((rule.kind, rule.name, planted.name, check, refused))
    missed = [(name, check) for _, _, name, check, refused in found if not refused]
    if as_json:
        keys = ("kind", "rule", "planted", "check", "refused")
        objects = [dict(zip(keys, row, strict=True)) for row in found]
        print(json.dumps(objects, indent=2, ensure_ascii=False))
    else:
        rows = [(*names, _word(refused)) for *names, refused in found]
        print_table(("kind", "rule", "planted error", "check", ""), rows)
        print(f"{len(found)} trials of planted errors: {len(found) - len(missed)} refused.")
        for name, check in missed:
            print(f"NOT REFUSED: {name} by {check}")
    return bool(missed)


def _of_every_rule(names: Sequence[str], checks: Sequence[str], as_json: bool) -> bool:
    """Plant errors in rules, and try them; return whether there is a complaint."""
    from gradaudit.rules import all_rules
    from gradaudit.testing import CHECKS
    from gradaudit.testing.trials import CHEAP, FEWEST, trials

    targets = [rule.target for name in names for rule in _rules_of(name)]
    chosen = [rule for rule in all_rules() if not names or rule.target in targets]
    used = tuple(checks) or CHEAP
    found: list[Trial] = []
    complaints = []
    with _progress("rules", len(chosen)) as advance:
        for rule in chosen:
            advance(rule.name)
            try:
                own = trials(rule, used)
            except CheckFailure as failure:
                complaints.append(f"WRONG RULE: {' '.join(str(failure).split())}")
                continue
            found += own
            counted = sum(bool(trial.sort) for trial in own)
            if counted < FEWEST:
                complaints.append(
                    f"TOO FEW: {_title(rule)} has {counted} planted errors of a sign, a factor, "
                    f"a term or an axis. Expected {FEWEST}"
                )
            complaints += [
                f"NOT REFUSED: {_title(rule)}, {trial.error}, case {trial.case!r}"
                for trial in own
                if not trial.is_refused
            ]
    if as_json:
        print(json.dumps([_object(trial) for trial in found], indent=2, ensure_ascii=False))
    else:
        columns = ("rule", "planted error", "case", *(name.replace("_", "\n") for name in used))
        rows = [
            (_title(t.rule), t.error, t.case, *(_word(refused) for refused in t.refused.values()))
            for t in found
        ]
        print_table(columns, rows)
        refused = sum(trial.is_refused for trial in found)
        print(f"{len(chosen)} rules, {len(found)} planted errors: {refused} refused.")
        for name in used:
            print(f"  {sum(trial.refused[name] for trial in found):5} by {name}")
        if left_out := [name for name in CHECKS if name not in used]:
            print(f"Not run: {', '.join(left_out)} (--check NAME runs it).")
    for complaint in complaints:
        print(complaint, file=sys.stderr if as_json else sys.stdout)
    return bool(complaints)


def _object(trial: "Trial") -> dict[str, Any]:
    return {
        "kind": trial.rule.kind,
        "rule": trial.rule.name,
        "planted": trial.error,
        "case": trial.case,
        "refused": dict(trial.refused),
    }


def _title(rule: "Rule") -> str:
    return f"{rule.kind} {rule.name}"


def _word(refused: bool) -> str:
    return "refused" if refused else "·"


def _rules_of(name: str) -> "list[Rule]":
    """Return the rules for a class or function of Keras, given by any of its names."""
    from gradaudit.rules.coverage import named

    entries = named(name)
    found = [entry.rule for entry in entries if entry.rule is not None]
    if not found:
        reasons = "; ".join(f"{entry.status}: {entry.reason}" for entry in entries)
        raise UsageError(f"{name} has no rule to plant errors in: it is {reasons}.")
    return found


@contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Silence TensorFlow's advice about retracing: every rule is another function."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    """Show the progress through a list of `total` parts on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[name]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, name="")

        def advance(name: str) -> None:
            progress.update(task, advance=1, name=name)

        yield advance
