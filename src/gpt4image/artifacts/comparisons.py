"""Comparisons on disk: arms of one question over several seeds, the runs behind them, and optional lists of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gpt4image.artifacts.runs import RUN, Record, Run, has_begun, load_run, parsed
from gpt4image.base.errors import RunError, nearest
from gpt4image.base.files import read_json
from gpt4image.base.intervals import Interval
from gpt4image.base.outcome import Skipped

COMPARISON, DEMO = "comparison.json", "demo.json"
FEW_SEEDS = 3  # fewer seeds than this are too few to test a difference


class Gap(Record):
    """Paired difference over ``n`` seeds, as a fraction."""

    difference: float
    ci95: Interval | None = None
    p: float | None = None
    n: int

    @property
    def few(self) -> bool:
        """Whether it has too few seeds for a test."""
        return self.n < FEW_SEEDS


class Metric(Record):
    """A metric besides the primary one over the seeds of an arm."""

    test: tuple[float, ...]
    mean: float
    ci95: Interval | None = None
    against_baseline: Gap | None = None


class Arm(Record):
    """Results of an arm, or a variant of ``arm``, over seeds; ``test`` is the primary metric, ``seconds`` per run."""

    arm: str = ""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    test: tuple[float, ...]
    mean: float
    ci95: Interval | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    runs: tuple[str, ...] = ()
    description: str = ""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    absent: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_value_per_seed(self) -> Arm:
        if len(self.seeds) != len(self.test):
            raise ValueError(f"{len(self.seeds)} seeds but {len(self.test)} test values; one per seed is needed")
        return self


class OtherImages(Record):
    """Interval and p-value of a paired difference where other test images could have been drawn too, in its record."""

    ci95: Interval | None = None
    p: float | None = None


class Pair(Gap):
    """Paired difference of two arms over ``n`` common seeds, as a fraction.

    ``other_images`` is never surer than the seeds alone: the wider end and the larger p count, as in an intersection-
    union test (Berger 1982).
    """

    arm: str
    against: str
    other_images: OtherImages = OtherImages()

    @field_validator("other_images")
    @classmethod
    def _no_surer_than_seeds(cls, images: OtherImages, info: ValidationInfo) -> OtherImages:
        ci95, p = info.data.get("ci95"), info.data.get("p")
        if images.ci95 is None or images.p is None or ci95 is None or p is None:
            return images
        lows, highs = zip(images.ci95, ci95, strict=True)
        return OtherImages(ci95=(min(lows), max(highs)), p=max(images.p, p))

    @property
    def evidence(self) -> OtherImages:
        """The interval and the p-value to show first: over seeds and test images, or else over seeds."""
        return self.other_images if self.other_images.p is not None else OtherImages(ci95=self.ci95, p=self.p)


class Named(Record):
    """Flipped labels of one seed that the texts named: counts, and fractions."""

    seed: int
    flipped: int
    named: int
    precision: float | None = None
    recall: float | None = None
    average_precision: float | None = None


class Comparison(Record):
    """All arms of one question, and the pairs of arms that answer it; ``notes`` say what limits the numbers."""

    metric: str
    titles: dict[str, str] = Field(default_factory=dict)
    higher_is_better: bool = True
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    pairs: tuple[Pair, ...] = ()
    data: dict[str, Any] = Field(default_factory=dict)
    question: str = ""
    command: str = ""
    method: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubtful: tuple[Named, ...] = ()

    @model_validator(mode="after")
    def _pairs_name_arms(self) -> Comparison:
        for name in (side for pair in self.pairs for side in (pair.arm, pair.against)):
            if name not in self.arms:
                raise ValueError(f"a pair names an arm that is not there: {nearest(name, self.arms)}")
        return self

    @property
    def reference(self) -> str:
        """The arm that the others are measured against: baseline, or the first one."""
        return "baseline" if "baseline" in self.arms else next(iter(self.arms))

    def pair(self, arm: str) -> Pair | None:
        """Return the difference of ``arm`` to the reference, if it was measured."""
        return next((pair for pair in self.pairs if (pair.arm, pair.against) == (arm, self.reference)), None)


def require_recorded_folder(folder: Path) -> None:
    """Refuse a folder without the record of a run or of a comparison. Raises RunError."""
    if not ((folder / COMPARISON).is_file() or has_begun(folder)):
        commands = "`gpt4image compare`, `gpt4image demo` or `gpt4image train`"
        raise RunError(f"{folder} holds neither {COMPARISON} nor {RUN}; give a folder that {commands} has written.")


def load_comparisons(folder: Path) -> dict[str, Comparison]:
    """Read the comparisons of a folder by name; a single one has the empty name. Raises RunError: it is malformed."""
    path = folder / COMPARISON
    return {name: parsed(path, value, Comparison) for name, value in _each(read_json(path)).items()}


def comparisons_in(record: dict[str, Any]) -> dict[str, Comparison]:
    """Return the comparisons of a record (the content of comparison.json) by name; a single one has the empty name."""
    return {name: Comparison.model_validate(value) for name, value in _each(record).items()}


def _each(record: Any) -> dict[str, Any]:
    several = record.get("comparisons") if isinstance(record, dict) else None
    return several if isinstance(several, dict) else {"": record}


def load_arm_runs(folder: Path, comparison: Comparison) -> tuple[dict[str, list[Run]], list[Skipped]]:
    """Read the runs behind each arm; a run that cannot be read is skipped."""
    runs: dict[str, list[Run]] = {name: [] for name in comparison.arms}
    skipped, root = list[Skipped](), folder.resolve()
    for name, relative in ((name, relative) for name, arm in comparison.arms.items() for relative in arm.runs):
        try:
            if not (root / relative).resolve().is_relative_to(root):
                raise RunError("the run folder lies outside the comparison")
            runs[name].append(load_run(folder / relative))
        except (RunError, OSError) as error:
            skipped.append(Skipped(relative, str(error)))
    return runs, skipped
