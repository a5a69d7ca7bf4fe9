"""Predictions that are kept beside the records: anyone can recompute what the records say of other images."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "benchmarks" / "kept_predictions.py"), run_name="kept_predictions")
KEPT = sorted((ROOT / "docs" / "research" / "records" / "right").rglob("*.json"))
assert KEPT


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_every_difference_follows_from_the_kept_predictions(file: Path) -> None:
    for said, found in TOOL["recomputed"](file):
        assert found["difference"] == pytest.approx(said["difference"], abs=1e-6)
        assert found["other_images"]["p"] == pytest.approx(said["other_images"]["p"], rel=1e-3, abs=1e-9)
        assert found["other_images"]["ci95"] == pytest.approx(said["other_images"]["ci95"], abs=1e-6)
