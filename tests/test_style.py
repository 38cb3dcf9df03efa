"""Lint, format, types, the rooms' imports, and what the documents promise."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradaudit

ROOT = Path(__file__).parents[1]
OF_RUNS = ("reports/benchmarks/", "steps.csv", "tensors.csv", "weights.csv", "runs/", "claims.csv")
"""Files and folders that the documents name, and that only a run makes."""


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_types():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "setup.cfg"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_go_one_way():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_package_says_its_one_job_and_what_was_rejected():
    for room in (ROOT / "gradaudit").glob("*/__init__.py"):
        text = room.read_text()
        assert "One job:" in text, room
        assert "Rejected:" in text, room


def test_the_readme_s_map_has_every_room():
    readme = (ROOT / "README.md").read_text()
    for room in (ROOT / "gradaudit").glob("*/__init__.py"):
        assert f"`{room.parent.name}/`" in readme


def test_files_that_the_documents_name_are_there():
    bases = (ROOT, ROOT / "gradaudit", ROOT / "gradaudit/tracing", ROOT / "gradaudit/rules")
    for document in ("README.md", "CONTRIBUTING.md"):
        text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.M | re.S)
        for name in re.findall(r"`([\w./-]+(?:\.py|\.csv|\.cfg|\.yaml|/))`", text):
            if name not in OF_RUNS:
                assert any((base / name).exists() for base in bases), f"{document}: {name}"


def test_the_readme_s_pictures_and_links_are_there():
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), target


def test_the_version_is_in_the_change_log():
    assert f"## {gradaudit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert gradaudit.__version__ == importlib.metadata.version("gradaudit")


def test_the_z_table_in_the_readme_is_below_half_the_threshold():
    rows = re.findall(r"^\| (?:float|mixed)\w+ \|.*$", (ROOT / "README.md").read_text(), re.M)
    assert len(rows) == 24
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert float(cells[6]) < 4
        assert cells[7] == "0"
