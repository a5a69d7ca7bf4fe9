"""Run records: all that a report needs to know about a run, as plain JSON in the run folder; docs/reference/files.md.

``run.json`` is written last: its presence means that the run is finished; it has checksums of the other files.

What reports read of runs, evaluations and comparisons is typed and checked: a record that does not fit is a RunError,
or a Skipped for one run or item among many.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence, Set
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gpt4image.base.checksums import FILES, damaged, file_digest, file_facts, require_recorded
from gpt4image.base.errors import DamagedError, ModelError, RunError, first_few, nearest
from gpt4image.base.files import fingerprint, make_folder, read_json, read_json_lines, write_json
from gpt4image.base.intervals import Interval
from gpt4image.base.locks import acquire_lock
from gpt4image.base.outcome import Skipped
from gpt4image.base.secrets import hidden

RUN, CONFIG, ENVIRONMENT, METRICS = "run.json", "config.json", "environment.json", "metrics.jsonl"
DOUBTFUL, LOCK = "doubtful.json", ".lock"
TEXT_SPACE = "text_space.json"
MODEL, HEAD, CHECKPOINT = "model.safetensors", "head.safetensors", "checkpoint.safetensors"

DATA, IMAGES = "data_fingerprint", "images_fingerprint"
"""Fingerprint of all data, and of images, labels and splits only: what a run is measured on."""
OF_RUN = "run_file_sha256"  # key of an evaluation: the sha256 of run.json of the run that was measured
THRESHOLDS = "thresholds"
"""Key of run.json and metrics.jsonl: the probability of each class from which on it counts as present."""
PACKAGE = Path(__file__).resolve().parents[1]
PATIENCE = 10.0  # seconds; decoding processes of a killed run hold its lock until they end, within 5

# Options that say how a run is carried out, not what is learned: a run may be resumed with others.
NOT_IDENTITY = frozenset(
    {"out", "resume", "checkpoint_seconds", "workers", "memory_limit_gb", "device", "threads", "chosen", "notes"}
    | {"track", "images_fingerprint"}
)


class RunRecord(TypedDict):
    """The records of a finished run as they are on disk: config.json, environment.json, metrics.jsonl, run.json."""

    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    run: dict[str, Any]


def identity(config: dict[str, Any]) -> str:
    """Return the fingerprint of what a resolved configuration learns; all options count but NOT_IDENTITY."""
    return fingerprint({name: value for name, value in config.items() if name not in NOT_IDENTITY})


@contextlib.contextmanager
def writing(folder: Path) -> Generator[None]:
    """Lock a folder of runs for this process; it is made if missing, and removed if empty. RunError, OSError."""
    made = not folder.exists()
    if not made and not folder.is_dir():
        raise RunError(f"{folder} is a file; --out names a folder, which is made where there is none.")
    make_folder(folder)
    advice = "wait until it is done or stop it, then give the same command again, or give another --out"
    lock = acquire_lock(folder / LOCK, PATIENCE, lambda who: RunError(f"{folder}: {who} trains here; {advice}."))
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def start(run_dir: Path, record: dict[str, Any], facts: dict[str, Any], *, resume: bool) -> None:
    """Write configuration and environment of a new run, or check that a run in the folder may go on. Raises RunError.

    ``record`` has the resolved options and the keys arm, chosen and data_fingerprint; ``facts`` are of the environment.
    """
    if resume and has_begun(run_dir):
        require_same(run_dir, record)
        return
    require_new(run_dir)
    write_json(run_dir / ENVIRONMENT, environment(**facts))
    write_json(run_dir / CONFIG, record)


def finish(run_dir: Path, record: dict[str, Any]) -> None:
    """Write run.json: ``record``, with the checksums of the weights and of the other records of training."""
    weights = (path for pattern in ("*.safetensors", "*/*.safetensors") for path in run_dir.glob(pattern))
    kept = (path for path in weights if path.name != CHECKPOINT and not path.name.startswith("."))
    names = [name for name in (CONFIG, ENVIRONMENT, METRICS, TEXT_SPACE) if (run_dir / name).is_file()]
    names += sorted(path.relative_to(run_dir).as_posix() for path in kept)
    write_json(run_dir / RUN, {**record, FILES: file_facts(run_dir, names)})


def require_new(run_dir: Path) -> None:
    """Raise RunError if a folder holds a run, or files that a run would write over."""
    if has_begun(run_dir):
        raise RunError(f"{run_dir} already holds a run; give --resume to go on with it, or another --out.")
    if foreign := [name for name in (MODEL, HEAD, METRICS, RUN, CHECKPOINT) if (run_dir / name).exists()]:
        raise RunError(f"{run_dir} holds {first_few(foreign)}, which a run would write over; give another --out.")


def require_same(run_dir: Path, record: dict[str, Any]) -> None:
    """Raise RunError if an option of ``record``, except NOT_IDENTITY, or the data differ from the run in a folder."""
    saved = read_config(run_dir)
    differ = sorted(name for name in record.keys() - NOT_IDENTITY if saved.get(name) != record[name])
    if differ == [DATA]:
        raise RunError(
            f"{run_dir} holds a run of other data: the images, labels or texts that it reads have changed since it "
            "began. Bring back those, with the same --memory-limit-gb if pictures are broken; or give another --out."
        )
    if differ := [name for name in differ if name != DATA]:
        was = "; ".join(f"{name}: {saved.get(name)!r} there, {record[name]!r} now" for name in differ[:5])
        raise RunError(f"{run_dir} holds a run of another configuration ({was}); give another --out.")


def has_begun(run_dir: Path) -> bool:
    """Return whether a run has begun in a folder, finished or not."""
    return (run_dir / CONFIG).is_file()


def is_finished(run_dir: Path) -> bool:
    """Return whether a run folder holds a finished run."""
    return (run_dir / RUN).is_file()


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the options of a run that has begun. Raises RunError."""
    return _read_record(run_dir / CONFIG, {"data", "task", "arm", "chosen"}, tables={"chosen"})


def read_run(run_dir: Path) -> RunRecord:
    """Return the records of a finished run; ``load_run`` also checks what is in them. Raises RunError."""
    if not run_dir.is_dir():
        what = "is a file, no run" if run_dir.exists() else "does not exist"
        raise RunError(f"{run_dir} {what}; give the --out folder of `gpt4image train`.")
    if not is_finished(run_dir):
        inside = next((inside for inside in run_dir.glob("*/") if is_finished(inside)), None)
        advice = "it is no run folder" if inside is None else f"give {inside}"
        advice = "finish it with `gpt4image train ... --resume`" if has_begun(run_dir) else advice
        raise RunError(f"{run_dir} holds no finished run ({RUN} is missing): {advice}.")
    run = _read_record(run_dir / RUN, {"set_aside", "data"}, tables={"data"})
    for name in (CONFIG, ENVIRONMENT, METRICS):
        require_recorded(run_dir, name, run)
    metrics = read_json_lines(run_dir / METRICS)
    if not metrics:
        raise RunError(damaged(run_dir / METRICS, "it is empty"))
    return {
        "config": read_config(run_dir),
        "environment": _read_record(run_dir / ENVIRONMENT, set()),
        "metrics": metrics,
        "run": run,
    }


def require_model(path: Path) -> None:
    """Refuse a path at which no model can be. Raises ModelError."""
    if not (path.is_dir() or path.is_file()):
        problem = "is no regular file" if path.exists() else "does not exist"
        raise ModelError(f"{path} {problem}; give a run folder, or what `gpt4image export` wrote.")


def require_predicting(run_dir: Path) -> None:
    """Refuse a run whose model predicts nothing. Raises RunError."""
    if read_config(run_dir)["task"] == "pretrain":
        raise RunError(
            f"{run_dir} was trained with --task pretrain, so it predicts nothing. Fine-tune its weights: `gpt4image "
            f"train --data SPEC --init {run_dir / MODEL} --out DIR`, with --freeze all for a linear probe."
        )


def _read_record(path: Path, needed: set[str], *, tables: Set[str] = frozenset()) -> dict[str, Any]:
    """Return a record that has the keys ``needed``, and tables under the keys ``tables``. Raises RunError."""
    record = read_json(path)
    is_whole = isinstance(record, dict) and record.keys() >= needed
    if not is_whole or not all(isinstance(record[name], dict) for name in tables & record.keys()):
        raise RunError(damaged(path, "it does not hold what a stage writes"))
    return record


def recorded_file(run_dir: Path, name: str = MODEL) -> Path:
    """Return a file of a finished run, such as its weights, compared to its checksum in run.json. DamagedError."""
    require_recorded(run_dir, name, _read_record(run_dir / RUN, set()), largest=math.inf)
    return run_dir / name


def evaluation_facts(run_dir: Path, files: Sequence[str]) -> dict[str, Any]:
    """Return what an evaluation keeps of the run that it measured, and of its files, to tell it from others."""
    return {OF_RUN: file_digest(run_dir / RUN), FILES: file_facts(run_dir, files)}


def read_evaluation(path: Path) -> Any:
    """Return the record of a split. Raises DamagedError: it is damaged, or of another run than that of its folder."""
    record = read_json(path)
    run = path.with_name(RUN)
    if not isinstance(record, dict) or not run.is_file() or record.get(OF_RUN) != file_digest(run):
        raise DamagedError(damaged(path, f"it is of another run than {run}"))
    return record


def class_names(run_dir: Path) -> tuple[str, ...]:
    """Return the K class names of a finished run, in the order of its logits. Raises RunError."""
    classes: Any = read_run(run_dir)["run"].get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise RunError(damaged(run_dir / RUN, "its classes are no list of names"))
    return tuple(classes)


def require_classes(run_dir: Path, classes: Sequence[str]) -> None:
    """Raise RunError if the classes of a dataset are not those of a finished run, in the order of its predictions."""
    own = class_names(run_dir)
    if tuple(classes) != own:
        place = next((k for k, (its, given) in enumerate(zip(own, classes, strict=False)) if its != given), None)
        difference = "" if place is None else f"class {place} is {own[place]!r} there and {classes[place]!r} here; "
        raise RunError(
            f"{run_dir} was trained on other classes than the dataset has: {difference}it has {len(own)}, the dataset "
            f"{len(classes)}. Give a dataset with the classes of the run, or a run of this dataset."
        )


def read_skipped(run_dir: Path) -> tuple[Skipped, ...]:
    """Return the images that a finished run skipped."""
    return tuple(Skipped(**item) for item in read_json(run_dir / RUN)["set_aside"])


def environment(**facts: Any) -> dict[str, Any]:
    """Return versions, machine, commit and command, plus ``facts`` (device, precision, ...)."""
    versions = {name: metadata.version(name) for name in ("gpt4image", "torch", "torchvision", "timm", "numpy")}
    return {
        "python": platform.python_version(),
        **versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        **_commit(),
        "command": command(),
        **facts,
    }


def command() -> str:
    """Return the command line of this process without its secrets; empty if it is another program's."""
    program = Path(sys.argv[0])
    ours = program.name == "gpt4image" or program == PACKAGE / "__main__.py"
    return shlex.join(["gpt4image", *map(hidden, sys.argv[1:])]) if ours else ""


@functools.cache
def cpu_name() -> str:
    """Return the processor's name and the vector extensions that decide which precision is fast."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())} ({', '.join(flags) or 'no vector extensions'})"


@functools.cache
def _commit() -> dict[str, Any]:
    """Return commit and dirty flag of the package's own checkout; both None if it is installed from a wheel."""
    folder = PACKAGE.parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if (folder / ".git").exists():
            return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    return {"commit": None, "dirty": None}


COMPARISON, DEMO = "comparison.json", "demo.json"
REPORTED = ("test", "val")  # the split whose evaluation a report shows: the first one there is
FEW_SEEDS = 3  # fewer seeds than this are too few to test a difference
FEW_IMAGES = 20  # with fewer validation images no curve of their score is drawn: one image moves it by 5 points or more


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
    """Metrics of one split: ``scores`` has all by name, ``metric`` is the primary one, ``ci95`` intervals of some.

    ``confused`` has (class, other class, images of the first taken for the second); None where images have several.
    """

    split: str
    images: int
    labelled: int
    metric: str
    titles: dict[str, str]
    class_metric: str = "accuracy"
    scores: dict[str, float]
    ci95: dict[str, Interval] = Field(default_factory=dict)
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
        if not isinstance(record, dict) or not isinstance(record.get("titles"), dict):
            return record
        scores = {name: record[name] for name in record["titles"] if record.get(name) is not None}
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
    def held_out(self) -> int:
        """Validation images with a label."""
        return self.run["data"]["val_labelled"]


T = TypeVar("T")


def checked(path: Path, make: Callable[[], T]) -> T:
    """Return ``make()``; whatever is unreadable or malformed in ``path`` becomes a RunError that says where."""
    try:
        return make()
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a record ({_first(error)}); make it again.") from None


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    detail = error.errors()[0]
    return ": ".join([".".join(map(str, detail["loc"])), detail["msg"]]).removeprefix(": ")


def load_run(folder: Path) -> Run:
    """Read a finished run and its evaluation of the test split, or else of the validation split. Raises RunError."""
    records = checked(folder, lambda: read_run(folder))
    evaluations = (folder / f"evaluation-{split}.json" for split in REPORTED)
    evaluation = next(
        (checked(path, functools.partial(read_evaluation, path)) for path in evaluations if path.is_file()), None
    )
    return checked(folder, lambda: Run.model_validate({"folder": folder, "evaluation": evaluation, **records}))


def require_recorded_folder(folder: Path) -> None:
    """Refuse a folder without the record of a run or of a comparison. Raises RunError."""
    if not ((folder / COMPARISON).is_file() or is_finished(folder) or has_begun(folder)):
        commands = "`gpt4image compare`, `gpt4image demo` or `gpt4image train`"
        raise RunError(f"{folder} holds neither {COMPARISON} nor {RUN}; give a folder that {commands} has written.")


def load_comparisons(folder: Path) -> dict[str, Comparison]:
    """Read the comparisons of a folder by name; a single one has the empty name. Raises RunError: it is malformed."""
    path = folder / COMPARISON
    return checked(path, lambda: comparisons_in(_read_record(path, set(), tables={"comparisons"})))


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
