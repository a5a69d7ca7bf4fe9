"""Train a model on its labels, with or without help from text. The loop is in loop.py."""

import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, MissingExtraError
from gpt4image.base.files import fingerprint
from gpt4image.base.intervals import of_shares
from gpt4image.base.progress import LINE_SECONDS, progress_bar, say
from gpt4image.config import TrainConfig
from gpt4image.config.learning import ResolvedOptions
from gpt4image.config.results import Epoch, TrainResult
from gpt4image.parallel import processes
from gpt4image.parallel.devices import choose_device, cpu_threads, device_name
from gpt4image.tasks.base import Task
from gpt4image.tasks.multilabel import USUAL, MultiLabel
from gpt4image.training import auto
from gpt4image.training.prepare import Prepared, prepare

FINISHED = "This run was finished before, and nothing was trained now; its images were not read again."
PROJECT = "gpt4image"  # of the runs in trackers
FEW_TO_FINE_TUNE = 5
"""Labels per class. With 4, labels only reached 29 and 16 % fine-tuned, 45 and 63 % frozen (CIFAR-10 and clothes)."""
LINEAR_KEPT = (
    "The linear classifier on the features as they were is kept: on images held out, it is better than what the last "
    "stages learned."
)
GAIN = "on photographs of clothes, 4 to 7 points better than --freeze all"
"""docs/research/log/2026-12-03-student.md, row 1"""
OnStep = Callable[[int, int, str], None]
Row = Mapping[str, Any]
"""A row of metrics.jsonl."""


def train(config: TrainConfig, task: Task | None = None) -> TrainResult:
    """Train one run into ``config.out``.

    ``task`` is what to train for, where it is not one of the registry. Raises TrainingError: the loss is not finite.
    """
    from gpt4image.training.loop import tidy
    from gpt4image.training.run_model import with_features

    # The folder is held from the start, so that one that cannot be written to is known before images are read.
    with processes.joined(choose_device(config.device)), cpu_threads(config.threads), contextlib.ExitStack() as held:
        processes.on_rank0(lambda: held.enter_context(runs.writing(config.out)))
        ready = processes.on_all_ranks(lambda: _prepared(config, task), first_ahead=True)
        if ready is not None:
            first = processes.broadcast(ready.fingerprint)
            own, data = ready.fingerprint, ready.config.data
            processes.on_all_ranks(lambda: _require_same(own == first, data))
            _tell(block(ready))
            _train(with_features(ready), config.on_epoch or (lambda _: None))
        processes.on_rank0(lambda: tidy(config.out))
        return processes.on_all_ranks(lambda: _outcome(config.out, finished=ready is None))


def _prepared(config: TrainConfig, task: Task | None) -> Prepared | None:
    """Return what the run reads and its options; None where it is finished."""
    if config.targets is None and config.label_trust is not None:
        raise ConfigError("--label-trust is about text labels: give --targets.")
    check_trackers(config.trackers)
    if config.resume and runs.has_begun(config.out):
        # What the interrupted run had chosen is not chosen anew.
        saved = runs.read_config(config.out)
        given = {name for name in config.model_fields_set if getattr(config, name) not in (None, "auto", {})}
        chosen = saved.get("chosen", {}).keys() & TrainConfig.model_fields.keys()
        config = config.model_copy(update={name: saved[name] for name in chosen - given})
        if runs.is_finished(config.out):
            runs.require_same(config.out, config.model_dump(mode="json"))
            return None
    else:
        runs.require_new(config.out)
    _tell(f"reading {config.data} and decoding its images")
    return prepare(config, splits=("train", "val"), task=task, targets=True)


def _require_same(same: bool, spec: str) -> None:
    if not same:
        raise DataError(f"this machine reads other files from {spec} than the first process: share one folder.")


def _tell(text: str) -> None:
    if processes.rank() == 0:
        say(text)


def _train(ready: Prepared, told: Callable[[Epoch], bool | None]) -> None:
    config, primary, shown = ready.config, ready.data.task.primary, [float("-inf")]
    held_out = int(ready.data.labelled[ready.data.indices("val")].sum())
    with progress_bar(quiet=processes.rank() > 0) as bar:
        row_of_bar = bar.add_task("train", total=None, note="")

        def on_step(step: int, steps: int, note: str) -> None:
            bar.update(row_of_bar, completed=step, total=steps, note=note)

        def on_epoch(row: Row) -> bool | None:
            if processes.rank() > 0:
                return None
            now = time.monotonic()
            if row["epoch"] == config.epochs or now - shown[0] >= LINE_SECONDS:
                shown[0] = now
                score = (row["val"] or {}).get(primary.name)
                val = "" if score is None else f"  val {primary.title} {score:.4f} on {held_out:,} images"
                say(f"epoch {row['epoch']}/{config.epochs}  loss {row['loss']:.3f}{val}  {row['seconds']:.0f} s")
            losses = {name.removesuffix("_loss"): row[name] for name in row if name.endswith("_loss")}
            facts = {name: row[name] for name in ("epoch", "step", "loss", "val", "lr", "seconds")}
            return told(Epoch(**facts, epochs=config.epochs, losses=losses))

        run(ready, config.out, arm="train", resume=config.resume, on_step=on_step, on_epoch=on_epoch)


def run(
    ready: Prepared,
    out: Path,
    *,
    arm: str,
    resume: bool,
    on_step: OnStep,
    on_epoch: Callable[[Row], bool | None] = lambda _row: None,
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Carry one run to its end and write its records; a run that is there is continued where ``resume`` says so."""
    import torch

    from gpt4image.models.aligner import Aligner
    from gpt4image.training.loop import fit
    from gpt4image.training.run_model import write_text_space
    from gpt4image.training.trainer import build

    config: TrainConfig = ready.config
    trainer = build(config.resolved, ready.data)
    record = config.model_dump(mode="json") | {
        "arm": arm,
        "chosen": ready.chosen,
        "notes": [*trainer.notes, *ready.notes],
        runs.DATA: ready.fingerprint,
        runs.IMAGES: ready.images,
        **extra,
    }
    machine = {
        "device": device_name(choose_device(config.device)),
        "precision": config.precision,
        "memory_format": config.memory_format,
        "threads": torch.get_num_threads(),
        "processes": processes.count(),
    }
    processes.on_rank0(lambda: runs.start(out, record, machine, resume=resume))
    with tracked(config.trackers, out, record) as track:
        pause, explain = config.checkpoint_seconds, arm == "train"
        measured = fit(trainer, out, on_step, lambda row: (track(row), on_epoch(row))[1], pause, explain=explain)
    if isinstance(trainer.model, Aligner) and (table := config.embeddings) is not None:
        processes.on_rank0(lambda: write_text_space(out, table))
    data = ready.data.without_met()
    train = data.indices("train")
    facts = {
        "spec": data.image_set.spec,
        **ready.sizes,
        **{str(split): len(data.indices(split)) for split in set(data.image_set.splits)},
        "classes": len(data.classes),
        "labelled": int(data.labelled[train].sum()),
        "val_labelled": int(data.labelled[data.indices("val")].sum()),
        "described": int(data.described[train].sum()),
        "with_target": int(data.has_target(train).sum()),
    }
    finished = {"status": "finished", **measured, "classes": list(data.classes), "data": facts}
    processes.on_rank0(lambda: runs.finish(out, finished))


def _outcome(out: Path, *, finished: bool) -> TrainResult:
    """Return what a run came to; ``finished`` where it was made before."""
    record = runs.read_run(out)
    config, facts, last = record["config"], record["run"], record["metrics"][-1]["val"]
    data = facts["data"]
    val = {name: round(value, 4) for name, value in (last or {}).items() if name != "loss"}  # the curves show it
    notes = [*config["notes"], *([FINISHED] if finished else [])]
    notes += [] if facts["kept_epoch"] else [LINEAR_KEPT]
    thresholds = None
    if config["task"] == MultiLabel.name:
        thresholds = "one per class, chosen on the validation images"
        if facts[runs.DECISION]["thresholds"] is None:
            thresholds = f"{USUAL} for each class, because there is no validation image"
        elif last is None:
            thresholds += " by the model's own probabilities, because none has a label"
    none = None
    if reject := facts[runs.DECISION]["reject"]:
        none = f"said of up to {reject['share']:.1%} of good images, by {reject['kept']:,} training images" + (
            f" and {reject['strangers']:,} that answers call so" if reject["strangers"] else ""
        )
    return TrainResult(
        path=out,
        none_of_these=none,
        chosen=config["chosen"],
        **{f"{split}_images": data[split] for split in ("train", "val", "test")},
        **{name: data[name] for name in ("classes", "labelled", "described")},
        val=val,
        counts=dict.fromkeys(val, data["val_labelled"]),
        ci95=dict(of_shares(val, data["val_labelled"])),
        thresholds=thresholds,
        notes=" ".join(notes) or None,
        seconds=facts["seconds"],
        images_per_second=facts["images_per_second"],
        skipped=runs.read_skipped(out),
    )


def block(ready: Prepared) -> str:
    """Return what a run is about to do, a line for each of images, classes, model and steps."""
    from gpt4image.training.trainer import idle_options

    data, config = ready.data, ready.config
    train = data.indices("train")
    none = np.zeros(len(data.usable), np.bool_)
    labelled, described = data.labelled[train], data.described[train]
    from_text = (none if data.from_text is None else data.from_text)[train]
    tagged = data.weak(train) & ~labelled & ~described
    by_source = {
        "labels": labelled,
        "only tags": tagged,
        "targets": from_text,
        "descriptions to align to": (none if data.text is None else data.text.described)[train],
        "without either": ~labelled & ~described & ~tagged,
    }
    if config.pretraining:
        by_source = {"with a description": described, "without a description": ~described}
    sources = ", ".join(f"{found.sum():,} {name}" for name, found in by_source.items() if found.any())
    held_out = ", ".join(f"{ready.sizes[split]:,} {split}" for split in ("val", "test") if ready.sizes[split])
    steps = max(1, len(train) // (config.batch_size * config.grad_accumulation))
    rows = {
        "train on": f"{len(train):,} images: {sources}",
        "held out": held_out or "nothing",
        "learn": f"{config.pretrain}, no label is read" if config.pretraining else "",
        "classes": "" if config.pretraining else f"{len(data.classes):,}",
        "model": f"{config.model} ({config.init}), {config.image_size} x {config.image_size} pixels",
        "learns": _learning(config.resolved, len(train)),
        "steps": f"{config.epochs:,} epochs of {steps:,} steps, {config.batch_size} images each",
    }
    notes = [("note", idle) for idle in idle_options(config.resolved, data)]
    count = (labelled | from_text).sum()
    all_learn = config.task == "classification" and config.init != "scratch" and config.freeze == "none"
    if all_learn and count <= FEW_TO_FINE_TUNE * len(data.classes):
        notes += [("note", f"all weights learn from {count:,} images; with so few, --freeze all is far better.")]
    return "\n".join(f"{name:10}{value}" for name, value in [*rows.items(), *notes] if value)


def _learning(config: ResolvedOptions, images: int) -> str:
    """Return which weights learn, and about how long that takes; "" where all do."""
    if not config.kept_stages:
        return "only the classifier, or the head" if config.freeze == "all" else ""
    what = f"what is behind the first {config.freeze} stages"
    seconds = auto.seconds_behind(config.model, config.image_size, images, config.epochs)
    return f"{what}, {about(seconds[config.kept_stages - 1])} on one thread of a CPU; {GAIN}" if seconds else what


def about(seconds: float) -> str:
    """Return a duration in the unit that a person would choose."""
    if seconds < 90:
        return "about a second" if seconds < 1.5 else f"about {round(seconds)} seconds"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers whose packages are not here; each is the extra of its name."""
    for name in names:
        if any(importlib.util.find_spec(package) is None for package in ("accelerate", name)):
            raise MissingExtraError(f"--track {name}", name)


@contextlib.contextmanager
def tracked(names: Iterable[str], out: Path, record: Row) -> Generator[Callable[[Row], None]]:
    """Show a run in trackers, through accelerate; only the first process does. What one fails at costs no run."""
    trackers: dict[str, Any] = dict.fromkeys(() if processes.rank() > 0 else names)

    def each(act: Callable[[str], Any]) -> None:
        for name in list(trackers):
            try:
                act(name)
            except Exception as error:  # noqa: BLE001  a tracker's network or disk is no reason to lose a run
                say(f"--track {name} stops: {error}")
                del trackers[name]

    each(lambda name: trackers.update({name: _started(name, out, record)}))
    try:
        yield lambda row: each(lambda name: trackers[name].log(_numbers(row), step=row["step"]))
    finally:
        each(lambda name: trackers[name].finish())


def _started(name: str, out: Path, record: Row) -> Any:
    from accelerate import PartialState, tracking

    PartialState(cpu=choose_device(record["device"]).type == "cpu")  # trackers ask it which process is the first
    title = out.name if record["arm"] == "train" else f"{record['arm']}-{out.name}"
    ours = fingerprint([str(out.resolve()), runs.identity(dict(record))])[:16]
    kind, options = {
        "tensorboard": ("TensorBoardTracker", {"logging_dir": out}),
        "wandb": ("WandBTracker", {"name": title, "dir": out, "id": ours, "resume": "allow"}),
        "mlflow": ("MLflowTracker", {"run_name": title}),
        "trackio": ("TrackioTracker", {"name": title, "resume": "allow"}),
    }[name]
    tracker: Any = getattr(tracking, kind)("tensorboard" if name == "tensorboard" else PROJECT, **options)
    tracker.start()
    plain = {key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in record.items()}
    tracker.store_init_configuration(plain)
    return tracker


def _numbers(row: Row) -> dict[str, float]:
    """Return the numbers of a row, those of the validation split as ``val/NAME``."""
    val = {f"val/{name}": value for name, value in (row["val"] or {}).items()}
    return {key: value for key, value in {**row, **val}.items() if isinstance(value, int | float)}
