"""What `fit` can do, as one table of cells; `cd tests; python -m matrix` prints it as a page."""

from matrix import company, compiling, data, distribution, models, precision, python_state
from matrix.cell import Cell

CELLS: dict[str, tuple[Cell, ...]] = {
    "Models": models.CELLS,
    "Data": data.CELLS,
    "compile and fit": compiling.CELLS,
    "Python state": python_state.CELLS,
    "Precision": precision.CELLS,
    "Distribution": distribution.CELLS,
    "Company": company.CELLS,
}

NOTES = (
    "- Two processes under MultiWorkerMirroredStrategy: `tests/backends/test_workers.py`. Keras",
    "  3.15 cannot `fit` under it (github.com/keras-team/keras/issues/20585); the test's processes",
    "  mend the two places where it fails, and both stages are judged.",
    "- A callback that raises, data that fails, Ctrl-C: `tests/test_traces.py`.",
    "- Each optimizer with each of its options over 50 steps: `tests/reference/test_update.py`.",
    "- Not here, since Keras itself fails: MirroredStrategy with steps_per_execution above 1, with",
    "  gradient_accumulation_steps, or with jit_compile on a CPU.",
)


def page() -> str:
    """Return the matrix as Markdown."""
    lines = [
        "# What `fit` can do, and what the audit judges",
        "",
        "Each row is a test: a real `fit` with the callback and one without leave the same",
        "weights, bit for bit, and the same history; the gradients and updates of every trainable",
        "weight in every step are judged and pass, or are unjudged for the reason given here.",
        "Where what Keras compiled is not what the model's code says now, the report says stale.",
        "`cd tests; python -m matrix > matrix/README.md` writes this page from the tests' own",
        "table.",
    ]
    for group, cells in CELLS.items():
        lines += ["", f"## {group}", "", "| cell | gradient | update |", "|---|---|---|"]
        lines += [
            f"| {cell.name} | {_judged(cell.gradient)} | {_judged(cell.update)}{_not_all(cell)} |"
            for cell in cells
        ]
    lines += ["", "## Beside the table", "", *NOTES]
    return "\n".join(lines) + "\n"


def _judged(reason: str) -> str:
    return f"unjudged: … {reason} …" if reason else "judged"


def _not_all(cell: Cell) -> str:
    if cell.stale:
        return f"; stale: … {cell.stale} …" + (f"; {cell.verdict}" if cell.verdict else "")
    if cell.verdict:
        return f"; {cell.verdict}"
    return f"; for some weights unjudged: … {cell.some_update} …" if cell.some_update else ""
