"""The notebooks run as they stand, and are committed without outputs."""

import pathlib

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_committed_without_outputs(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert cells
    assert not [cell.id for cell in cells if cell.outputs or cell.execution_count is not None]


@pytest.mark.slow
def test_runs(file, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook puts its root
    notebook = nbformat.read(file, as_version=4)
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises what a cell raises
    said = [output.text for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "stream"]
    assert not [text for text in said if "INFO:" in text or "WARNING:" in text]  # only what the cells show
    if file.stem == "first_ranker":
        last = code_cells(notebook)[-1].outputs[-1]["data"]["text/plain"]
        figures = [float(line.split()[-1]) for line in last.splitlines() if "order" in line or "ranker" in line]
        shop, ours = figures
        assert ours > shop
        images = [
            output for cell in code_cells(notebook) for output in cell.outputs if "image/png" in output.get("data", {})
        ]
        assert len(images) == 2  # clicks by position, the learning curve
