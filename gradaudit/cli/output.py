"""Where results and errors go: stdout, files, and one line on stderr."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradaudit.errors import FolderError


def console() -> Console:
    """Return a console on stdout: as wide as the terminal, at least 160 columns in a pipe."""
    width = Console().width
    return Console(width=width if sys.stdout.isatty() else max(width, 160), soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None
) -> None:
    """Print a table: ruled on a terminal; in a pipe, one unwrapped line a row.

    On a terminal that is too narrow for whole words, each row is printed over several lines.

    styles: of rows, by their first word.
    """
    terminal = console()
    if terminal.is_terminal:
        table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            table.add_row(*map(Text, row), style=(styles or {}).get(row[0]))
        longest = (
            max(map(len, " ".join(cells).split())) for cells in zip(columns, *rows, strict=True)
        )
        if sum(longest) + 3 * len(columns) <= terminal.width:
            terminal.print(table)
        else:
            _print_narrow(terminal, columns, rows, styles or {})
        return
    lines = max(column.count("\n") + 1 for column in columns)
    head = [(column.split("\n") + [""] * lines)[:lines] for column in columns]
    shown = [*zip(*head, strict=True), *rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        words = (f"{word:{width}}" for word, width in zip(row, widths, strict=True))
        print("  ".join(words).rstrip())


def _print_narrow(
    terminal: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    styles: Mapping[str, str],
) -> None:
    """Print rows without a table: their first two cells, and below them the others by column."""
    names = [column.replace("\n", "_") for column in columns]
    for row in rows:
        style = styles.get(row[0], "")
        terminal.print(Text("  ".join(row[:2]), style=style))
        said = [
            f"{name}: {word}" if name else word
            for name, word in zip(names[2:], row[2:], strict=True)
            if word not in ("", "·")
        ]
        if said:
            lines = textwrap.wrap("; ".join(said), max(terminal.width - 4, 20))
            terminal.print(Text(textwrap.indent("\n".join(lines), "    "), style=style))


def counted(count: int, what: str, plural: str = "") -> str:
    """Return a number with its noun: "1 step", "2 steps"; `plural` if that is not what + "s"."""
    return f"{count} {what if count == 1 else plural or what + 's'}"


def fail(message: str, code: int) -> NoReturn:
    """Print one line on stderr and exit with a code."""
    if message:  # there is none after a command without arguments: it has printed its help
        print(f"gradaudit: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def check_files(paths: Sequence[Path], suffixes: Sequence[str], overwrite: bool) -> None:
    """Refuse, before any work, files that cannot be written at the end.

    Raises:
        FolderError: a name has another suffix, the file is there already, or its folder is not.
    """
    for path in paths:
        if path.suffix not in suffixes:
            raise FolderError(f"--out is {path}. Expected a name in {' or '.join(suffixes)}.")
        if path.exists() and not (overwrite and path.is_file()):
            raise FolderError(f"{path} is there already. Name another file, or give --overwrite.")
        if not path.parent.is_dir():
            raise FolderError(f"there is no folder {path.parent} for {path.name}. Make it first.")


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        FolderError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FolderError(f"{path} cannot be written: {error.strerror}.") from error
    print(f"gradaudit: wrote {path}", file=sys.stderr)
