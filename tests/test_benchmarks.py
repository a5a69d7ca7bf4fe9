"""Programs of benchmarks/: searches run no trial twice, and kept predictions give the differences of the records."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from gpt4image.config import TrainConfig
from gpt4image.config.arms import ARMS

ROOT = Path(__file__).parents[1]
SPACES = sorted((ROOT / "benchmarks" / "spaces").glob("*.toml"))
KEPT = sorted((ROOT / "docs" / "research" / "records" / "right").rglob("*.json"))
SEARCH, PREDICTIONS = (runpy.run_path(f"{ROOT}/benchmarks/{name}.py", run_name=name)
                       for name in ("search", "kept_predictions"))  # fmt: skip
assert SPACES and KEPT


def search(space: Path, out: Path, **more: Any) -> Any:
    return SEARCH["Search"](space=space, data="unused", embeddings=Path("unused"), out=out, **more)


@pytest.mark.parametrize("space", SPACES, ids=lambda path: path.stem)
def test_trials_hold_options_of_training_and_arms_that_exist(space: Path, tmp_path: Path) -> None:
    for options in SEARCH["trials"](search(space, tmp_path / "search.jsonl")).values():
        own = dict(options)
        assert own.pop("arm", "baseline") in ARMS
        TrainConfig(**{"data": "x", "out": tmp_path, "embeddings": tmp_path} | own)


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_every_difference_follows_from_the_kept_predictions(file: Path) -> None:
    for said, found in PREDICTIONS["recomputed"](file):
        assert found["difference"] == pytest.approx(said["difference"], abs=1e-6)
        if said["n"] == 1:
            assert found["other_images"] == said["other_images"] == {"ci95": None, "p": None}
        else:
            assert found["other_images"]["p"] == pytest.approx(said["other_images"]["p"], rel=1e-3, abs=1e-9)
            assert found["other_images"]["ci95"] == pytest.approx(said["other_images"]["ci95"], abs=1e-6)
