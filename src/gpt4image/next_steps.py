"""The files that a command has written, and the command to give next, with its paths."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.outcome import Outcome
from gpt4image.base.secrets import hidden
from gpt4image.config.distilling import RUN, TARGETS

Step = tuple[str, Mapping[str, Any]]
"""Name of a command, and its options by field name."""
BEYOND_TIMM = ("detection", "segmentation", "video")
"""Tasks whose models timm does not load."""
OF_ONNX = ("onnx", "onnxscript", "onnxruntime")
NEW_PHOTOS = "new-photos"  # stands for the user's own
READS_ONLY = ("doctor",)


def with_next(name: str, outcome: Outcome, config: Any, *, python: bool) -> Outcome:
    """Return an outcome that names what was written and what to do next, as ``python`` or for a shell."""
    step = None
    with contextlib.suppress(Gpt4ImageError, OSError):  # what was done is done, even if what comes next is not known
        step = _NEXT[name](config, outcome) if name in _NEXT else None
    if isinstance(step, Path):
        said = f"python -m webbrowser {shlex.quote(str(step))}"
    else:
        said = "" if step is None else (call if python else command)(*step)
    wrote = () if name in READS_ONLY or outcome.path is None else (outcome.wrote or (outcome.path,))
    return replace(outcome, next=hidden(said), wrote=wrote)


def _kind(name: str) -> Any:
    from gpt4image import config

    return getattr(config, f"{name.split()[-1].title().replace('-', '')}Config")


def command(name: str, options: Mapping[str, Any]) -> str:
    """Return a command as it is typed: positional words first, then the options that are not at their default."""
    kind = _kind(name)
    words, flags = [], []
    for key, value in kind.changed(options).items():
        option = kind.option(key)
        value = json.dumps(value) if isinstance(value, dict) else value
        values = [str(each) for each in value] if isinstance(value, tuple) else [str(value)]
        if option.isupper():
            words += values
        elif isinstance(value, bool):
            flags.append(option if value else option.replace("--", "--no-", 1))
        else:
            flags += [option, *values]
    return shlex.join(["gpt4image", *name.split(), *words, *flags])


def call(name: str, options: Mapping[str, Any]) -> str:
    """Return a command as a call of the function of its name; one that is no function, as it is typed."""
    if " " in name:
        return command(name, options)
    given = (f"{key}={str(v) if isinstance(v, Path) else v!r}" for key, v in _kind(name).changed(options).items())
    return f"gpt4image.{name.replace('-', '_')}({', '.join(given)})"


def _after_describe(config: Any, outcome: Any) -> Step:
    again = {key: getattr(config, key) for key in type(config).model_fields}
    if config.dry_run:
        return "describe", again | {"dry_run": False, "billed": None}
    useless = outcome.rejected and not (outcome.described or outcome.already_described)
    if useless or outcome.stopped_by == "limit":  # to be looked at
        page = _new(config.store.with_suffix(".html"))
        return "inspect", {"store": config.store, "data": config.data, "page": page}
    # Calls that failed may succeed; what was tried in vain without one call, such as broken files, stays as it is.
    may_succeed = outcome.details.get("calls", 1) and not config.describer.startswith("replay:")
    if outcome.failed and may_succeed and outcome.stopped_by is None:
        return "describe", again
    return _encode(config.store) if "description" in config.ask.split(",") else _label(config.store, config.data)


def _encode(store: Path) -> Step:
    return "encode", {"store": store, "out": store.with_suffix(".emb")}


def _after_encode(config: Any, outcome: Any) -> Step:
    from gpt4image.artifacts.store import DescriptionStore

    with DescriptionStore(config.store) as opened:
        data = opened.dataset or "SPEC"
    if outcome.class_conditioned:  # nothing can be learned about labels from texts that repeat them
        return "train", {"data": data, "embeddings": config.out, "out": _new(config.out.with_name("run"))}
    return _label(config.store, data, config.out)


def _label(store: Path, data: str | None, embeddings: Path | None = None) -> Step:
    """Return how targets are made of all that a store has: its answers, and its descriptions where they are encoded."""
    from gpt4image.artifacts.store import DescriptionStore

    with DescriptionStore(store) as opened:
        asked = {part for prompt in opened.prompts() for part in prompt.ask}
    boxes = "boxes" in asked and not {"class", "tags"} & asked
    out = _new((embeddings or store).with_name("boxes.parquet" if boxes else "targets.parquet"))
    answers = {"answers": store} if asked - {"description"} else {}
    task = {"task": "detection"} if boxes else {}
    return "label", {"data": data or "SPEC", "embeddings": embeddings, **answers, **task, "out": out}


def review_of(data: str, targets: Path, **more: Any) -> dict[str, Any]:
    """Return the options of `review` that shows the images of targets, the most doubtful ones first."""
    return {"data": data, **more, "targets": targets, "labels": labels_beside(data)}


def _after_label(config: Any, outcome: Any) -> Step:
    if config.max_error is not None:  # the others are looked at
        more = {"answers": config.answers, "embeddings": config.embeddings}
        return "review", review_of(config.data, outcome.path, **more)
    splits = {key: getattr(config, key) for key in ("val_fraction", "test_fraction")}
    aligned = {"embeddings": config.embeddings} if outcome.teacher_boxes is not None else {}
    run = _new(config.out.with_name("run"))
    return "train", {"data": config.data, "targets": outcome.path, **aligned, "out": run, **splits}


def _after_review(config: Any, outcome: Any) -> Step | None:
    """Return how the labels join all that was known before: the same `distill` again, or `label`; else `train`."""
    from gpt4image.artifacts.stage_records import RECORD, StageRecords
    from gpt4image.artifacts.targets import holds_boxes
    from gpt4image.config import DistillConfig

    if not outcome.labelled:
        return None
    data = config.data if _table_of(config.data) == config.labels.resolve() else f"manifest:{config.labels}"
    classes = ",".join(outcome.classes or ()) or None
    folders = [path.parent for path in (config.targets, config.answers, config.embeddings) if path is not None]
    if made := next((folder for folder in folders if (folder / RECORD).is_file()), None):
        before = DistillConfig.model_validate(DistillConfig.changed(StageRecords(made).options))
        classes = before.classes or (None if data == config.data else classes)
        return "distill", {**dict(before), "data": data, "classes": classes, "out": made}
    answers, embeddings = _evidence(config)
    if answers is None and embeddings is None:
        targets = {} if config.targets is None else {"targets": config.targets}
        return "train", {"data": data, **targets, "out": _new(Path("run"))}
    out, task = _new((answers or embeddings or Path()).with_name("targets.parquet")), {}
    if config.targets is not None and holds_boxes(config.targets):
        task = {"task": "detection"}
    return "label", {"data": data, "embeddings": embeddings, "answers": answers, "classes": classes, **task, "out": out}


def _evidence(config: Any) -> tuple[Path | None, Path | None]:
    """Return the answers and the embeddings of a review, or those that its targets were made from."""
    from gpt4image.artifacts.targets import LabelEvidence

    if config.answers or config.embeddings or config.targets is None:
        return config.answers, config.embeddings
    found = LabelEvidence.of(config.targets) or LabelEvidence()
    each = [Path(os.path.relpath(path)) for path in (found.answers, *found.embeddings[:1]) if path]
    there = [path if path.exists() else None for path in each]
    return (there[0] if found.answers else None), (there[-1] if found.embeddings else None)


def _after_train(config: Any, outcome: Any) -> Step | None:
    if config.task == "pretrain":
        weights, out = str(config.out / "model.safetensors"), config.out.with_name(f"{config.out.name}-tuned")
        return "train", {"data": config.data, "init": weights, "out": _new(out)}
    if outcome.test_images or outcome.val_images:
        return "evaluate", {"run_dir": config.out, "split": "test" if outcome.test_images else "val"}
    return _export(config.out)


def _options_of(folder: Path) -> Mapping[str, Any]:
    from gpt4image.artifacts import runs

    own = folder if runs.has_begun(folder) else next((path.parent for path in folder.rglob(runs.CONFIG)), None)
    return {} if own is None else runs.read_config(own)


def _export(folder: Path) -> Step | None:
    options = _options_of(folder)
    beyond_timm = options.get("task") in BEYOND_TIMM
    if beyond_timm and not all(map(importlib.util.find_spec, OF_ONNX)):
        return _predict(folder)
    form, ending = ("onnx", ".onnx") if beyond_timm else ("timm", "-timm")
    return "export", {"run_dir": folder, "format": form, "out": _new(folder.with_name(f"{folder.name}{ending}"))}


def _after_distill(config: Any, outcome: Any) -> Step | None:
    if outcome.measured_on or _options_of(config.out / RUN).get("task") == "segmentation":
        return _predict(outcome.model)
    return "review", review_of(config.data, config.out / TARGETS)


def audit_of(config: Any, *, held_out: bool) -> dict[str, Any]:
    """Return the options of `audit` that judge what `distill` made: its model on ``held_out`` images, or targets."""
    made = {"targets": config.out / TARGETS, "model": config.out / RUN if held_out else None}
    return {"data": config.data, **made, "labels": beside(config.data, "audit.csv")}


def beside(data: str, name: str) -> Path:
    """Return where a file of labels may lie: in the folder of the images, where they are files, or above it."""
    from gpt4image.data.spec import ON_DISK, full_spec, parse

    spec = None
    with contextlib.suppress(Gpt4ImageError, OSError):
        spec = parse(full_spec(data))
    if spec is None or spec.name not in ON_DISK:
        return Path(name)
    folder = Path(spec.options.get("images", spec.where)) if spec.name == "manifest" else Path(spec.where)
    folder = folder if folder.is_dir() else folder.parent
    return (folder.parent if folder.name == "annotations" else folder) / name


def _table_of(data: str) -> Path | None:
    """Return the table that a dataset is read from; None for another dataset."""
    from gpt4image.data.file_source import table_in
    from gpt4image.data.spec import full_spec, parse

    spec = parse(full_spec(data))
    place = spec.path.resolve()
    return (table_in(place) if place.is_dir() else place) if spec.name == "manifest" else None


def labels_beside(data: str) -> Path:
    """Return the file of labels that `review` goes on with, or a new one."""
    from gpt4image.data.manifest import WHY

    def reviewed(path: Path) -> bool:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            return path.suffix == ".csv" and WHY in next(lines, "").strip().split(",")

    with contextlib.suppress(Gpt4ImageError, OSError):
        if (table := _table_of(data)) is not None and reviewed(table):
            return Path(os.path.relpath(table))
    place = beside(data, "labels.csv")
    return place if place.is_file() and reviewed(place) else _new(place)


def _predict(model: Path) -> Step | None:
    """Return how new photographs are predicted: of those that a model has learned from, its answers tell nothing."""
    if model.suffix == ".pt2":
        return None
    return "predict", {"model": model, "images": (NEW_PHOTOS,), "out": _new(Path("predictions.csv"))}


def _new(path: Path) -> Path:
    others = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], others) if not each.exists())


_NEXT: Mapping[str, Callable[[Any, Any], Step | Path | None]] = {
    "demo": lambda config, _: config.out / "report.html",
    "distill": _after_distill,
    "describe": _after_describe,
    "descriptions import": lambda config, outcome: (
        _encode(config.store) if outcome.descriptions else _label(config.store, config.data)
    ),
    "inspect": lambda config, _: config.page,
    "encode": _after_encode,
    "label": _after_label,
    "review": _after_review,
    "discover": lambda config, _: (
        "train",
        {"data": config.data, "targets": config.out / "targets.parquet", "out": _new(config.out.with_name("run"))},
    ),
    "train": _after_train,
    "evaluate": lambda config, _: (
        ("evaluate", {"run_dir": config.run_dir}) if config.split == "val" else _export(config.run_dir)
    ),
    "compare": lambda config, _: _export(config.out),
    "report": lambda _, outcome: outcome.path,
    "export": lambda config, _: _predict(config.out),
    "search": lambda config, _: config.html,
    "doctor": lambda config, _: None if config.path else ("demo", {}),
}
