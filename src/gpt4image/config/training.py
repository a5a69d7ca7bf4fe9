"""Options of the stages that learn from one set of labels: label, train, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic import field_validator as check

from gpt4image.base.errors import ConfigError
from gpt4image.config.arms import Evidence
from gpt4image.config.base import Positional, Rare, WithData
from gpt4image.config.describing import class_lines
from gpt4image.config.learning import DataOptions, TrainOptions


class LabelConfig(DataOptions):
    """Predict the class of every image from answers, descriptions and the labels there are; list suspected label
    errors. No label is needed with answers or class names.

    Example: gpt4image label --data folder:photos --answers photos.db --embeddings photos.emb --out targets.parquet
    """

    embeddings: Path | None = None
    """Embedding table of the descriptions."""
    answers: Path | None = None
    """Store with answers to `describe --ask class`, or tags for several classes, or boxes for detection."""
    task: Literal["auto", "classification", "multilabel", "video", "detection"] = "auto"
    """Kind of target: the class of an image (classification) or clip (video), which of several an image has
    (multilabel), or boxes of objects (detection). auto: as the labels of the dataset are."""
    evidence: Evidence = "fused"
    """What is read: all that is given (fused), descriptions (texts), answers, or class names (names)."""
    features: str = "auto"
    """What sees the pictures, beside answers: a model of timm whose pretrained weights lie on this machine, the folder
    of a run that learned without these labels (`--task pretrain`), or none. auto: the first of two usual models whose
    weights are here. Features are kept beside the output."""
    classes: str | None = None
    """Class names of a dataset without labels: a file, or a list with commas. Default: those of the answers."""
    out: Path
    """Parquet file of targets. An HTML page of suspected label errors is written beside it."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the folds."""
    max_error: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep only the surest targets of training images, of which at most this share is wrong, with 95 % confidence by
    the looks of `audit`; one class per image."""
    audit: Path = Path("audit.csv")
    """File of the looks of `audit`, for --max-error."""

    _lines = check("classes", mode="before")(class_lines)

    @model_validator(mode="after")
    def _has_evidence(self) -> Self:
        if self.embeddings is None and self.answers is None:
            raise ConfigError(
                "label needs evidence: --answers STORE, --embeddings DIR (by `gpt4image encode`), or both."
            )
        missing = "--answers" if self.evidence == "answers" else "--embeddings"
        if self.evidence != "fused" and (self.answers if missing == "--answers" else self.embeddings) is None:
            raise ConfigError(f"--evidence {self.evidence} reads {missing}, which is not given.")
        return self

    @check("out")
    @classmethod
    def _is_parquet(cls, value: Path) -> Path:
        if value.suffix != ".parquet":
            raise ValueError("give a file that ends with .parquet; `gpt4image export-labels` writes other formats")
        return value


class TrainConfig(TrainOptions):
    """Train a model, with or without help from text.

    Example: gpt4image train --data folder:photos --embeddings photos.emb --model resnet18 --out run
    """

    essential: ClassVar[frozenset[str]] = frozenset(
        {"embeddings", "targets", "only_described", "task", "model", "init", "image_size", "epochs", "batch_size"}
        | {"seed", "resume", "as_json"}
    )

    out: Path
    """Run folder."""
    train_on_val: bool = False
    """Train on the validation images too: for the last run, when nothing is left to choose."""
    resume: bool = False
    """Continue from the last checkpoint in --out."""
    checkpoint_seconds: Rare[float] = Field(default=30.0, ge=0.0)
    """Minimum time between checkpoints, in seconds."""


class EvaluateConfig(WithData):
    """Measure a run: top-1, top-5, per class, calibration, confusion.

    Example: gpt4image evaluate run --split test
    """

    run_dir: Positional[Path]
    """Run folder written by `train`."""
    data: str | None = None
    """Dataset SPEC. Default: the dataset of the run."""
    split: Literal["train", "val", "test"] = "test"
    """Split to measure on."""
    audit: Path = Path("audit.csv")
    """File of the looks of `audit`: they estimate the accuracy with an interval, also without labels."""
