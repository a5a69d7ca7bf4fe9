"""Options of distill: those of its stages."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from gpt4image.base.errors import ConfigError
from gpt4image.config.base import StageConfig, listed
from gpt4image.config.comparing import CompareConfig
from gpt4image.config.deploying import ExportConfig, ExportFormat, ExportOptions
from gpt4image.config.describing import (
    AskedOptions,
    AskingOptions,
    DescribeConfig,
    EncodeConfig,
    EncoderOptions,
    RequestOptions,
)
from gpt4image.config.learning import (
    OF_ALIGNMENT,
    PRETRAIN,
    DataOptions,
    LabelConfig,
    ModelOptions,
    RegularisationOptions,
    RunningOptions,
    RunOptions,
    ScheduleOptions,
    SemiSupervisedOptions,
    TeacherOptions,
    TextLossOptions,
    TrainConfig,
)
from gpt4image.config.types import APath, DataSpec, Positional

Config = TypeVar("Config", bound=StageConfig)
ANSWERS, EMBEDDINGS, TARGETS = "answers.db", "embeddings", "targets.parquet"
RUN, MODEL, COMPARISON = "run", "model", "comparison"
"""Names of what stages make in the folder of distill."""
ANSWERED = frozenset({"class", "tags", "boxes"})  # parts of an answer besides a description
_OF_TRAINING = frozenset({"batch_size", "frames", "temperature", "workers"})
"""Options of training that describing and encoding have too, and mean otherwise."""


class DistillConfig(
    ExportOptions,
    RunOptions,
    RunningOptions,
    RegularisationOptions,
    ScheduleOptions,
    ModelOptions,
    SemiSupervisedOptions,
    TextLossOptions,
    TeacherOptions,
    EncoderOptions,
    AskingOptions,
    RequestOptions,
    DataOptions,
    AskedOptions,
):
    """Turn a folder of images into a small model: describe, encode, label, train, evaluate, export and report.

    No image needs a label if the classes are given. Every stage goes on where it stopped. Only a small sample is
    paid for before you agree.

    Example: gpt4image distill photos --describer openai:gpt-4.1-mini --classes "cat, dog, rabbit" --max-cost 5
    """

    essential: ClassVar[frozenset[str]] = frozenset(
        {"classes", "out", "max_cost", "yes", "base_url", "task", "model", "init", "image_size", "epochs", "format"}
    )

    data: Positional[DataSpec]
    """Folder of images, with or without labels, or another dataset SPEC."""
    out: APath = Path("distilled")
    """Folder of everything that is made: answers.db, embeddings, targets.parquet, run, model, report.html."""
    yes: bool = False
    """Go on without a question, whatever the describer costs."""
    ask_again: bool = False
    """Ask again about images left without an answer, without a higher --max-cost or --limit too."""
    ask: str | None = None
    """Parts of an answer, as for `describe`. Default: class; with --align and for clips description and class, for
    several labels or masks description and tags, for boxes description and boxes."""
    format: ExportFormat = "timm"
    """Format of the exported model, as for `export`."""
    align: bool = False
    """Align features to the descriptions too while training, as in the paper. Default: yes for boxes, else no."""
    compare: int = Field(default=0, ge=0)
    """Seeds per arm of a comparison with training on the human labels alone, at the end; 0 for none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.task == PRETRAIN:
            raise ConfigError(f"= {PRETRAIN} learns without the targets of distill: give it to train.", field="task")
        if not self.align and (given := sorted(self.model_fields_set & OF_ALIGNMENT)):
            raise ConfigError.of((name, "is of the alignment; give --align too, or leave it out.") for name in given)
        asked = listed(self.describe(self.ask or ("description,class" if self.align else "class")).ask)
        if self.align and "description" not in asked:
            raise ConfigError(f"= {self.ask} lacks the description that --align needs; add it.", field="ask")
        self.encode()
        self.label(asked)
        self.train()
        if self.compare:
            self.comparison(asked, boxes=False)
        return self

    def of(self, stage: type[Config], **own: Any) -> Config:
        """Return the configuration of a stage: its options as they are given here, and its ``own``."""
        asks = stage in (DescribeConfig, EncodeConfig)
        left_out = _OF_TRAINING if asks else frozenset()
        names = (stage.model_fields.keys() & type(self).model_fields.keys()) - left_out
        # What nobody gave stays open: a stage chooses some of its defaults by the task, see training.auto.
        given = {name: getattr(self, name) for name in names}
        told = {name: given[name] for name in names if name in self.model_fields_set} | stage.changed(given)
        return stage(**(told | own))

    def describe(self, ask: str) -> DescribeConfig:
        """Return the options of describing."""
        classes = {} if {"class", "boxes"} & {*listed(ask)} else {"classes": None}
        return self.of(DescribeConfig, store=self.out / ANSWERS, ask=ask, **classes)

    def encode(self) -> EncodeConfig:
        """Return the options of encoding."""
        own: dict[str, Any] = {"prompt": None, "engine": "local", "workers": None}  # --engine is of asking alone
        return self.of(EncodeConfig, store=self.out / ANSWERS, out=self.out / EMBEDDINGS, **own)

    def label(self, asked: Collection[str]) -> LabelConfig:
        """Return the options of the teacher, which reads what was ``asked`` for."""
        # Masks are taught by which classes are present, or by boxes.
        task = "auto" if self.task == "segmentation" else self.task
        return self.of(
            LabelConfig,
            task="detection" if "boxes" in asked and {"class", "tags"}.isdisjoint(asked) else task,
            answers=self.out / ANSWERS if ANSWERED & {*asked} else None,
            embeddings=self.out / EMBEDDINGS if "description" in asked else None,
            out=self.out / TARGETS,
        )

    def train(self) -> TrainConfig:
        """Return the options of training; a run that was begun goes on."""
        embeddings = self.out / EMBEDDINGS if self.align else None
        return self.of(TrainConfig, embeddings=embeddings, targets=self.out / TARGETS, out=self.out / RUN, resume=True)

    def comparison(self, asked: Collection[str], *, boxes: bool) -> CompareConfig:
        """Return the options of the comparison of what was ``asked`` for with human labels alone.

        ``boxes`` says whether the task is of boxes.
        """
        texts, answers = "description" in asked, bool(ANSWERED & {*asked})
        arm = "fused" if texts and answers else "asked" if answers else "text-labels"
        if boxes:
            arm = "fused-aligned" if self.align else "fused"
        return self.of(
            CompareConfig,
            arms=f"baseline,{arm}",
            seeds=self.compare,
            seed=0,
            embeddings=self.out / EMBEDDINGS if texts else None,
            answers=self.out / ANSWERS if answers else None,
            out=self.out / COMPARISON,
        )

    def export(self) -> ExportConfig:
        """Return the options of the export."""
        return self.of(ExportConfig, run_dir=self.out / RUN, out=self.out / MODEL, data=None)
