"""What an audit costs: `python -m benchmarks` writes tables, numbers and a plot.

    python -m benchmarks [--out reports/benchmarks] [--only NET]

Each net, mode and growth is measured in a process of its own, one after the other (`cost.py`,
`growth.py`, `alternatives.py`). Written are benchmarks.json with all numbers, README.md with the
tables, and cost.svg.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot

from benchmarks.cost import COLUMNS, EVERY
from benchmarks.nets import NETS

MODES = ("graph", "XLA", "traced")
GROWTHS = ("weights", "batch", "depth", "steps")
ALTERNATIVES = ("small", "mlp", "transformer")
SLOW = ("cnn", "large_mlp")
"""Nets that are measured in graph mode alone."""

_PARTS = ("capture", "reference", "update", "compare", "report")


def _measured(module: str, *arguments: str) -> Any:
    """Return what a module prints as JSON; its errors are shown, and end the benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    words = " ".join([module, *arguments])
    print(f"{words}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _costs(costs: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of ratios."""
    head = [f"every={every}" for every in EVERY]
    lines = [
        f"| net | mode | plain step | audited step | {' | '.join(head)} | spread | MiB |",
        "|---|---|---|---|" + "---|" * (len(head) + 2),
    ]
    for each in costs:
        ratios = [f"{each['ratio'][str(every)]:.2f}" for every in EVERY]
        low, high = each["spread"]
        cells = [
            f"{each['net']} ({each['about']})",
            each["mode"],
            f"{each['plain_ms']:.1f} ms",
            f"{each['audited_ms']:.1f} ms",
            *ratios,
            f"{low:.1f} to {high:.1f}",
            f"{each['memory_mib']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _where(costs: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of where the time of an audited step goes."""
    lines = [
        f"| net | mode | {' | '.join(_PARTS)} | sum | audited step | by a bound |",
        "|---|---|" + "---|" * (len(_PARTS) + 3),
    ]
    for each in costs:
        parts = [each["where"][name] for name in COLUMNS]
        cells = [each["net"], each["mode"], *(f"{part:.1f}" for part in parts)]
        cells += [f"{sum(parts):.1f}", f"{each['audited_ms']:.1f}", f"{each['by_bound']:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _row_by_row(found: dict[str, dict[str, float]], of: str, digits: int) -> list[str]:
    lines = [f"| {of} | |", "|---|---|"]
    for name, numbers in found.items():
        told = ", ".join(f"{key}: {value:.{digits}f}" for key, value in numbers.items())
        lines.append(f"| {name} | {told} |")
    return lines


def _page(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return "\n".join(
        [
            "# What an audit costs",
            "",
            f"Made by `python -m benchmarks` on {machine['date']}: {machine['processor']}, "
            f"{machine['cores']} cores, Python {machine['python']}.",
            "",
            "A ratio is the time of a step under an audit by that of a plain step, in the mean "
            "over `every` steps; the spread is that of the pairs at every=1. MiB is what the audit "
            "adds to the peak of the training.",
            "",
            *_costs(found["costs"]),
            "",
            "Where the milliseconds of an audited step go. The capture has the step itself in it.",
            "",
            *_where(found["costs"]),
            "",
            "Growth of the ratio with the size of a perceptron, and the resident memory in MiB "
            "over the audited steps of iris.",
            "",
            *_row_by_row(found["growth"], "growth", 1),
            "",
            "One step, judged in several ways; milliseconds.",
            "",
            *_row_by_row(found["alternatives"], "net", 1),
            "",
        ]
    )


def _plot(costs: list[dict[str, Any]], path: Path) -> None:
    """Draw where the time goes, in plain steps."""
    matplotlib.use("svg")
    shown = [each for each in costs if each["mode"] == "graph"]
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(shown) + 1.2), layout="constrained")
    left = [0.0] * len(shown)
    for part, column in zip(_PARTS, COLUMNS, strict=True):
        widths = [each["where"][column] / each["plain_ms"] for each in shown]
        axes.barh([each["net"] for each in shown], widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("audited step, in plain steps")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure everything, and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--only", choices=NETS, help="one net, in graph mode; nothing else")
    asked = parser.parse_args()
    if asked.only:
        print("\n".join(_costs([_measured("cost", asked.only, "graph")])))
        return
    pairs = [(n, m) for n in NETS for m in MODES if m == "graph" or n not in SLOW]
    found = {
        "machine": _machine(),
        "costs": [_measured("cost", *pair) for pair in pairs],
        "growth": {what: _measured("growth", what) for what in GROWTHS},
        "alternatives": {name: _measured("alternatives", name) for name in ALTERNATIVES},
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "benchmarks.json").write_text(json.dumps(found, indent=1) + "\n")
    page = _page(found)
    (asked.out / "README.md").write_text(page)
    _plot(found["costs"], asked.out / "cost.svg")
    print(page)


if __name__ == "__main__":
    main()
