"""The command line. No maths; TensorFlow is imported by the command that needs it.

One job: arguments to calls, results to stdout, errors to one line on stderr and an exit code.
Rejected: argparse, whose help would have to be laid out by hand.
"""

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

import gradaudit
from gradaudit.cli.explain import explain
from gradaudit.cli.judge import judge
from gradaudit.cli.output import fail
from gradaudit.cli.published import published
from gradaudit.cli.rules import rules
from gradaudit.cli.run import models, run, show
from gradaudit.cli.selftest import selftest
from gradaudit.errors import GradauditError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Check the gradients that Keras really applied, weight by weight.",
    epilog="Exit codes: 0 all judged and passed, 1 an audit failed (also by NaN or infinity, "
    "nonfinite; or by a compiled step that is stale and trains otherwise than the code says now), "
    "2 usage, 3 could not audit, 130 interrupted, 141 the reader of the output closed the pipe.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"gradaudit {gradaudit.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Check the gradients that Keras really applied, weight by weight."""


for command in (run, judge, models, show, explain, published, rules, selftest):
    app.command()(command)

_USAGE_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def main() -> None:
    """Run the command line and exit with its code; errors are one line on stderr.

    If the reader of stdout closes the pipe (`| head`), the exit code is 141 and nothing is printed,
    as if the signal SIGPIPE had ended the program; 1 would mean that an audit failed.
    """
    try:
        code = _answer()
        sys.stdout.flush()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer and rich exit with 1
            _end_unread()
        raise
    except BrokenPipeError:
        _end_unread()
    sys.exit(code)


def _answer() -> int:
    try:
        return app(standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        fail("interrupted", 130)
    except _USAGE_ERROR as error:
        fail(error.format_message(), 2)
    except GradauditError as error:
        fail(str(error), error.exit_code)


def _end_unread() -> NoReturn:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # Python writes what is left when it ends
    sys.exit(141)
