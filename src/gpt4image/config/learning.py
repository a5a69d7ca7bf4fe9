"""Options that `train` and `compare` share, by what they are about."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from gpt4image.base.errors import ConfigError
from gpt4image.config.alignment import WITH_NEGATIVES, LossName, SameClass, check_alignment
from gpt4image.config.base import MOST_THREADS, Fraction, JsonTable, StageConfig, known_list, listed


class DataOptions(StageConfig):
    """Options of every stage that reads a dataset with splits."""

    data: str
    """Dataset SPEC: folder:PATH, manifest:FILE, hf:NAME_OR_PATH, webdataset:PATTERN, cifar10, cifar100, openmoji."""
    val_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Part of train held out for validation when the set has no validation split."""
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Part of the set held out for test when the set has no test split."""


TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


class TextOptions(StageConfig):
    """What is learned from text."""

    embeddings: Path | None = None
    """Embedding table; with it, features are aligned to the descriptions (see --align-weight)."""
    text_labels: Path | None = None
    """Text labels written by `label`: soft targets for images with a text, beside the label where there is one."""
    label_trust: Fraction | None = None
    """Share of a given label in the target of an image with text labels; the rest is its text label. Without it, half
    where the labels look right (all of it where texts say little), else the posterior under the noise that `label`
    estimated."""
    only_described: bool = False
    """Train only on the described images."""
    align_loss: LossName = "infonce"
    """Alignment loss; infonce (symmetric) is the paper's."""
    align_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the alignment loss (the paper's lambda)."""
    temperature: float = Field(default=0.2, gt=0.0)
    """Temperature of the losses with negatives (all but cosine)."""
    learn_temperature: bool = False
    """Learn the temperature, from --temperature on and between 0.01 and 1; for siglip its bias too."""
    normalise: bool = True
    """Compare directions; --no-normalise: losses with negatives take dot products in place of cosines."""
    same_class: SameClass = "negative"
    """Texts of other images of its class: negatives as in the paper, or left out of the comparison."""
    texts: Literal["mean", "sample"] = "mean"
    """Several descriptions of an image: their mean, or one drawn at each step."""
    centre: Literal["none", "all"] = "none"
    """Subtract from each text the mean of all training texts."""
    weight_until: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Part of the steps in which the weight of the alignment falls to 0, as a cosine. 1: the weight is constant."""
    adaptive_weight: bool = False
    """Scale the alignment so that its gradient at the features is --align-weight times as long as the task's."""
    tune_text: Literal["none", "lora", "full"] = "none"
    """Train the text encoder of the table too, on the descriptions themselves: adapters (lora), or all its weights."""
    tune_text_lr: float | None = Field(default=None, gt=0.0)
    """Peak learning rate of the text encoder; without it 1e-4 for lora, 1e-5 for full."""
    tune_text_rank: int = Field(default=8, ge=1)
    """Rank of the adapters of lora."""
    paper_compat: bool = False
    """Do what the official code of the paper does, including its defects; for reproduction."""
    head: Literal["linear", "mlp", "mlp-bn"] = "linear"
    """Projection head from features to text space; dropped after training."""
    labelled_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of a batch drawn from images with a target, if others take part only through alignment or consistency.
    Images that are fewer than the rest of the batch take part in the alignment as often as any other."""

    @property
    def alignment(self) -> dict[str, Any]:
        """Arguments of ``alignment.Alignment``."""
        names = ("temperature", "learn_temperature", "normalise", "same_class", "paper_compat")
        return {"loss": self.align_loss, **{name: getattr(self, name) for name in names}}

    def given(self, names: Set[str]) -> list[str]:
        """Return which of these options of texts are not at their default, in alphabetical order."""
        defaults = {name: TextOptions.model_fields[name].default for name in sorted(names)}
        return [name for name, value in defaults.items() if getattr(self, name) != value]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_alignment(**self.alignment)
        if self.tune_text != "none":
            self._tuning_fits()
        return self

    def _tuning_fits(self) -> None:
        asked = f"--tune-text {self.tune_text}"
        if self.embeddings is None:
            raise ConfigError(f"{asked} needs --embeddings: the table says which encoder reads which descriptions.")
        if self.align_weight == 0.0:
            raise ConfigError(f"{asked}: the text encoder learns by the alignment; give an --align-weight above 0.")
        if self.align_loss not in WITH_NEGATIVES:
            raise ConfigError(
                f"{asked} with --align-loss {self.align_loss}: nothing would keep the texts apart, so that all of them "
                f"become one; use {', '.join(WITH_NEGATIVES)}."
            )
        if names := " and ".join(["--centre"] * (self.centre != "none") + ["--paper-compat"] * self.paper_compat):
            raise ConfigError(f"{asked}: {names} is made for texts that stay as they are; leave one of them out.")


OF_ALL = frozenset({*StageConfig.model_fields, "embeddings", "text_labels", "only_described", "labelled_share"})
"""Options among those of texts that concern runs without a text too."""
OF_TEXT_LABELS = frozenset({"label_trust"})
"""Options that say how text labels are used."""
OF_ALIGNMENT = TextOptions.model_fields.keys() - OF_TEXT_LABELS - OF_ALL
"""Options that say how features are aligned to texts."""


class SemiSupervisedOptions(StageConfig):
    """What is learned from images that have neither a label nor a text label."""

    consistency: float = Field(default=0.0, ge=0.0)
    """Weight of consistency training (FixMatch): on images without a target, a confident prediction for a slightly
    changed view is the target of a strongly changed one. 0 for none; 1 is usual."""
    confidence: Fraction = 0.8
    """Minimum probability at which consistency training takes a class for an image's label; as a share of the largest
    one that --label-smoothing leaves."""


class ModelOptions(StageConfig):
    """The model and its task."""

    task: str = "auto"
    """classification (one class per image) or multilabel (any number of them). auto: as the labels of the set are."""
    focus_negatives: float = Field(default=0.0, ge=0.0)
    """multilabel: power by which the loss of absent classes falls where they are predicted well (asymmetric loss); 0 is
    binary cross-entropy."""
    model: str | None = None
    """Any timm model. Without it, a small ResNet for small sets of small images, else resnet18."""
    model_args: JsonTable = Field(default_factory=dict)
    """Extra arguments of timm.create_model, as JSON."""
    init: str = "scratch"
    """scratch, pretrained (timm's weights) or a .safetensors file."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """small: first layers keep the resolution of small images, as for CIFAR. auto: small up to 96 pixels, for models
    that have such a stem."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Side of the square input, in pixels; chosen from the images without it."""

    @field_validator("init")
    @classmethod
    def _known_init(cls, value: str) -> str:
        if value not in ("scratch", "pretrained") and Path(value).suffix != ".safetensors":
            raise ValueError(
                "allowed are scratch, pretrained or a .safetensors file; a pickled checkpoint is never loaded, "
                "convert it with safetensors.torch.save_file first"
            )
        return value


class ScheduleOptions(StageConfig):
    """Duration, optimiser and learning rate."""

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the train split (labelled or not); chosen from the size of the set without it."""
    batch_size: int | None = Field(default=None, ge=2)
    """Images per step; chosen from the size of the set without it."""
    grad_accumulation: int = Field(default=1, ge=1)
    """Batches per optimiser step."""
    optimizer: str | None = None
    """Any timm optimiser: muon, adamw, sgd (Nesterov's), momentum (SGD with classical momentum), ... Without it, muon
    from scratch, but not with --fsdp nor for models without batch norm on 200,000 images and more; else adamw."""
    lr: float | None = Field(default=None, gt=0.0)
    """Peak learning rate; without it 0.02 for muon (5e-3 without batch norm, except ConvNeXts), 0.1 * batch / 256 for
    sgd, 1e-3 for others; a tenth from given weights, except for models with batch norm trained by adamw or the like."""
    new_layers_lr_scale: float = Field(default=10.0, gt=0.0)
    """With --init: learning rate of layers that start anew (a new classifier, the head of the alignment), as a multiple
    of that of the others."""
    weight_decay: float | None = Field(default=None, ge=0.0)
    """Weight decay of weights (biases and norms have none); without it 0.3 for muon, 5e-4 for sgd, 0.05 for others."""
    momentum: Fraction = 0.9
    """Momentum of the optimisers that have one: muon, sgd, momentum, ..."""
    warmup_fraction: Fraction = 0.05
    """Part of the steps in which the learning rate rises linearly."""
    min_lr: float = Field(default=1e-5, ge=0.0)
    """Learning rate at the end of the cosine."""
    clip_grad: float | None = Field(default=None, gt=0.0)
    """Maximum norm of the gradient."""
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the moving average of the weights that is evaluated and kept; 0 for none. Early in a run it looks back
    on an eighth of the steps so far."""


class RegularisationOptions(StageConfig):
    """Regularisation and augmentation."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Label smoothing."""
    mixup: float = Field(default=0.0, ge=0.0)
    """Mixup alpha; labels and text targets are mixed with the images."""
    cutmix: float = Field(default=0.0, ge=0.0)
    """CutMix alpha; labels and text targets are mixed with the images."""
    flip: bool = True
    """Flip images left to right at random."""
    shift: Fraction = 0.125
    """Maximum random shift, as a part of the side."""
    min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Minimum area of a random resized crop, as a part of the image; 1 for none."""
    auto_augment: str | None = None
    """Augmentation policy of timm, drawn for each image: rand-m9-mstd0.5-inc1 (RandAugment), original, v0, 3a, ..."""
    repeated_augmentation: int = Field(default=1, ge=1)
    """Take each image this many times in a row, augmented anew each time; an epoch has as many steps as without."""
    colour: Fraction = 0.0
    """Strength of random brightness, contrast and saturation."""
    erase: Fraction = 0.0
    """Probability of random erasing."""
    erase_with: Literal["mean", "noise"] = "mean"
    """What erased pixels become: the mean colour, or normal noise (as DeiT and ConvNeXt are trained)."""
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Stochastic depth."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0.0 or self.cutmix > 0.0


class RunningOptions(StageConfig):
    """How a run is carried out."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of weights, data order and augmentation."""
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or the best on the validation split."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: the faster of those that the device computes well, found by a short probe."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """auto: the faster one, found by the same probe."""
    compile: bool = False
    """Compile the model with torch.compile: faster steps, after up to some minutes for the first one. Results of
    compiled and other runs differ as those of two seeds do."""
    fsdp: bool = False
    """Spread weights, gradients and optimiser over all processes in place of a copy in each: for models that do not fit
    on one device."""
    checkpoint_activations: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass: less memory, more time."""
    track: str = ""
    """Trackers that show the run, separated by commas: tensorboard, wandb, mlflow, trackio; each is an extra."""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """CPU threads of the training process; all without it."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that decode images where the set does not fit in memory; one per core, 16 at most, without it."""
    memory_limit_gb: float = Field(default=4.0, ge=0.0)
    """Sets whose decoded pixels take at most this much are held in memory."""

    @field_validator("track")
    @classmethod
    def _known_trackers(cls, value: str) -> str:
        return known_list(value, TRACKERS)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``track``."""
        return listed(self.track)


class TrainOptions(
    RunningOptions,
    RegularisationOptions,
    ScheduleOptions,
    ModelOptions,
    SemiSupervisedOptions,
    TextOptions,
    DataOptions,
):
    """All of them; fields come in the order data, text, unlabelled, model, schedule, regularisation, running."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.compile and self.fsdp:
            raise ConfigError("--compile does not go with --fsdp: leave one of them out.")
        return self

    @property
    def resolved(self) -> ResolvedOptions:
        """These options, none of which is left open: as ``training.auto.choose`` and the record of a run give them."""
        return cast("ResolvedOptions", self)


class ResolvedOptions(TrainOptions):
    """The type of ``TrainOptions.resolved``."""

    model: str  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    image_size: int  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    epochs: int  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    batch_size: int  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    optimizer: str  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    lr: float  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    weight_decay: float  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
