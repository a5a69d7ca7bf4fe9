"""The notebook is true: it runs as a whole, and shows the results and pictures that its text speaks of."""

import os
from pathlib import Path
from typing import Any

import pytest

from worlds import write_folders

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_hour.ipynb"
PER_CLASS = 6
FAST = {
    '"tf_efficientnet_lite0", "init": "pretrained", "freeze": "all"': '"resnet10t", "epochs": 1',
    '"image_size": 160': '"image_size": 32',
    'out=FOLDER / "distilled"': 'out=FOLDER / "distilled", encoder="bag-of-words:64"',
    "from gpt4image.data.known_sets import ANSWERS": 'ANSWERS = Path("answers.jsonl")',
    '"clothes-unlabelled"': '"unlabelled"',
    'data="clothes"': 'data="labelled"',
    "seeds=3": "seeds=1, jobs=1",
    '"baseline,asked,oracle"': '"baseline,asked"',
    "[50::200]": "[::20]",
    "[20::62]": "[::20]",
}
"""What the test changes, so that it takes seconds: photographs, pixels, and the length of training."""


def read() -> Any:
    nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cells: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_results_and_pictures_that_its_text_speaks_of(tmp_path: Path) -> None:
    notebook, code = read()
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'test'")
    write_folders(tmp_path, PER_CLASS)
    for old, new in FAST.items():
        changed = [cell for cell in code if old in cell.source]
        assert changed, old
        for cell in changed:
            cell.source = cell.source.replace(old, new)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert pictures(code) == 3
    [accuracy] = [cell.outputs[-1]["data"]["text/plain"] for cell in code if cell.source == "made.accuracy"]
    assert 0 <= float(accuracy) <= 1
