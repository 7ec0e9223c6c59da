"""The notebooks run as they stand, and are committed without outputs."""

import pathlib

import lineage_examples
import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = {file.stem: file for file in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(name, folder, *more):
    """A notebook's cells after they ran in a folder, and those that come after them."""
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(each) for each in more]
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,  # what a cell prints is one output, however slowly it came
    )
    client.execute()  # raises what a cell raises
    cells = code_cells(notebook)
    outputs = [output.text for cell in cells for output in cell.outputs if output.output_type == "stream"]
    assert not [text for text in outputs if "INFO:" in text or "WARNING" in text]  # only what the cells show
    return cells


def images(cells):
    return [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_without_outputs(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert cells
    assert not [cell.id for cell in cells if cell.outputs or cell.execution_count is not None]


def test_each_is_run():
    assert {f"test_{name}" for name in NOTEBOOKS} <= globals().keys()


@pytest.mark.slow
def test_first_ranker(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook puts its root
    cells = executed("first_ranker", tmp_path)
    last = cells[-1].outputs[-1]["data"]["text/plain"]
    shop, ours = [float(line.split()[-1]) for line in last.splitlines() if "order" in line or "ranker" in line]
    assert ours > shop
    assert len(images(cells)) == 2  # clicks by position, the learning curve


def test_lineage(tmp_path):
    lineage_examples.retrained(tmp_path / "demo")
    loaded = "import sys; print(sorted({'tensorflow', 'tfx', 'keras'} & set(sys.modules)))"
    *cells, last = executed("lineage", tmp_path, loaded)
    assert last.outputs[0].text == "[]\n"
    assert len(images(cells)) == 1  # the metric over versions
    printed = [output.text for cell in cells for output in cell.outputs if output.output_type == "stream"]
    served, differs = printed
    assert [line.split()[1] for line in served.splitlines()] == ["101", "103"]  # the second night's was not blessed
    assert "ndcg@10: 0.55 → 0.63" in differs
    assert "trained on spans 3, before on 2" in differs
    assert "config training.epochs: 7 → 8" in differs
    assert "<svg" in (tmp_path / "lineage.html").read_text()
