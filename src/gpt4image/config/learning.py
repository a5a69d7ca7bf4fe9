"""Options of the stages that learn: label, train, evaluate; and those that `train` and `compare` share."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, field_validator, model_validator
from pydantic import field_validator as check

from gpt4image.base.errors import ConfigError
from gpt4image.config.arms import Evidence
from gpt4image.config.base import MOST_THREADS, StageConfig, known_list, listed
from gpt4image.config.results import Epoch
from gpt4image.config.types import (
    APath,
    ClassList,
    DataSpec,
    Fraction,
    JsonTable,
    MaybeData,
    MaybePath,
    Model,
    Positional,
    PythonOnly,
    Rare,
)

PRETRAIN = "pretrain"  # the task without labels
SIMCLR, CAPTIONS = "simclr", "captions"
"""Its objectives: two views of each image, and alignment to descriptions."""


class SplitOptions(StageConfig):
    """Splits that a dataset lacks."""

    val_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Fraction of the training images held out for validation, if the dataset has no validation split."""
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Fraction of the images held out for test, if the dataset has no test split."""


class DataOptions(SplitOptions):
    """The dataset and its splits."""

    data: DataSpec
    """Dataset: a folder or table of images, or a SPEC: folder:PATH, manifest:FILE, hf:NAME_OR_PATH, coco:FILE.json,
    coco-masks:FILE.json, yolo:DIR, voc:DIR, masks:DIR, label-studio:FILE.json, clips:PATH, cifar10, cifar100, clothes,
    openmoji."""


LossName = Literal["infonce", "infonce-one-way", "siglip", "cosine"]
PAPER_LOSSES = ("infonce", "infonce-one-way", "cosine")  # those of the paper's official code
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


class TextLossOptions(StageConfig):
    """Learning from descriptions."""

    label_trust: Fraction | None = None
    """Weight of the given label in a target. Default: 0.5 if the labels look right, 1 if the descriptions say little of
    the classes, otherwise the posterior under the label noise that `label` estimated."""
    align_loss: LossName = "infonce"
    """Alignment loss; infonce (symmetric) is the paper's."""
    align_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the alignment loss (the paper's lambda)."""
    temperature: float = Field(default=0.2, gt=0.0)
    """Temperature of the losses with negatives (all but cosine)."""
    paper_compat: bool = False
    """Reproduce the official code of the paper, including its defects."""
    head: Rare[Literal["linear", "mlp", "mlp-bn"]] = "linear"
    """Projection head from features to text space; dropped after training."""
    labelled_share: Rare[Annotated[float, Field(gt=0.0, lt=1.0)]] = 0.5
    """Fraction of each batch drawn from images with a target, if others take part only through alignment or consistency
    training. For segmentation, images with only tags are drawn on top of --batch-size, at most in this proportion."""


class TextOptions(TextLossOptions):
    """Learning from descriptions."""

    embeddings: MaybePath = None
    """Embedding table of the descriptions; the model's features are aligned to it (see --align-weight)."""
    targets: MaybePath = None
    """Targets written by `label`: class probabilities of images, combined with the given label if there is one."""
    only_described: bool = False
    """Train only on the described images."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.paper_compat and self.align_loss not in PAPER_LOSSES:
            raise ConfigError(f"goes only with {', '.join(PAPER_LOSSES)}.", field="paper_compat")
        return self


OF_ALL = frozenset({*StageConfig.model_fields, "embeddings", "targets", "only_described", "labelled_share"})
"""Options among those of texts that concern runs without a text too."""
OF_TEXT_LABELS = frozenset({"label_trust"})  # options that say how text labels are used
OF_ALIGNMENT = TextOptions.model_fields.keys() - OF_TEXT_LABELS - OF_ALL
"""Options that say how features are aligned to texts."""


class SemiSupervisedOptions(StageConfig):
    """Learning from images without a label or a text label."""

    consistency: float = Field(default=0.0, ge=0.0)
    """Weight of consistency training (FixMatch) on images without a target. 0 turns it off; 1 is usual."""
    confidence: Rare[Fraction] = 0.8
    """Minimum probability of such a prediction, as a fraction of the largest one that --label-smoothing allows."""


class ModelOptions(StageConfig):
    """The model and its task."""

    task: str = "auto"
    """classification (one class per image), multilabel (several), detection (boxes), segmentation (masks), video (one
    class per clip), auto (as the annotations of the dataset are) or pretrain (no label is read, see --pretrain)."""
    frames: int | None = Field(default=None, ge=1, le=64)
    """Frames of a clip that the model reads, spread evenly over it. Default: 8 for clips."""
    frame_order: Literal["shuffled", "still"] | None = None
    """Controls for clips: frames shuffled per clip, or still, the middle one. Default: as they come."""
    frame_differences: bool = False
    """For clips: the model reads by how much each frame differs from the one before. It then sees only what moves."""
    presence_weight: Rare[float] = Field(default=1.0, ge=0.0)
    """Weight of weak supervision, for segmentation: by tags and text labels. 0: only masks."""
    model: Model = None
    """Any timm model, or one of transformers for classes, masks or clips: transformers:NAME_OR_PATH. Default: a
    small ResNet for small datasets of small images, otherwise resnet18."""
    model_args: Rare[JsonTable] = Field(default_factory=dict)
    """Extra arguments of timm.create_model, or of a configuration of transformers, as JSON."""
    init: str = "auto"
    """scratch, pretrained or a .safetensors file. auto: pretrained where the model's weights lie on this machine and
    there are fewer than 200,000 training images; nothing is downloaded unasked."""
    freeze: str = "auto"
    """Which weights stay as --init gives them: none; all but the classifier (for boxes and masks the head); or a
    number, the first layers and so many stages. Default, auto: for one class or several per image, from pretrained
    weights on a CPU, a number of stages that ends in minutes; otherwise none."""
    stem: Rare[Literal["auto", "standard", "small"]] = "auto"
    """First layers: small keeps the resolution, as for CIFAR. auto: small up to 96 pixels, where known."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Side of the square input, in pixels. Default: chosen from the images."""

    @field_validator("freeze")
    @classmethod
    def _known_freeze(cls, value: str) -> str:
        if value not in ("auto", "none", "all") and not re.fullmatch(r"[1-9]\d?", value):
            raise ValueError("allowed are auto, none, all, or a number of stages from 1 on")
        return value

    @field_validator("init")
    @classmethod
    def _known_init(cls, value: str) -> str:
        if value not in ("auto", "scratch", "pretrained") and Path(value).suffix != ".safetensors":
            raise ValueError(
                "allowed are auto, scratch, pretrained or a .safetensors file; a pickled checkpoint is never loaded"
            )
        return value


class ScheduleOptions(StageConfig):
    """Duration, optimiser and learning rate."""

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training images. Default: chosen from the size of the dataset."""
    batch_size: int | None = Field(default=None, ge=2)
    """Images per step. Default: chosen from the size of the dataset."""
    grad_accumulation: Rare[int] = Field(default=1, ge=1)
    """Batches per optimiser step."""
    optimizer: str | None = None
    """Any timm optimiser: muon, adamw, sgd, momentum, ... Default: muon for models with batch norm, and from scratch on
    fewer than 200,000 images; otherwise, and for classes with --freeze all or a number, adamw."""
    lr: float | None = Field(default=None, gt=0.0)
    """Peak learning rate. Default: 0.02 for muon (5e-3 without batch norm, except ConvNeXts), 0.1 * batch / 256 for
    sgd, 1e-3 for others; mostly a tenth of it from given weights."""
    new_layers_lr_scale: Rare[float] = Field(default=10.0, gt=0.0)
    """With --init: learning rate of new layers (classifier, alignment head), as a multiple of that of the others."""
    weight_decay: Rare[float | None] = Field(default=None, ge=0.0)
    """Weight decay of weights; biases and norms have none. Default: 0.3 for muon, 5e-4 for sgd, 0.05 for others."""
    momentum: Rare[Fraction] = 0.9
    """Momentum of the optimisers that have one: muon, sgd, momentum, ..."""
    warmup_fraction: Rare[Fraction] = 0.05
    """Fraction of the steps in which the learning rate rises linearly."""
    min_lr: Rare[float] = Field(default=1e-5, ge=0.0)
    """Learning rate at the end of the cosine."""
    ema: Rare[Annotated[float, Field(ge=0.0, lt=1.0)]] = 0.0
    """Decay of the moving average of the weights, which is evaluated and kept; 0 for none."""


class RegularisationOptions(StageConfig):
    """Regularisation and augmentation."""

    label_smoothing: Rare[Annotated[float, Field(ge=0.0, lt=1.0)]] = 0.1
    """Label smoothing."""
    mixup: float = Field(default=0.0, ge=0.0)
    """Mixup alpha; labels and text targets are mixed with the images."""
    cutmix: Rare[float] = Field(default=0.0, ge=0.0)
    """CutMix alpha; labels and text targets are mixed with the images."""
    flip: bool = True
    """Flip images left to right at random."""
    shift: Rare[Fraction] = 0.125
    """Maximum random shift, as a fraction of the side."""
    min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Minimum area of a random resized crop, as a fraction of the image; 1 for none. With --task pretrain: 0.2."""
    auto_augment: Rare[str | None] = None
    """Augmentation policy of timm, drawn for each image: rand-m9-mstd0.5-inc1 (RandAugment), original, v0, 3a, ..."""
    repeated_augmentation: Rare[int] = Field(default=1, ge=1)
    """Copies of each image in a row, each augmented anew; the number of steps per epoch stays the same."""
    colour: Rare[Fraction] = 0.0
    """Strength of random brightness, contrast and saturation. With --task pretrain: 0.4."""
    erase: Rare[Fraction] = 0.0
    """Probability of random erasing."""
    erase_with: Rare[Literal["mean", "noise"]] = "mean"
    """What erased pixels become: the mean colour, or normal noise (as for DeiT and ConvNeXt)."""
    drop_path: Rare[Annotated[float, Field(ge=0.0, lt=1.0)]] = 0.0
    """Stochastic depth."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0.0 or self.cutmix > 0.0


class RunningOptions(StageConfig):
    """How a run is carried out."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of weights, data order and augmentation."""
    reject_share: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.02
    """Share of good images that the model may call "none of these", so that it can say so of strange ones; for classes
    and clips. 0 turns it off."""
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or the best on the validation split."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device multiplies it natively, else fp32."""
    memory_format: Rare[Literal["auto", "contiguous", "channels_last"]] = "auto"
    """auto: channels_last for models that convolve, on CPUs and on GPUs that compute bf16, else contiguous."""
    compile: bool = False
    """Compile the model with torch.compile, which takes minutes. Not bit-identical to uncompiled runs."""
    track: str = ""
    """Trackers that show the run, separated by commas: tensorboard, wandb, mlflow, trackio; each is an extra."""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """CPU threads of the training process. Default: all."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that decode images, if the dataset does not fit in memory. Default: one per core, at most 16."""
    memory_limit_gb: float = Field(default=4.0, ge=0.0)
    """Maximum size of decoded pixels held in memory, in GB; larger datasets are decoded during training."""

    @field_validator("track")
    @classmethod
    def _known_trackers(cls, value: str) -> str:
        return known_list(value, TRACKERS)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``track``."""
        return listed(self.track)


class PretrainingOptions(StageConfig):
    """Learning without labels."""

    pretrain: str = SIMCLR
    """Objectives of --task pretrain: simclr (two views of an image), captions (of --embeddings)."""

    @field_validator("pretrain")
    @classmethod
    def _known_objectives(cls, value: str) -> str:
        if not (known := known_list(value, (SIMCLR, CAPTIONS))):
            raise ValueError(f"name at least one of {SIMCLR}, {CAPTIONS}")
        return known


class TrainOptions(
    RunningOptions,
    RegularisationOptions,
    ScheduleOptions,
    ModelOptions,
    SemiSupervisedOptions,
    PretrainingOptions,
    TextOptions,
    DataOptions,
):
    """All of them; fields come in the order data, text, unlabelled, model, schedule, regularisation, running."""

    @model_validator(mode="before")
    @classmethod
    def _views_differ(cls, given: Any) -> Any:
        pretrained = isinstance(given, dict) and cast("dict[str, Any]", given).get("task") == PRETRAIN
        # Views of an image that are too alike teach nothing (SimCLR, arXiv 2002.05709, section 3).
        return {"min_scale": 0.2, "colour": 0.4} | given if pretrained else given

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        over_time = (self.model or "").startswith("transformers:")
        if (
            self.freeze not in ("auto", "none")
            and self.init in ("auto", "scratch")
            and not (self.model or "").startswith("python:")
        ):
            why = f"= {self.freeze} keeps weights as they are: name them by --init pretrained or --init FILE."
            raise ConfigError(why, field="freeze")
        if over_time and self.memory_format == "channels_last":
            raise ConfigError(f"= channels_last is for models of timm, not for {self.model}.", field="memory_format")
        if self.frame_differences and (self.frames == 1 or over_time):
            raise ConfigError("needs a model of images and --frames 2 or more.", field="frame_differences")
        if self.pretraining:
            reads, asked = CAPTIONS in self.pretraining, ",".join(self.pretraining)
            if reads and self.embeddings is None and not self.only_described:
                raise ConfigError(f"= {asked} learns from descriptions: give their --embeddings.", field="pretrain")
            if self.embeddings is not None and not reads and not self.only_described:
                raise ConfigError(f"is not read by --pretrain {asked}; leave it out.", field="embeddings")
            unread = ("freeze", "consistency", "mixup", "cutmix", "targets", "paper_compat")
            idle = [name for name in unread if getattr(self, name) not in (False, 0.0, None, "auto", "none")]
            if idle:
                raise ConfigError.of((name, f"is not used by --task {PRETRAIN}: leave it out.") for name in idle)
        return self

    @property
    def kept_stages(self) -> int:
        """Stages of the backbone, with the layers before them, that stay as they are; 0 for none, or all."""
        return int(self.freeze) if self.freeze.isdigit() else 0

    @property
    def pretraining(self) -> tuple[str, ...]:
        """Objectives of the task without labels; none for another task."""
        return listed(self.pretrain) if self.task == PRETRAIN else ()

    @property
    def compares_views(self) -> bool:
        """Whether two views of each image are compared."""
        return SIMCLR in self.pretraining

    @property
    def aligns(self) -> bool:
        """Whether features are aligned to the embeddings of texts, where there are some."""
        return self.align_weight > 0.0 and (not self.pretraining or CAPTIONS in self.pretraining)

    @property
    def resolved(self) -> ResolvedOptions:
        """These options as ``training.auto.choose`` and the record of a run give them: none of the seven is open."""
        return ResolvedOptions(**{name: getattr(self, name) for name in ResolvedOptions.model_fields})


class ResolvedOptions(TrainOptions):
    """The type of ``TrainOptions.resolved``."""

    model: str  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    image_size: int  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    epochs: int  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    batch_size: int  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    optimizer: str  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    lr: float  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    weight_decay: float  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]


class TeacherOptions(StageConfig):
    """The teacher, which makes the targets."""

    evidence: Evidence = "fused"
    """What is read: all that is given (fused), descriptions (texts), answers, or class names (names)."""
    features: str = "auto"
    """What sees the pictures, beside answers: a model of timm whose pretrained weights lie on this machine, the folder
    of a run that has not learned these labels, or none. auto: the first of two usual models whose weights are here."""
    max_error: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep only the surest targets, of which at most this share is wrong with 95 % confidence, by audited images."""
    audit: APath = Path("audit.csv")
    """File of the images that `audit` asked about, for --max-error."""


class LabelConfig(TeacherOptions, DataOptions):
    """Predict the class of every image from answers, descriptions and the labels there are; list suspected label
    errors. No label is needed with answers or class names.

    Example: gpt4image label --data folder:photos --answers photos.db --embeddings photos.emb --out targets.parquet
    """

    embeddings: MaybePath = None
    """Embedding table of the descriptions."""
    answers: MaybePath = None
    """Store with answers to `describe --ask class`, or tags for several classes, or boxes for detection."""
    task: Literal["auto", "classification", "multilabel", "video", "detection"] = "auto"
    """Kind of target: class of an image (classification) or clip (video), several (multilabel), boxes (detection)."""
    classes: ClassList = None
    """Class names of a dataset without labels: a file, or a list with commas. Default: those of the answers."""
    out: APath
    """Parquet file of targets. An HTML page of suspected label errors and doubtful targets is written beside it."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the folds."""

    @model_validator(mode="after")
    def _has_evidence(self) -> Self:
        if self.embeddings is None and self.answers is None:
            why = "or --embeddings DIR (by `gpt4image encode`) is needed, or both: label learns from them."
            raise ConfigError(why, field="answers")
        missing = "answers" if self.evidence == "answers" else "embeddings"
        if self.evidence != "fused" and getattr(self, missing) is None:
            raise ConfigError(f"is not given, and --evidence {self.evidence} reads it.", field=missing)
        return self

    @check("out")
    @classmethod
    def _is_parquet(cls, value: Path) -> Path:
        if value.suffix != ".parquet":
            raise ValueError("give a file that ends with .parquet; `gpt4image export-labels` writes other formats")
        return value


class RunOptions(StageConfig):
    """The run."""

    train_on_val: bool = False
    """Train on the validation images too: for the last run, when nothing is left to choose."""
    checkpoint_seconds: Rare[float] = Field(default=30.0, ge=0.0)
    """Minimum time between checkpoints, in seconds."""


class TrainConfig(RunOptions, TrainOptions):
    """Train a model, with or without help from text.

    Example: gpt4image train --data folder:photos --embeddings photos.emb --model resnet18 --out run
    """

    essential: ClassVar[frozenset[str]] = frozenset(
        {"embeddings", "targets", "only_described", "task", "model", "init", "image_size", "epochs", "batch_size"}
        | {"seed", "resume"}
    )

    out: APath
    """Run folder."""
    resume: bool = False
    """Continue from the last checkpoint in --out."""
    on_epoch: PythonOnly[Callable[[Epoch], bool | None] | None] = Field(default=None, exclude=True, repr=False)
    """Function that is called at the end of each epoch, in the first process; it returns False to end training."""


class EvaluateConfig(StageConfig):
    """Measure a run: top-1, top-5, per class, calibration, confusion.

    Example: gpt4image evaluate run --split test
    """

    run_dir: Positional[APath]
    """Run folder written by `train`."""
    data: MaybeData = None
    """Dataset SPEC. Default: the dataset of the run."""
    split: Literal["train", "val", "test", "all"] = "test"
    """Split to measure on; all: every image. A dataset given by --data that has no splits is measured whole."""
    audit: APath = Path("audit.csv")
    """File of the images that `audit` asked about: they estimate the accuracy with an interval, also without labels."""
    at_least: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Accuracy that answers must have: names the probability from which on they have it, for `predict --min-score`, and
    the share of the images that is then answered."""
