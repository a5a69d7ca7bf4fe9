"""The command that follows another one, with its paths, as the command line prints it."""

import contextlib
import itertools
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.artifacts.stage_records import RECORD, StageRecords
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.secrets import hidden
from gpt4image.commands import COMMANDS
from gpt4image.config import DistillConfig
from gpt4image.config.distilling import TARGETS
from gpt4image.options import command_line

Step = tuple[str, Mapping[str, Any]]
"""Name of a command, and its options by field name."""
BEYOND_TIMM = ("detection", "segmentation", "video")
"""Tasks whose models timm does not load."""
NEW_PHOTOS = "new-photos"  # stands for the user's own


def next_step(name: str, options: Any, result: Any) -> str:
    """Return the command to give after one that had ``options`` and ``result``; "" where none is known."""
    if result.next:
        return result.next
    step = None
    with contextlib.suppress(Gpt4ImageError, OSError):  # what was done is done, even if what comes next is not known
        step = _NEXT[name](options, result) if name in _NEXT else None
    if isinstance(step, Path):
        return f"python -m webbrowser {shlex.quote(str(step))}"
    return hidden(command_line(step[0], COMMANDS[step[0]].options, step[1])) if step else ""


def _after_describe(options: Any, result: Any) -> Step:
    if options.dry_run:
        return "describe", {**dict(options), "dry_run": False, "billed": None}
    useless = result.rejected and not (result.described or result.already_described)
    if useless or (options.limit is not None and result.stopped_by == "limit"):  # a sample, to be looked at
        page = _new(options.store.with_suffix(".html"))
        return "inspect", {"store": options.store, "data": options.data, "page": page}
    return _encode(options.store) if "description" in options.ask else _label(options.store, options.data)


def _encode(store: Path) -> Step:
    return "encode", {"store": store, "out": store.with_suffix(".emb")}


def _after_encode(options: Any, _: Any) -> Step:
    with DescriptionStore(options.store) as store:
        return _label(options.store, store.dataset, options.out)


def _label(store: Path, data: str | None, embeddings: Path | None = None) -> Step:
    """Return the command that makes targets of all that a store has: answers, and descriptions if they are encoded."""
    with DescriptionStore(store) as opened:
        asked = {part for prompt in opened.prompts() for part in prompt.ask}
    boxes = "boxes" in asked and not {"class", "tags"} & asked
    out = _new((embeddings or store).with_name("boxes.parquet" if boxes else TARGETS))
    answers = {"answers": store} if asked - {"description"} else {}
    task = {"task": "detection"} if boxes else {}
    return "label", {"data": data or "SPEC", "embeddings": embeddings, **answers, **task, "out": out}


def _after_label(options: Any, result: Any) -> Step:
    splits = {key: getattr(options, key) for key in ("val_fraction", "test_fraction")}
    aligned = {"embeddings": options.embeddings} if result.teacher_boxes is not None else {}
    run = _new(options.out.with_name("run"))
    return "train", {"data": options.data, "targets": options.out, **aligned, "out": run, **splits}


def _after_review(options: Any, result: Any) -> Step | None:
    """Return how the labels join all that was known before: the same `distill` again, or `label`; else `train`."""
    if not result.labelled:
        return None
    data, classes = f"manifest:{options.labels}", ",".join(result.classes or ()) or None
    given = [path for path in (options.targets, options.answers, options.embeddings) if path is not None]
    if made := next((path.parent for path in given if (path.parent / RECORD).is_file()), None):
        before = DistillConfig.model_validate(DistillConfig.changed(StageRecords(made).options))
        return "distill", {**dict(before), "data": data, "classes": before.classes or classes, "out": made}
    evidence = {"answers": options.answers, "embeddings": options.embeddings}
    if found := next(filter(None, evidence.values()), None):
        return "label", {"data": data, **evidence, "classes": classes, "out": _new(found.with_name(TARGETS))}
    return "train", {"data": data, "targets": options.targets, "out": _new(Path("run"))}


def _after_train(options: Any, result: Any) -> Step | None:
    if options.task == "pretrain":
        weights, out = str(options.out / runs.MODEL), options.out.with_name(f"{options.out.name}-tuned")
        return "train", {"data": options.data, "init": weights, "out": _new(out)}
    if result.test_images or result.val_images:
        return "evaluate", {"run_dir": options.out, "split": "test" if result.test_images else "val"}
    return _export(options.out)


def _export(folder: Path) -> Step:
    own = folder if runs.has_begun(folder) else next(path.parent for path in folder.rglob(runs.CONFIG))
    form = "onnx" if runs.read_config(own)["task"] in BEYOND_TIMM else "timm"
    return "export", {"run_dir": folder, "format": form, "out": _new(folder.with_name(f"{folder.name}-model"))}


def _predict(model: Path) -> Step:
    """Return how new photographs are predicted: of those that a model has learned from, its answers tell nothing."""
    return "predict", {"model": model, "images": (NEW_PHOTOS,), "out": _new(Path("predictions.csv"))}


def _new(path: Path) -> Path:
    others = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], others) if not each.exists())


_NEXT: Mapping[str, Callable[[Any, Any], Step | Path | None]] = {
    "demo": lambda options, _: options.out / "report.html",
    "describe": _after_describe,
    "descriptions import": lambda options, result: (
        _encode(options.store) if result.counted["descriptions"] else _label(options.store, options.data)
    ),
    "inspect": lambda options, _: options.page,
    "encode": _after_encode,
    "label": _after_label,
    "review": _after_review,
    "discover": lambda options, _: (
        "train",
        {"data": options.data, "targets": options.out / TARGETS, "out": _new(options.out.with_name("run"))},
    ),
    "train": _after_train,
    "evaluate": lambda options, _: (
        ("evaluate", {"run_dir": options.run_dir}) if options.split == "val" else _export(options.run_dir)
    ),
    "compare": lambda options, _: _export(options.out),
    "report": lambda _, result: result.path,
    "export": lambda options, _: None if options.format == "torch-export" else _predict(options.out),
    "search": lambda options, _: options.html,
    "doctor": lambda options, _: None if options.path else ("demo", {}),
}
