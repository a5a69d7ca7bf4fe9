"""Run records: all that a report needs to know about a run, as plain JSON in the run folder; docs/reference/files.md.

The manifest of the folder is written last: its presence means that the run is finished. What reports read is typed: a
record that does not fit is a RunError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpt4image.artifacts.environment import environment
from gpt4image.base.errors import ModelError, RunError, first_few
from gpt4image.base.files import damaged, fingerprint, make_folder, read_json, read_json_lines, write_json
from gpt4image.base.intervals import Interval
from gpt4image.base.locks import acquire_lock
from gpt4image.base.manifest import MANIFEST, write_manifest
from gpt4image.base.outcome import Skipped

RUN, CONFIG, ENVIRONMENT, METRICS = "run.json", "config.json", "environment.json", "metrics.jsonl"
DOUBTFUL, LOCK = "doubtful.json", ".lock"
TEXT_SPACE = "text_space.json"
MODEL, HEAD, CHECKPOINT = "model.safetensors", "head.safetensors", "checkpoint.safetensors"
KNOWN = "known.safetensors"
"""What says how well a model knows an image; a run has it where its decision can reject."""

DATA, IMAGES = "data_fingerprint", "images_fingerprint"
"""Fingerprint of all data, and of images, labels and splits only: what a run is measured on."""
DECISION = "decision"
"""Key of run.json: what the validation images decided; see ``tasks.decision``."""
PATIENCE = 10.0  # seconds; decoding processes of a killed run hold its lock until they end, within 5
REPORTED = ("test", "val")  # the split whose evaluation a report shows: the first one there is
FEW_IMAGES = 20  # with fewer validation images no curve of their score is drawn: one image moves it by 5 points or more

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
    """Write run.json, and then the manifest of everything that training wrote."""
    write_json(run_dir / RUN, record)
    patterns = ("*.json", "*.jsonl", "*.safetensors", "text_encoder/*")
    files = {path for pattern in patterns for path in run_dir.glob(pattern) if path.name[0] != "."}
    names = {path.relative_to(run_dir).as_posix() for path in files} - {CHECKPOINT, MANIFEST}
    write_manifest(run_dir / MANIFEST, sorted(names))


def require_new(run_dir: Path) -> None:
    """Raise RunError if a folder holds a run, or files that a run would write over."""
    if has_begun(run_dir):
        raise RunError(f"{run_dir} already holds a run; give --resume to go on with it, or another --out.")
    if foreign := [name for name in (MODEL, HEAD, KNOWN, METRICS, RUN, CHECKPOINT) if (run_dir / name).exists()]:
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
    return (run_dir / RUN).is_file() and (run_dir / MANIFEST).is_file()


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the options of a run that has begun. Raises RunError."""
    return _read_record(run_dir / CONFIG, "data", "task", "arm", "chosen")


def read_run(run_dir: Path) -> RunRecord:
    """Return the records of a finished run; ``load_run`` also checks what is in them. Raises RunError."""
    if not run_dir.is_dir():
        what = "is a file, no run" if run_dir.exists() else "does not exist"
        raise RunError(f"{run_dir} {what}; give the --out folder of `gpt4image train`.")
    if not is_finished(run_dir):
        inside = next((inside for inside in run_dir.glob("*/") if is_finished(inside)), None)
        advice = "it is no run folder" if inside is None else f"give {inside}"
        advice = "finish it with `gpt4image train ... --resume`" if has_begun(run_dir) else advice
        raise RunError(f"{run_dir} holds no finished run ({RUN} or {MANIFEST} is missing): {advice}.")
    return {
        "config": read_config(run_dir),
        "environment": _read_record(run_dir / ENVIRONMENT),
        "metrics": read_json_lines(run_dir / METRICS),
        "run": _read_record(run_dir / RUN, "set_aside", "data"),
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


def _read_record(path: Path, *needed: str) -> dict[str, Any]:
    """Return a record that has these keys. Raises DamagedError."""
    record = read_json(path)
    if not isinstance(record, dict) or not record.keys() >= set(needed):
        raise damaged(path, "it does not hold what a stage writes")
    return record


def class_names(run_dir: Path) -> tuple[str, ...]:
    """Return the K class names of a finished run, in the order of its logits. Raises RunError."""
    classes: Any = read_run(run_dir)["run"].get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise damaged(run_dir / RUN, "its classes are no list of names")
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


class Record(BaseModel):
    """Base of all records: unknown keys are ignored, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


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


class Calibration(Record):
    """What is stated and what is right, by groups of images: (stated, right, images); see ``tasks.calibration``."""

    bins: tuple[tuple[float, float, int], ...]


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
    calibration: Calibration | None = None

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


R = TypeVar("R", bound=Record)


def parsed(path: Path, value: Any, kind: type[R]) -> R:
    """Return a value that was read from ``path`` as a record. Raises RunError: it does not fit."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise RunError(f"{path} cannot be read as a record ({fault_of(error)}); make it again.") from None


def fault_of(error: ValidationError) -> str:
    """Return the first fault that pydantic found, after its place."""
    detail = error.errors()[0]
    return ": ".join([".".join(map(str, detail["loc"])), detail["msg"]]).removeprefix(": ")


def load_evaluation(path: Path) -> Evaluation:
    """Read the record of a split. Raises RunError."""
    return parsed(path, read_json(path), Evaluation)


def load_run(folder: Path) -> Run:
    """Read a finished run and its evaluation of the test split, or else of the validation split. Raises RunError."""
    paths = (folder / f"evaluation-{split}.json" for split in REPORTED)
    evaluation = next((load_evaluation(path) for path in paths if path.is_file()), None)
    return parsed(folder, {"folder": folder, "evaluation": evaluation, **read_run(folder)}, Run)
