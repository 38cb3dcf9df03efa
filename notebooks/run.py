"""Runs the notebooks again, each from a fresh kernel, and keeps their outputs.

python notebooks/run.py [NAME.ipynb ...]
"""

import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).parent


def run(path: Path) -> None:
    """Execute a notebook in an empty folder, and write it back without times."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without versions, as the kernel adds
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        print(path.name)
        run(path)
