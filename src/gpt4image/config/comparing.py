"""Options of the stages that gather evidence: compare, report, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from pydantic import field_validator as check

from gpt4image.config.base import StageConfig
from gpt4image.config.learning import TrainOptions
from gpt4image.errors import nearest

ARMS = (
    "baseline",
    "aligned",
    "text-labels",
    "text-labels-aligned",
    "zero-shot",
    "self-training",
    "oracle",
    "shuffled",
    "shuffled-within-class",
    "random",
    "class-name",
    "class-mean",
)


class CompareConfig(TrainOptions):
    """Train all arms over several seeds and say what text bought.

    Example: gpt4image compare --data folder:photos --embeddings photos.emb --labels-per-class 10 --seeds 5 --out cmp
    """

    out: Path
    """Folder of the comparison: run records, comparison.json and report.html."""
    seeds: int = Field(default=3, ge=1)
    """Number of seeds per arm."""
    arms: str = ""
    """Arms, separated by commas; without it, all that apply to the labels there are. See docs/compare.md."""
    labels_per_class: int | None = Field(default=None, ge=1)
    """Keep this many labels a class, drawn per seed; the other training images count as unlabelled."""
    label_noise: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Part of the training labels flipped to another class, drawn per seed."""
    jobs: int | None = Field(default=None, ge=1)
    """Runs side by side; one per core (or per GPU) without it."""

    @check("arms")
    @classmethod
    def _known_arms(cls, value: str) -> str:
        names = dict.fromkeys(filter(None, (name.strip() for name in value.split(","))))
        for name in names:
            if name not in ARMS:
                raise ValueError(nearest(name, ARMS))
        return ",".join(names)


class ReportConfig(StageConfig):
    """Write report.html for a run or a comparison, from its records alone.

    Example: gpt4image report cmp
    """

    dir: tyro.conf.Positional[Path]
    """Folder written by `train`, `compare` or `demo`."""


class DemoConfig(StageConfig):
    """Run the whole pipeline on packaged pictures, offline: what do descriptions buy with 5 labels a category?

    Example: gpt4image demo --out demo-out
    """

    out: Path = Path("demo-out")
    """Folder of the demo: store, embeddings, text labels, runs, comparison.json and report.html."""
    seeds: int = Field(default=3, ge=1)
    """Number of seeds per arm."""
    jobs: int | None = Field(default=None, ge=1)
    """Runs side by side; one per core without it."""
