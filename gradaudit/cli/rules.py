"""`gradaudit rules`: what has a derived rule, the derived ops, and the codes of gaps."""

import inspect
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from gradaudit.cli.nets import import_tensorflow
from gradaudit.cli.output import console, counted, print_table
from gradaudit.errors import GAP_MEANINGS, GapCode, UnknownNameError, UsageError

if TYPE_CHECKING:
    from gradaudit.rules import Rule
    from gradaudit.rules.coverage import Entry

_STYLES = {"traced-only": "yellow", "not differentiable": "dim", "unknown": "red"}


def rules(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A class or function of Keras: print how its rule is derived. With --ops a type "
            "of ops, with --gaps a code."
        ),
    ] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="List the types of TensorFlow's ops that are derived.")
    ] = False,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="List the codes in the column gaps of tensors.csv.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List which parts of Keras have a derived rule, and why others have none; or show one rule.

    A traced-only part has a gradient but no derived rule: its code is traced, and the graph is
    derived op by op. --ops lists the ops for which that is possible.

    A report gives a code for each reason why a tensor is unjudged. --gaps lists the codes and what
    each means.
    """
    if ops and gaps:
        raise UsageError("--ops and --gaps print different lists. Expected one of them.")
    if gaps:
        _print_gaps(name, as_json)
        return
    import_tensorflow()
    if ops:
        _print_ops(name, as_json)
        return
    from gradaudit.rules.coverage import catalogue, named

    entries = catalogue() if name is None else named(name)
    if as_json:
        objects = [_object(entry, with_rule=name is not None) for entry in entries]
        print(json.dumps(objects, indent=2, ensure_ascii=False))
    elif name is not None:
        print("\n\n".join(_explained(entry) for entry in entries))
    else:
        _print(entries)


def _print_ops(name: str | None, as_json: bool) -> None:
    from gradaudit.tracing.tf_ops.table import all_ops

    known = all_ops()
    if name is not None and name not in known:
        raise UnknownNameError("op", name, known)
    chosen = {kind: known[kind] for kind in ([name] if name else known)}
    if as_json:
        print(json.dumps([{"op": op, "kind": kind} for op, kind in chosen.items()], indent=2))
        return
    console().print(Text(counted(len(chosen), "type of op", "types of ops"), style="bold"))
    print_table(("kind", "op"), sorted((kind, op) for op, kind in chosen.items()), {})


def _print_gaps(name: str | None, as_json: bool) -> None:
    known = [str(code) for code in GapCode]
    if name is not None and name not in known:
        raise UnknownNameError("code of a gap", name, known)
    codes = [code for code in GapCode if name in (None, code)]
    if as_json:
        objects = [{"code": code, "meaning": GAP_MEANINGS[code]} for code in codes]
        print(json.dumps(objects, indent=2, ensure_ascii=False))
        return
    print_table(("code", "meaning"), [(code, GAP_MEANINGS[code]) for code in codes])


def _object(entry: "Entry", with_rule: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "aliases": list(entry.aliases),
        "status": entry.status,
        "reason": entry.reason,
        "source": entry.source,
    }
    if with_rule and entry.rule is not None:
        found["rule"] = _file(entry.rule)
        found["derivation"] = inspect.getdoc(entry.rule.function)
        found["cases"] = [case.name for case in entry.rule.cases]
    return found


def _file(rule: "Rule") -> str:
    """Return the file of a rule, relative to the folder that gradaudit is in."""
    import gradaudit

    path = Path(inspect.getfile(rule.function))
    package = Path(gradaudit.__file__).parents[1]
    return str(path.relative_to(package) if path.is_relative_to(package) else path)


def _explained(entry: "Entry") -> str:
    reason = f": {entry.reason}" if entry.reason else ""
    lines = [
        f"{' = '.join((entry.name, *entry.aliases))}, {entry.kind}: {entry.status}{reason}",
        f"defined in {entry.source}",
    ]
    if entry.rule is not None:
        cases = "\n".join(f"  {case.name}" for case in entry.rule.cases)
        lines += [
            f"derived in {_file(entry.rule)}",
            "",
            inspect.getdoc(entry.rule.function) or "",
            "",
            "Cases on which the rule is checked:",
            cases,
        ]
    return "\n".join(lines)


def _print(entries: "list[Entry]") -> None:
    for room in dict.fromkeys(entry.room for entry in entries):
        own = [entry for entry in entries if entry.room == room]
        console().print(Text(f"{room}: {_counts(own)}", style="bold"))
        rows = [(e.status, e.name, " ".join(e.aliases), e.reason) for e in own]
        print_table(("status", "name", "also", "reason"), rows, _STYLES)
        print()


def _counts(entries: "list[Entry]") -> str:
    from gradaudit.rules.coverage import STATUSES

    said = []
    for word, plural, is_class in (("class", "classes", True), ("function", "functions", False)):
        counts = Counter(entry.status for entry in entries if entry.is_class is is_class)
        if total := counts.total():
            parts = ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s])
            said.append(f"{counted(total, word, plural)}: {parts}")
    return "; ".join(said)
