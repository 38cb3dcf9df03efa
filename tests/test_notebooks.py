"""The notebooks: each runs from a fresh kernel, and its committed outputs are those of a run."""

import ast
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = """
    01_iris_single_layer 02_deep_tanh 03_one_hidden_sigmoid 04_audit_your_project
    05_how_small_an_error_can_be_seen 06_loss_landscape_and_updates
""".split()


def test_all_of_them_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    @pytest.mark.long
    def test_it_runs_from_a_fresh_kernel(self, path, tmp_path):
        notebook = nbformat.read(path, as_version=4)
        committed = explanations(notebook)
        client = nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()  # raises where a cell does
        assert list(tmp_path.iterdir()) == []
        told = [output for cell in code(notebook) for output in cell.outputs]
        assert [output.text for output in told if output.get("name") == "stderr"] == []
        assert explanations(notebook) == committed

    def test_it_ends_in_assertions(self, path):
        *_, last = code(nbformat.read(path, as_version=4))
        asserts = [
            node for node in ast.walk(ast.parse(last.source)) if isinstance(node, ast.Assert)
        ]
        assert len(asserts) > 3

    def test_its_outputs_are_those_of_one_run_from_top_to_bottom(self, path):
        notebook = nbformat.read(path, as_version=4)
        cells = code(notebook)
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        for cell in cells:
            for output in cell.outputs:
                assert output.output_type in ("stream", "display_data", "execute_result")
                assert output.get("name") != "stderr"

    def test_it_is_a_lesson(self, path):
        notebook = nbformat.read(path, as_version=4)
        words = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        assert words[0].startswith("# ")
        assert len(re.findall(r"^## ", "\n".join(words), re.M)) >= 4
        assert len(words) >= len(code(notebook)) / 2

    def test_it_names_nothing_of_the_machine_it_was_made_on(self, path):
        assert not re.search(r"/(?:home|root|tmp|work|usr)/", path.read_text())


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def explanations(notebook):
    """Return the Markdown among the outputs, without numbers: those are a processor's."""
    texts = [
        output.data["text/markdown"]
        for cell in code(notebook)
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    return [" ".join(re.sub(r"\(?-?\d[\d.]*(?:e[-+]?\d+)?\)?", "#", t).split()) for t in texts]
