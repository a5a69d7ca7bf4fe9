"""What a command has written, and the command to give next, with the paths of the one that was given."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4image.base.outcome import Outcome
from gpt4image.base.secrets import hidden

Step = tuple[str, Mapping[str, Any]]
"""Name of a command, and its options by field name."""
BEYOND_TIMM = ("detection", "segmentation", "video")
"""Tasks whose models timm does not load."""
READS_ONLY = ("descriptions stats", "descriptions check", "doctor", "completion")


def with_next(name: str, outcome: Outcome, config: Any, *, config_types: Mapping[str, str], python: bool) -> Outcome:
    """Return an outcome that names what was written and what to do next.

    Args:
        name: the command.
        outcome: of its stage.
        config: its options.
        config_types: the name of the configuration of each command.
        python: whether the next step is written as Python, or for a shell.
    """
    step = _NEXT[name](config, outcome) if name in _NEXT else None
    if isinstance(step, Path):
        said = f"python -m webbrowser {shlex.quote(str(step))}"
        said = f"import webbrowser; webbrowser.open({str(step.absolute())!r})" if python else said
    else:
        said = "" if step is None else (_python if python else command)(step[0], step[1], config_types)
    wrote = () if name in READS_ONLY or outcome.path is None else (outcome.wrote or (outcome.path,))
    return replace(outcome, next=hidden(said), wrote=wrote)


def command(name: str, options: Mapping[str, Any], config_types: Mapping[str, str]) -> str:
    """Return a command as it is typed: positional words first, then the options that are not at their default."""
    kind: Any = getattr(importlib.import_module("gpt4image.config"), config_types[name])
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


def _python(name: str, options: Mapping[str, Any], config_types: Mapping[str, str]) -> str:
    kind: Any = getattr(importlib.import_module("gpt4image.config"), config_types[name])
    if " " in name:
        return command(name, options, config_types)
    given = (
        f"{key}={str(value) if isinstance(value, Path) else value!r}" for key, value in kind.changed(options).items()
    )
    return f"gpt4image.{name}({', '.join(given)})"


def _all_of(config: Any, **changes: Any) -> dict[str, Any]:
    return {key: getattr(config, key) for key in type(config).model_fields} | changes


def _after_describe(config: Any, outcome: Outcome) -> Step:
    if config.dry_run:
        return "describe", _all_of(config, dry_run=False)
    # What a run tried in vain without one call, such as broken files, it will try in vain again.
    facts = outcome.summary
    if facts.get("without_description", 0) > (0 if facts.get("calls", 1) else facts.get("failed", 0)):
        return "describe", _all_of(config)
    asked = config.ask.split(",")
    if "description" not in asked:
        return _label_answers(config, boxes="boxes" in asked and not {"class", "tags"} & set(asked))
    return _encode(config, outcome)


def _after_import(config: Any, outcome: Outcome) -> Step:
    if outcome.summary.get("descriptions") == 0:
        return _label_answers(config, boxes="boxes" in outcome.summary and "class_in_list" not in outcome.summary)
    return _encode(config, outcome)


def _label_answers(config: Any, *, boxes: bool) -> Step:
    out = config.store.with_name("boxes.parquet" if boxes else "text-labels.parquet")
    task = {"task": "detection"} if boxes else {}
    return "label", {"data": config.data or "SPEC", "answers": config.store, "out": out, **task}


def _encode(config: Any, _outcome: Outcome) -> Step:
    return "encode", {"store": config.store, "out": config.store.with_suffix(".emb")}


def _after_train(config: Any, outcome: Outcome) -> Step:
    facts = outcome.summary
    if config.task == "pretrain":
        weights = str(config.out / "model.safetensors")
        return "train", {"data": "SPEC", "init": weights, "out": config.out.with_name(f"{config.out.name}-tuned")}
    if split := next((split for split in ("test", "val") if facts.get(f"{split}_images")), None):
        return "evaluate", {"run_dir": config.out, "split": split}
    return _export(config.out)


def _after_evaluate(config: Any, _outcome: Outcome) -> Step:
    return ("evaluate", {"run_dir": config.run_dir}) if config.split == "val" else _export(config.run_dir)


def _export(folder: Path) -> Step:
    form, ending = ("onnx", ".onnx") if _is_beyond_timm(folder) else ("timm", "-timm")
    return "export", {"run_dir": folder, "format": form, "out": folder.with_name(f"{folder.name}{ending}")}


def _is_beyond_timm(folder: Path) -> bool:
    """Return whether a run, or the first one of a comparison, has a model that timm does not load."""
    from gpt4image.artifacts import runs

    first = next(folder.rglob(runs.CONFIG), None)
    return first is not None and runs.read_config(first.parent).get("task") in BEYOND_TIMM


def _after_label(config: Any, outcome: Outcome) -> Step:
    if again := outcome.summary.get("again"):
        asked = {"ask": "class", "classes": outcome.summary["again_classes"], "only": Path(again)}
        return "describe", {"data": config.data, "store": config.answers, "describer": "SPEC", **asked}
    splits = {key: getattr(config, key) for key in ("val_fraction", "test_fraction")}
    aligned = {"embeddings": config.embeddings} if config.embeddings and "teacher_boxes" in outcome.summary else {}
    learned = {"text_labels": outcome.path, **aligned}
    return "train", {"data": config.data, **learned, "out": config.out.with_name("run"), **splits}


def _after_review(config: Any, _outcome: Outcome) -> Step | None:
    if config.export_tasks is not None:
        return None
    out = config.labels.with_name("run")
    return "train", {"data": f"manifest:{config.labels}", "embeddings": config.embeddings, "out": out}


def _label(data: str, embeddings: Path) -> Step:
    return "label", {"data": data, "embeddings": embeddings, "out": embeddings.with_name("text-labels.parquet")}


def _after_distill(config: Any, outcome: Outcome) -> Step | None:
    if outcome.summary.get("measured_on"):
        model = Path(outcome.summary["model"])
        return None if model.suffix == ".pt2" else ("predict", _predict(model))
    folder = Path(config.data.removeprefix("folder:"))
    labels = folder / "labels.csv" if folder.is_dir() else Path("labels.csv")
    return "review", {"data": config.data, "answers": config.out / "answers.db", "labels": labels}


def _after_export(config: Any) -> Step | None:
    return None if config.format == "torch-export" else ("predict", _predict(config.out))


_NEXT: Mapping[str, Callable[[Any, Outcome], Step | Path | None]] = {
    "demo": lambda config, _: config.out / "report.html",
    "distill": _after_distill,
    "describe": _after_describe,
    "descriptions import": _after_import,
    "descriptions export": lambda config, _: ("descriptions stats", {"store": config.store}),
    "descriptions backup": lambda config, _: ("doctor", {"path": config.out}),
    "descriptions stats": lambda config, _: ("descriptions view", {"store": config.store, "data": config.data}),
    "descriptions check": lambda config, _: ("descriptions view", {"store": config.store, "data": config.data}),
    "descriptions view": lambda config, _: config.out,
    "encode": lambda config, _: _label("SPEC", config.out),
    "label": _after_label,
    "review": _after_review,
    "train": _after_train,
    "evaluate": _after_evaluate,
    "compare": lambda config, _: _export(config.out),
    "report": lambda _, outcome: outcome.path,
    "export": lambda config, _: _after_export(config),
    "search": lambda config, _: config.html or ("search", _all_of(config, html=Path("found.html"))),
    "doctor": lambda config, _: None if config.path else ("demo", {}),
}


def _predict(model: Path) -> dict[str, Any]:
    return {"model": model, "images": ("PHOTOS",), "out": Path("predictions.csv")}
