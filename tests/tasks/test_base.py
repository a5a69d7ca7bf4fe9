"""A task that nothing but this file knows is trained, evaluated, compared and reported through the interface alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from gpt4image.base.errors import ConfigError
from gpt4image.comparing.compare import compare
from gpt4image.config import CompareConfig, EvaluateConfig, ReportConfig, TrainConfig
from gpt4image.data import annotation
from gpt4image.data.dataset import Dataset
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.reporting.report import report
from gpt4image.tasks.base import Metric, Task
from gpt4image.tasks.registry import find_task, task_of
from gpt4image.training.train import train
from small_training import SMALL, options
from worlds import in_memory


@dataclass(frozen=True)
class Side(Task):
    """Where a dot is: one output, -1 for the left and 1 for the right edge. A flipped picture has the other target."""

    name: ClassVar[str] = "side"
    primary: ClassVar[Metric] = Metric(name="error", title="distance from the true side", higher_is_better=False)
    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="agree", title="right side"),)
    image_score: ClassVar[str] = "closeness to the true side"

    def outputs(self, classes: Sequence[str]) -> int:
        return 1

    def targets(self, labels: Any, soft: Any, outputs: int, geometry: Any) -> torch.Tensor:
        side = torch.from_numpy(np.where(labels < 0, np.nan, 2.0 * labels - 1).astype(np.float32))[:, None]
        return side if geometry is None else torch.where(geometry.flipped[:, None], -side, side)

    def without_target(self, targets: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return targets.masked_fill(images[:, None], torch.nan)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
        return (outputs.tanh() - targets).square().nanmean()

    def tail(self) -> torch.nn.Module:
        return torch.nn.Tanh()

    def measure(self, predictions: Any, labels: Any, classes: Sequence[str]) -> dict[str, Any]:
        errors = -self.scores(predictions, labels)
        each = [errors[labels[labels >= 0] == k].mean() if (labels == k).any() else None for k in (0, 1)]
        facts = {"images": len(labels), "labelled": len(errors), "classes": list(classes), "per_class": each}
        loss = {"error": errors.mean(), "agree": (errors < 1).mean(), "loss": np.square(errors).mean()}
        return {
            **facts,
            "support": annotation.counts(labels, 2).tolist(),
            **{name: float(x) for name, x in loss.items()},
        }

    def scores(self, predictions: Any, labels: Any) -> Any:
        return -np.abs(predictions[:, 0] - (2.0 * labels - 1))[labels >= 0].astype(np.float64)


@pytest.fixture
def dots(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(80):
        pixels = rng.integers(0, 60, (16, 16, 3)).astype(np.uint8)
        row, column = int(rng.integers(4, 12)), int(rng.integers(3, 6)) + 7 * (i % 2)
        pixels[row - 1 : row + 2, column - 1 : column + 2] = 250
        folder = tmp_path / "dots" / ("left", "right")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "dots"


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_it_learns_only_since_its_targets_are_flipped_with_the_pixels(dots: Path, tmp_path: Path) -> None:
    outcome = train(options(dots, tmp_path / "run", epochs=12, select="best"), task=Side())
    assert outcome.val["error"] < 0.5
    measured = evaluate(EvaluateConfig(run_dir=tmp_path / "run"), task=Side())
    assert measured.scores["error"] < 0.5 and measured.scores["agree"] > 0.9
    report(ReportConfig(dir=tmp_path / "run"))
    assert "distance from the true side" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ConfigError, match="which task side does not allow: leave it out"):
        train(options(dots, tmp_path / "other", mixup=0.5), task=Side())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_it_is_compared_and_reported_by_its_own_metric(dots: Path, tmp_path: Path, runs_here: None) -> None:
    small = {**SMALL, "epochs": 1, "data": f"folder:{dots}", "out": tmp_path / "cmp"}
    compare(CompareConfig(**small, seeds=2, jobs=1, labels_per_class=4, arms="baseline,oracle"), task=Side())
    found = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    assert found["metric"] == "error" and found["arms"].keys() == {"baseline", "oracle"}
    assert "distance from the true side" in (tmp_path / "cmp" / "report.html").read_text()


OPTIONS = TrainConfig(data="folder:photos", out=Path("run"))


def image_set(labels: np.ndarray) -> Dataset:
    return in_memory([b"a", b"b", b"c"], labels)


def test_the_form_of_the_labels_decides_and_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    assert task_of(image_set(np.zeros(3, np.int64)), OPTIONS).name == "classification"
    assert task_of(image_set(np.zeros((3, 2), np.int8)), OPTIONS).name == "multilabel"
    with pytest.raises(ConfigError, match=r"--task 'multi-label' is not one of: .* Did you mean 'multilabel'"):
        find_task("multi-label", OPTIONS)
