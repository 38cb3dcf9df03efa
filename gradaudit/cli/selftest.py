"""`gradaudit selftest`."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradaudit.cli.nets import import_tensorflow
from gradaudit.cli.output import print_table
from gradaudit.errors import CheckFailure, UnknownNameError

if TYPE_CHECKING:
    from gradaudit.checks.mutations import Trial
    from gradaudit.rules import Rule


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
            help="Run this check; may be given several times.  [default: see above]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Plant errors in rules, and say which check refuses which.

    Without --rules: the wrong rules that gradaudit comes with, each tried
    by the checks that must refuse it.

    With --rules: each rule with the wrong sign, a factor, a term that is
    left out and a wrong axis, in one gradient after the other, tried by
    the quick checks.

    The exit code is 1 where one is refused by no check.
    """
    import_tensorflow()
    from gradaudit.checks import CHECKS

    for name in check or []:
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS)
    failed = (_of_every_rule if rules else _shipped)(names or [], check or [], as_json)
    raise typer.Exit(1 if failed else 0)


def _shipped(names: Sequence[str], checks: Sequence[str], as_json: bool) -> bool:
    """Try the wrong rules of `PLANTED`; return whether one was not refused."""
    from gradaudit.checks import CHECKS, PLANTED, check_rule

    _require_known(names, {planted.rule.name for planted in PLANTED})
    pairs = [
        (planted, check)
        for planted in PLANTED
        for check in planted.refused_by
        if check in (checks or CHECKS) and planted.rule.name in (names or [planted.rule.name])
    ]
    found = []
    with _progress("planted errors", len(pairs)) as advance:
        for planted, check in pairs:
            advance(planted.name)
            try:
                check_rule(planted.rule, {check: CHECKS[check]})
                refused = False
            except CheckFailure:
                refused = True
            kind, rule = planted.rule.kind, planted.rule.name
            found.append(
                {"kind": kind, "rule": rule, "planted": planted.name, "check": check}
                | {"refused": refused}
            )
    missed = [row for row in found if not row["refused"]]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        rows = [(*list(row.values())[:4], _word(row["refused"])) for row in found]
        print_table(("kind", "rule", "planted error", "check", ""), rows)
        print(f"{len(found)} trials of planted errors: {len(found) - len(missed)} refused.")
        for row in missed:
            print(f"NOT REFUSED: {row['planted']} by {row['check']}")
    return bool(missed)


def _of_every_rule(names: Sequence[str], checks: Sequence[str], as_json: bool) -> bool:
    """Plant errors in rules, and try them; return whether something is wrong with the checks."""
    from gradaudit.checks.mutations import CHEAP, FEWEST, trials
    from gradaudit.rules import all_rules

    _require_known(names, {rule.name for rule in all_rules()})
    chosen = [rule for rule in all_rules() if not names or rule.name in names]
    used = tuple(checks) or CHEAP
    found: list[Trial] = []
    faults = []
    with _progress("rules", len(chosen)) as advance:
        for rule in chosen:
            advance(rule.name)
            try:
                own = trials(rule, used)
            except CheckFailure as failure:
                faults.append(f"WRONG RULE: {' '.join(str(failure).split())}")
                continue
            found += own
            if len(own) < FEWEST:
                faults.append(
                    f"TOO FEW: {_title(rule)} has {len(own)} planted errors. Expected {FEWEST}"
                )
            faults += [
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
    for fault in faults:
        print(fault, file=sys.stderr if as_json else sys.stdout)
    return bool(faults)


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


def _require_known(names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError("rule with planted errors for", name, known)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    """Show on stderr how far a long list is."""
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
