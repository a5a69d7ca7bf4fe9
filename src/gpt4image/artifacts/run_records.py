"""Runs, evaluations and comparisons as they are on disk, typed and checked; the files of a run are listed in runs.py.

Nothing in them is trusted: a record that does not fit is a RunError, or a Skipped for one run or item among many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gpt4image.artifacts.runs import RUN, has_begun, is_finished, read_evaluation, read_run
from gpt4image.base.errors import RunError, nearest
from gpt4image.base.files import read_json
from gpt4image.base.outcome import Skipped

COMPARISON, DEMO = "comparison.json", "demo.json"
REPORTED = ("test", "val")
"""The split whose evaluation a report shows: the first one there is."""
FEW_SEEDS = 3
"""Fewer seeds than this are too few to test a difference."""
FEW_IMAGES = 20
"""With fewer validation images no curve of their score is drawn: one image moves it by 5 points or more."""
Interval = tuple[float, float]


class Record(BaseModel):
    """Base of all records: unknown keys are ignored, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


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


class Epoch(Record):
    """One line of metrics.jsonl: parts of the training loss by name, and scores on the validation split by metric."""

    epoch: int
    losses: dict[str, float] = Field(default_factory=dict)
    val: dict[str, float | None] | None = None

    @model_validator(mode="before")
    @classmethod
    def _gather_losses(cls, row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        found = {name.removesuffix("_loss"): row[name] for name in row if str(name).endswith("_loss")}
        return row | {"losses": {name: value for name, value in found.items() if value is not None}}


class Evaluation(Record):
    """Metrics of one split: ``scores`` has all by name, ``metric`` is the primary one.

    ``confused`` has (class, other class, images of the first taken for the second); None where images have several.
    """

    split: str
    images: int
    labelled: int
    metric: str
    titles: dict[str, str] = Field(default_factory=dict)
    class_metric: str = "accuracy"
    scores: dict[str, float]
    classes: tuple[str, ...]
    support: tuple[int, ...]
    per_class: tuple[float | None, ...]
    confused: tuple[tuple[int, int, int], ...] | None = None

    @property
    def score(self) -> float | None:
        """The primary metric; None where no image has a label."""
        return self.scores.get(self.metric)

    @model_validator(mode="before")
    @classmethod
    def _gather_scores(cls, record: Any) -> Any:
        if not isinstance(record, dict):
            return record
        scores = {name: record[name] for name in record.get("titles", ()) if record.get(name) is not None}
        return {**record, "scores": scores}

    @model_validator(mode="after")
    def _one_entry_per_class(self) -> Evaluation:
        count = len(self.classes)
        if {len(self.support), len(self.per_class)} != {count}:
            raise ValueError(f"{count} classes, but support or per_class have other sizes")
        if any(not 0 <= number < count for truth, taken, _ in self.confused or () for number in (truth, taken)):
            raise ValueError(f"confused names a class that is none of the {count}")
        return self


class Run(Record):
    """Everything recorded about one finished run."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: tuple[Epoch, ...]
    run: dict[str, Any]
    evaluation: Evaluation | None = None

    @property
    def held_out(self) -> int | None:
        """Validation images with a label, or all of them where that is not recorded; None where neither is."""
        data = self.run.get("data", {})
        return data.get("val_labelled", data.get("val"))


T = TypeVar("T")


def checked(path: Path, make: Callable[[], T]) -> T:
    """Return ``make()``; whatever is unreadable or malformed in ``path`` becomes a RunError that says where."""
    try:
        return make()
    except (OSError, ValueError, AttributeError, TypeError) as error:  # the last two of a list for a table, say
        raise RunError(f"{path} cannot be read as a record ({_first(error)}); make it again.") from None


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    detail = error.errors()[0]
    return ": ".join([".".join(map(str, detail["loc"])), detail["msg"]]).removeprefix(": ")


def load_run(folder: Path) -> Run:
    """Read a finished run and its evaluation of the test split, or else of the validation split. Raises RunError."""
    records = checked(folder, partial(read_run, folder))
    evaluations = (folder / f"evaluation-{split}.json" for split in REPORTED)
    evaluation = next((checked(path, partial(read_evaluation, path)) for path in evaluations if path.is_file()), None)
    return checked(folder, lambda: Run.model_validate({"folder": folder, "evaluation": evaluation, **records}))


def require_recorded_folder(folder: Path) -> None:
    """Refuse a folder without the record of a run or of a comparison. Raises RunError."""
    if not ((folder / COMPARISON).is_file() or is_finished(folder) or has_begun(folder)):
        commands = "`gpt4image compare`, `gpt4image demo` or `gpt4image train`"
        raise RunError(f"{folder} holds neither {COMPARISON} nor {RUN}; give a folder that {commands} has written.")


def load_comparisons(folder: Path) -> dict[str, Comparison]:
    """Read the comparisons of a folder by name; a single one has the empty name. Raises RunError: it is malformed."""
    path = folder / COMPARISON
    return checked(path, lambda: comparisons_in(read_json(path)))


def comparisons_in(record: dict[str, Any]) -> dict[str, Comparison]:
    """Return the comparisons of a record (the content of comparison.json) by name; a single one has the empty name."""
    several = record.get("comparisons") or {"": record}
    return {name: Comparison.model_validate(value) for name, value in several.items()}


def load_arm_runs(folder: Path, comparison: Comparison) -> tuple[dict[str, list[Run]], list[Skipped]]:
    """Read the runs behind each arm; a run that cannot be read is skipped."""
    runs: dict[str, list[Run]] = {name: [] for name in comparison.arms}
    skipped, root = list[Skipped](), folder.resolve()
    for name, relative in ((name, relative) for name, arm in comparison.arms.items() for relative in arm.runs):
        try:
            if not (root / relative).resolve().is_relative_to(root):
                raise RunError("the run folder lies outside the comparison")
            runs[name].append(load_run(folder / relative))
        except RunError as error:
            skipped.append(Skipped(relative, str(error)))
    return runs, skipped


R = TypeVar("R", bound=Record)


def load_items(path: Path, kind: type[R]) -> tuple[list[R], list[Skipped]]:
    """Read an optional file of one record or of a list of them; what cannot be read is skipped with its reason."""
    if not path.is_file():
        return [], []
    items, skipped = list[R](), list[Skipped]()
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        return [], [Skipped(path.name, str(error))]
    for number, value in enumerate(content if isinstance(content, list) else [content]):
        try:
            items.append(kind.model_validate(value))
        except ValidationError as error:
            skipped.append(Skipped(f"{path.name}[{number}]", _first(error)))
    return items, skipped
