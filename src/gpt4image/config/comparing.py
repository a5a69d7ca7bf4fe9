"""Options of the stages that gather evidence: compare, report, demo; and of doctor."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic import field_validator as check

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config.arms import ARMS
from gpt4image.config.base import StageConfig, known_list
from gpt4image.config.learning import DataOptions, RunningOptions, TrainOptions
from gpt4image.config.types import APath, JsonTable, MaybePath, Positional, Rare

COMMON = frozenset(
    {
        *DataOptions.model_fields,
        *RunningOptions.model_fields,
        *("targets", "only_described", "min_scale"),  # pixels are kept at a size that min_scale decides
        *("task", "frames", "frame_order", "frame_differences", "model", "model_args", "stem", "image_size"),
        *("epochs", "batch_size", "grad_accumulation"),
    }
) - {"select"}
"""Options that all arms of a comparison have in common: its data, its model, its budget and how it runs."""


class CompareConfig(TrainOptions):
    """Train all arms over several seeds, and measure what text adds.

    Example: gpt4image compare --data folder:photos --embeddings photos.emb --labels-per-class 10 --seeds 5 --out cmp
    """

    essential: ClassVar[frozenset[str]] = frozenset(
        {"embeddings", "answers", "labels_per_class", "labelled_images", "label_noise", "arms", "seeds", "task"}
        | {"model", "init", "image_size", "epochs", "jobs"}
    )

    out: APath
    """Folder of the comparison: run records, comparison.json and report.html."""
    seeds: int = Field(default=3, ge=1)
    """Number of seeds per arm."""
    first_seed: int = Field(default=0, ge=0, lt=2**32)
    """First of the consecutive seeds. What was chosen on seeds 0 to 4 is judged on others, from 5 on."""
    arms: str = ""
    """Comparison arms, separated by commas. Default: all that apply to the labels there are. See docs/compare.md."""
    answers: MaybePath = None
    """Store of a describer's answers (`describe --ask class`, tags or boxes), for the arms asked and fused."""
    features: Rare[str] = "none"
    """What sees the pictures beside the answers of the arm fused, as for `label`; `distill` gives what it taught by."""
    labels_per_class: int | None = Field(default=None, ge=0)
    """Labels kept per class, drawn per seed, of described images first. 0: only arms without labels."""
    labelled_images: int | None = Field(default=None, ge=1)
    """Number of masked or boxed training images kept, drawn per seed, of described images first."""
    label_noise: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of the training labels flipped to another class, drawn per seed."""
    noise_kind: Literal["uniform", "class-dependent"] = "uniform"
    """Class that a flipped label gets: any other, or one fixed other class per class, drawn per seed."""
    variants: Rare[JsonTable] = Field(default_factory=dict)
    """Extra arms with other options of train: {"NAME": {"arm": ..., OPTION: ...}}, or [variants.NAME]."""
    jobs: int | None = Field(default=None, ge=1)
    """Runs side by side. Default: one per core, or one per GPU."""

    @check("arms")
    @classmethod
    def _known_arms(cls, value: str) -> str:
        return known_list(value, ARMS)

    @property
    def seed_range(self) -> range:
        """The seeds of every arm."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @model_validator(mode="after")
    def _fits_comparing(self) -> Self:
        per_class, noise = self.labels_per_class, self.label_noise
        refused: dict[str, tuple[Any, str]] = {
            "first_seed": (self.seed_range[-1] >= 2**32, f"= {self.first_seed}: seeds end before 2**32."),
            "task": (
                self.pretraining,
                f"= {self.task} makes no predictions to compare. Compare what is fine-tuned from the weights of such "
                "runs: variants with --init FILE, see docs/pretrain.md.",
            ),
            "targets": (
                self.targets,
                "may have learned from labels that an arm must not see. Leave it out: arms that learn from an LLM make "
                "their own per seed, from the labels left.",
            ),
            "consistency": (
                self.consistency,
                "would change every arm: leave it out. The arm fixmatch has weight 1; for another one give a variant.",
            ),
            "seed": (self.seed, "is of one run, and arms run over several; --first-seed names the first of them."),
            "noise_kind": (not noise and self.noise_kind != "uniform", "needs --label-noise."),
            "labelled_images": (
                None not in (per_class, self.labelled_images),
                "and --labels-per-class both say which labels are kept: give one of them.",
            ),
            "label_noise": (noise and per_class == 0, "needs a label to flip, and --labels-per-class 0 leaves none."),
            "label_trust": (
                self.label_trust is not None and not (self.embeddings or self.answers),
                "is of descriptions: give --embeddings, too.",
            ),
            "model": (
                (self.model or "").startswith("python:"),
                "is a name, as runs are trained in processes of their own. Train a module with `train`, once per arm.",
            ),
        }
        if faults := [(name, why) for name, (wrong, why) in refused.items() if wrong]:
            raise ConfigError.of(faults)
        return self

    @check("variants")
    @classmethod
    def _known_variants(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {name: _variant(name, table) for name, table in value.items()}


def _variant(name: str, table: Any) -> dict[str, Any]:
    """Return the checked table of one variant, its options by field name."""
    if name in ARMS or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ValueError(f"{name!r} cannot name a variant: use small letters, digits, . _ and -, and no name of an arm")
    options = {key.replace("-", "_"): option for key, option in table.items()} if isinstance(table, dict) else {}
    arm = options.pop("arm", None)
    if arm not in ARMS:
        raise ValueError(f"variant {name!r} needs an arm that it is a variant of: {nearest(str(arm), ARMS)}")
    if common := sorted(options.keys() & COMMON):
        raise ValueError(f"variant {name!r}: {', '.join(common)}, which all arms have in common; give them to all")
    if unknown := sorted(options.keys() - TrainOptions.model_fields.keys()):
        raise ValueError(f"variant {name!r}: {nearest(unknown[0], TrainOptions.model_fields.keys() - COMMON)}")
    try:  # alone; whether they fit those of the comparison, such as its table, is seen when it is planned
        checked = TrainOptions.model_validate({"data": "", "embeddings": Path("_")} | options)
    except ConfigError as error:
        raise ValueError(f"variant {name!r}: {error}") from None
    return {"arm": arm} | {key: getattr(checked, key) for key in options}


class ReportConfig(StageConfig):
    """Write report.html for a run or a comparison, from its records only.

    Example: gpt4image report cmp
    """

    dir: Positional[APath]
    """Folder written by `train`, `compare` or `demo`."""


class DemoConfig(StageConfig):
    """Distill packaged photographs of clothes offline, from recorded answers of an LLM, and compare with human labels.

    Example: gpt4image demo --out demo-out
    """

    out: APath = Path("demo-out")
    """Folder of the demo: answers, embeddings, targets, runs, model, comparison.json and report.html."""
    seeds: int = Field(default=3, ge=1)
    """Number of seeds per arm."""
    jobs: int | None = Field(default=None, ge=1)
    """Runs side by side. Default: one per core."""


class DoctorConfig(StageConfig):
    """Show what is installed, which device a run would take and what is missing; or check files for damage.

    With a path, every file there is compared to its checksum: exit code 0 when all are whole, 1 when one is damaged.

    Example: gpt4image doctor run
    """

    path: Positional[MaybePath] = None
    """Store, embedding table, index, targets, run, comparison or exported model to check."""
