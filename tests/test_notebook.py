"""The notebook is true: it runs as a whole, and shows the results and pictures that its text speaks of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from project_file import PROJECT

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_hour.ipynb"
FAST = {
    "seeds=3": "seeds=1",
    '"baseline,asked,oracle"': '"baseline,asked"',
    '"image_size": 160': '"image_size": 48',
    'out=FOLDER / "distilled"': 'out=FOLDER / "distilled", encoder="bag-of-words:64"',
}
"""What the test changes, so that it takes seconds: the length of training and the number of pixels."""


def code_cells() -> list[Any]:
    nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cells: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_results_and_pictures_that_its_text_speaks_of(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'test'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in FAST.items():
        [changed] = [cell for cell in notebook.cells if old in cell.source]
        changed.source = changed.source.replace(old, new)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert pictures(cells) == 3
    [accuracy] = [cell.outputs[-1]["data"]["text/plain"] for cell in cells if cell.source == "made.accuracy"]
    assert float(accuracy) > 0.3, "answers without one human label, at 48 pixels"


def test_the_notebook_keeps_the_outputs_of_a_whole_run_and_its_first_cell_installs_the_package() -> None:
    cells = code_cells()
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(cells) == 3
    first = cells[0].source
    assert f"git+{PROJECT['urls']['Repository']}" in first and 'find_spec("gpt4image")' in first
