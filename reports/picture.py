"""Draws report.svg, the picture in the README, from the committed run of deep_tanh.

python reports/picture.py
"""

import io
import os
from pathlib import Path

from rich.console import Console

from gradaudit import load
from gradaudit.cli import summary

os.chdir(Path(__file__).parents[1])
console = Console(record=True, width=104, file=io.StringIO(), soft_wrap=True)
summary.console = lambda: console
run = load("reports/deep_tanh")
console.print("[bold]$ gradaudit show reports/deep_tanh[/bold]", highlight=False)
summary.print_summary(run)
console.save_svg("reports/report.svg", title="gradaudit")
