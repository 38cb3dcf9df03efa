"""`gradaudit published`."""

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from gradaudit.cli.nets import Asked, import_tensorflow, own_model, prepared, target_kind, training
from gradaudit.cli.options import Data, Overwrite, Seed, Target
from gradaudit.cli.output import check_files, console, counted, write
from gradaudit.errors import DataError, UsageError

if TYPE_CHECKING:
    from gradaudit.publications.records import CheckedClaim, Claim

_STYLES = {"cut": "dim", "disagrees": "red", "cannot be checked": "yellow"}


def published(
    claims: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A CSV file with the columns model, quantity, index, printed, given.  "
            "[default: what the tutorials of the built-in nets print]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Only the claims about this net; or package.module:build."),
    ] = None,
    data: Data = None,
    target: Target = None,
    row: Annotated[
        int | None, typer.Option(min=0, help="Only this row of --data, counted from 0.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Write a .csv or .html file; may be given twice."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows on stdout.")] = False,
) -> None:
    """Recompute published numbers, and say which agree.

    The exit code is 1 if a number disagrees, else 3 if one cannot be checked.
    """
    files = out or []
    check_files(files, (".csv", ".html"), overwrite)
    from gradaudit.publications.claims_file import published_claims, read_claims

    read = published_claims() if claims is None else read_claims(claims)
    if model is None and any(value is not None for value in (data, target, row)):
        raise UsageError("--data, --target and --row are for one net. Name it with --model.")
    if model is not None:
        read = _about(read, model, claims)
    import_tensorflow()
    from gradaudit.publications.table import claims_csv, claims_html, json_rows, summary

    checked = []
    for name, own in itertools.groupby(read, lambda claim: claim.model):
        checked += _check(list(own), Asked(model or name, data, target, seed=seed), row)
    if as_json:
        print(json.dumps(json_rows(checked), indent=2, ensure_ascii=False))
    else:
        _print(checked)
        print(f"{summary(checked)}.")
    for path in files:
        write(path, (claims_csv if path.suffix == ".csv" else claims_html)(checked))
    verdicts = {each.verdict for each in checked}
    raise typer.Exit(1 if "disagrees" in verdicts else 3 if "cannot be checked" in verdicts else 0)


def _about(claims: "list[Claim]", model: str, file: Path | None) -> "list[Claim]":
    """Return the claims about one net: those that name it.

    If the net is the user's own and all claims name one other net, they all are about it.
    """
    names = list(dict.fromkeys(claim.model for claim in claims))
    found = [claim for claim in claims if claim.model == model]
    if not found and ":" in model and len(names) == 1:
        return claims
    if not found:
        raise DataError(
            f"{file or 'the list of published numbers'} has no claims about the model {model}. It "
            f"has some about {', '.join(name or 'no name' for name in names)}."
        )
    if len(found) < len(claims) and file is not None:
        others = counted(len(claims) - len(found), "claim")
        print(f"gradaudit: left out {others} about other nets", file=sys.stderr)
    return found


def _check(claims: "list[Claim]", asked: Asked, row: int | None) -> "list[CheckedClaim]":
    """Check the claims about one net, on the data given, or else on its worked example."""
    from gradaudit.nets import net_named
    from gradaudit.publications.check import check_claims, check_published

    if asked.data is not None:
        built, x, y = prepared(asked)
        if row is not None and row >= len(x):
            raise UsageError(f"--row is {row}. Expected one of the data, from 0 to {len(x) - 1}.")
        chosen = slice(None) if row is None else slice(row, row + 1)
        with training():
            return check_claims(claims, built, x[chosen], y[chosen])
    if row is not None:
        raise UsageError("--row is one of --data. Give both.")
    if ":" not in asked.model:
        return check_published(claims, net_named(asked.model).name, asked.seed)
    built = own_model(asked)
    with training():
        return check_claims(claims, built, *_nothing_known(built, asked.model))


def _nothing_known(model: Any, name: str) -> tuple[Any, Any]:
    """Return one row of inputs and targets, all NaN: not known."""
    import numpy as np

    shapes = (model.input_shape, model.output_shape) if model.built else ()
    simple = [isinstance(shape, tuple) and None not in shape[1:] for shape in shapes]
    if not simple or not all(simple):
        raise UsageError(
            f"{name} returned a model whose input and output are not one array of a known shape "
            "each. Expected such a model: claims about it say what they are."
        )
    inputs, outputs = ((1, *shape[1:]) for shape in shapes)
    targets = outputs[:-1] if target_kind(model) == "integer" else outputs
    return np.full(inputs, np.nan), np.full(targets, np.nan)


def _print(checked: "list[CheckedClaim]") -> None:
    from gradaudit.publications.table import shown
    from gradaudit.report.tables import index_text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "quantity", "index"):
        table.add_column(name)
    for name in ("printed", "recomputed"):
        table.add_column(name, justify="right")
    for name in ("verdict", "diagnosis"):
        table.add_column(name)
    for each in checked:
        table.add_row(
            *(Text(words) for words in (each.claim.model, each.claim.quantity)),
            index_text(each.claim.index),
            each.claim.printed,
            shown(each),
            each.verdict,
            Text(each.diagnosis),
            style=_STYLES.get(each.verdict),
        )
    console().print(table)
