"""Train a model on its labels, with or without help from text. The loop is in loop.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.base.checksums import file_digest
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.files import fingerprint
from gpt4image.base.progress import LINE_SECONDS, progress_bar, say
from gpt4image.config import TrainConfig
from gpt4image.config.results import Epoch, TrainResult
from gpt4image.parallel import processes
from gpt4image.parallel.devices import choose_device, cpu_threads, device_name
from gpt4image.tasks.base import Task
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.thresholds import USUAL
from gpt4image.training.prepare import Prepared, prepare
from gpt4image.training.teacher import with_teacher
from gpt4image.training.tracking import MayStop, require_trackers, tracked

FINISHED = (
    "This run was finished before, and nothing was trained now. Images, labels and texts were not read again: whether "
    "they have changed since is not known."
)
OnStep = Callable[[int, int, str], None]


def train(
    config: TrainConfig, task: Task | None = None, on_epoch: Callable[[Epoch], bool | None] = lambda _epoch: None
) -> TrainResult:
    """Train one run into ``config.out``.

    Args:
        config: options.
        task: what to train for, where it is not one of the registry; ``config.task`` names it otherwise.
        on_epoch: is told each epoch, in the first process; where it returns False, training ends.

    Raises:
        ConfigError, DataError, TableError, ModelError, RunError: before training starts.
        TrainingError: the loss is not finite.
    """
    from gpt4image.training.frozen import with_features
    from gpt4image.training.loop import tidy

    # The folder is held from the start, so that one that cannot be written to is known before images are read.
    with processes.joined(choose_device(config.device)), cpu_threads(config.threads), contextlib.ExitStack() as held:
        processes.by_first(lambda: held.enter_context(runs.writing(config.out)))
        ready = processes.together(lambda: _prepared(config, task), first_ahead=True)
        if ready is not None:
            _require_same_data(ready)
            _train(with_features(_taught(ready)), on_epoch)
        processes.by_first(lambda: tidy(config.out))
        return processes.together(lambda: _outcome(config.out, finished=ready is None))


def _prepared(config: TrainConfig, task: Task | None) -> Prepared | None:
    """Return what the run reads and its options; None where it is finished."""
    if config.text_labels is None and config.label_trust is not None:
        raise ConfigError(
            "--label-trust: how targets are made of text labels, of which there are none; give --text-labels."
        )
    require_trackers(config.trackers)
    if config.resume and runs.has_begun(config.out):
        config = _as_before(config)
        if runs.is_finished(config.out):
            runs.require_same(config.out, config.model_dump(mode="json"))
            return None
    else:
        runs.require_new(config.out)
    _tell(f"reading {config.data} and decoding its images")
    return prepare(config, splits=("train", "val"), task=task, targets=True)


def _require_same_data(ready: Prepared) -> None:
    """Refuse processes that read other images, labels or texts than the first one, as on machines with other files."""
    first = processes.from_first(ready.fingerprint)

    def check() -> None:
        if ready.fingerprint != first:
            raise DataError(
                f"this machine reads other images, labels or texts from {ready.config.data} than the first process: "
                "all machines must see the same files."
            )

    processes.together(check)


def _taught(ready: Prepared) -> Prepared:
    """Return the run with what ``--teacher`` predicts, where it is given; its weights tell the data from others."""
    teacher = ready.config.teacher
    if teacher is None:
        return ready
    data = with_teacher(ready.data, teacher)  # which compares the weights with their record
    return replace(ready, data=data, fingerprint=fingerprint([ready.fingerprint, file_digest(teacher / runs.MODEL)]))


def _tell(text: str) -> None:
    if processes.rank() == 0:
        say(text)


def _train(ready: Prepared, told: Callable[[Epoch], bool | None]) -> None:
    from gpt4image.training import announce

    config, left = ready.config, announce.time_left()
    _tell(announce.block(ready))
    if config.compile:
        _tell("compiling the model: the first step may take minutes")
    with progress_bar(quiet=processes.rank() > 0) as bar:
        task = bar.add_task("train", total=None, note="")

        def on_step(step: int, steps: int, note: str) -> None:
            bar.update(task, completed=step, total=steps, note=note)
            if estimate := left(step, steps):
                _tell(f"{'left':10}{estimate}")

        shown, held_out = [float("-inf")], int(ready.data.labelled[ready.data.indices("val")].sum())

        def on_epoch(row: Mapping[str, Any]) -> bool | None:
            if processes.rank() > 0:
                return None
            now = time.monotonic()
            if row["epoch"] == config.epochs or now - shown[0] >= LINE_SECONDS:
                shown[0] = now
                announce.tell_epoch(row, config.epochs, ready.data.task, held_out)
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
    on_epoch: MayStop = lambda _row: None,
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
    facts = {
        "device": device_name(choose_device(config.device)),
        "precision": config.precision,
        "memory_format": config.memory_format,
        "threads": torch.get_num_threads(),
        "processes": processes.count(),
    }
    processes.by_first(lambda: runs.start(out, record, facts, resume=resume))
    with tracked(config.trackers, out, record) as track:

        def after_epoch(row: Mapping[str, Any]) -> bool | None:
            track(row)
            return on_epoch(row)

        seconds = config.checkpoint_seconds
        measured = fit(trainer, out, on_step=on_step, on_epoch=after_epoch, checkpoint_seconds=seconds)
    if isinstance(trainer.model, Aligner) and (table := config.embeddings) is not None:
        processes.by_first(lambda: write_text_space(out, table))
    finished = {"status": "finished", **measured, **data_facts(ready)}
    processes.by_first(lambda: runs.finish(out, finished))


def data_facts(ready: Prepared) -> dict[str, Any]:
    """Return what a run record holds of its data: class names, images per split, those with labels, texts, targets.

    Images that could not be decoded do not count in the splits that the run read.
    """
    data = ready.data.without_met()
    train = data.indices("train")
    read = {str(split): len(data.indices(split)) for split in set(data.image_set.splits)}
    return {
        "classes": list(data.classes),
        "data": {
            "spec": data.image_set.spec,
            **ready.sizes,
            **read,
            "classes": len(data.classes),
            "labelled": int(data.labelled[train].sum()),
            "val_labelled": int(data.labelled[data.indices("val")].sum()),
            "described": int(data.described[train].sum()),
            "with_target": int(data.has_target(train).sum()),
        },
    }


def _as_before(config: TrainConfig) -> TrainConfig:
    """Return the options with what the interrupted run had chosen, so that a resumed run chooses nothing anew."""
    saved = runs.read_config(config.out)
    given = {name for name in config.model_fields_set if getattr(config, name) not in (None, "auto", {})}
    chosen = saved.get("chosen", {}).keys() & TrainConfig.model_fields.keys()
    return config.model_copy(update={name: saved[name] for name in chosen - given})


def _decision(record: runs.RunRecord) -> str | None:
    """Return from which probability on a class counts as present, where an image may have several."""
    if record["config"]["task"] != MultiLabel.name:
        return None
    if runs.THRESHOLDS not in record["run"]:
        return f"{USUAL} for each class, because there is no validation image"
    unlabelled = record["metrics"][-1]["val"] is None
    by = " by the model's own probabilities, because none has a label" if unlabelled else ""
    return f"one per class, chosen on the validation images{by}"


def _outcome(out: Path, *, finished: bool) -> TrainResult:
    """Return what a run came to; ``finished`` where it was made before."""
    record = runs.read_run(out)
    facts, last = record["run"], record["metrics"][-1]["val"]
    # Of the loss there is none: the curves show it.
    val = {name: round(value, 4) for name, value in (last or {}).items() if name != "loss"}
    held_out = facts["data"].get("val_labelled", facts["data"]["val"])  # runs of earlier versions do not tell
    notes = [*record["config"]["notes"], *([FINISHED] if finished else [])]
    return TrainResult(
        path=out,
        chosen=record["config"]["chosen"],
        train_images=facts["data"]["train"],
        val_images=facts["data"]["val"],
        test_images=facts["data"]["test"],
        classes=facts["data"]["classes"],
        labelled=facts["data"]["labelled"],
        described=facts["data"]["described"],
        val=val,
        counts={f"val_{name}": held_out for name in val},
        thresholds=_decision(record),
        notes=" ".join(notes) or None,
        seconds=facts["seconds"],
        images_per_second=facts["images_per_second"],
        skipped=runs.read_skipped(out),
    )
