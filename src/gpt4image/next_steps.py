"""What a command has written, and the command to give next, with the paths of the one that was given."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.outcome import Outcome
from gpt4image.base.secrets import hidden
from gpt4image.config.results import (
    DescribeResult,
    DistillResult,
    EncodeResult,
    ImportResult,
    LabelResult,
    ReviewResult,
    TrainResult,
)

Step = tuple[str, Mapping[str, Any]]
"""Name of a command, and its options by field name."""
BEYOND_TIMM = ("detection", "segmentation", "video")
"""Tasks whose models timm does not load."""
OF_ONNX = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra onnx."""
READS_ONLY = ("descriptions stats", "descriptions check", "doctor")


def with_next(name: str, outcome: Outcome, config: Any, *, config_types: Mapping[str, str], python: bool) -> Outcome:
    """Return an outcome that names what was written and what to do next.

    Args:
        name: the command.
        outcome: of its stage.
        config: its options.
        config_types: the name of the configuration of each command.
        python: whether the next step is written as Python, or for a shell.
    """
    step = None
    with contextlib.suppress(Gpt4ImageError, OSError):  # what was done is done, even if what comes next is not known
        step = _NEXT[name](config, outcome) if name in _NEXT else None
    if isinstance(step, Path):
        said = f"python -m webbrowser {shlex.quote(str(step))}"
        said = f"import webbrowser; webbrowser.open({str(step.absolute())!r})" if python else said
    else:
        said = "" if step is None else (_python if python else command)(step[0], step[1], config_types)
    wrote = () if name in READS_ONLY or outcome.path is None else (outcome.wrote or (outcome.path,))
    again = (
        [hidden(_again(config, outcome, config_types))] if isinstance(outcome, LabelResult) and outcome.again else []
    )
    return replace(outcome, next=hidden(said), wrote=wrote, text="\n\n".join(filter(None, [outcome.text, *again])))


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


def _after_describe(config: Any, outcome: DescribeResult) -> Step:
    stopped = outcome.stopped_by or ""
    if config.dry_run:
        return "describe", _all_of(config, dry_run=False)
    if config.limit is not None and stopped.startswith("--limit"):  # a sample, to be looked at
        page = _new(config.store.with_suffix(".html"))
        return "descriptions view", {"store": config.store, "data": config.data, "out": page}
    # Calls that failed may succeed; what a run tried in vain without one call, such as broken files, stays as it is.
    fixed = config.describer.startswith("replay:") or stopped
    if outcome.failed and outcome.details.get("calls", 1) and not fixed:
        return "describe", _all_of(config)
    return _encode(config.store) if "description" in config.ask.split(",") else _label(config.store, config.data)


def _after_import(config: Any, outcome: ImportResult) -> Step:
    if outcome.descriptions == 0:
        return _label(config.store, config.data)
    return _encode(config.store)


def _encode(store: Path) -> Step:
    return "encode", {"store": store, "out": store.with_suffix(".emb")}


def _after_encode(config: Any, outcome: EncodeResult) -> Step:
    if outcome.class_conditioned:  # nothing can be learned about labels from texts that repeat them
        return "train", {"data": _dataset(config.store), "embeddings": config.out, "out": _run_beside(config.out)}
    return _label(config.store, _dataset(config.store), config.out)


def _dataset(store: Path) -> str:
    """Return the dataset that a store was last filled for, or a word in its place."""
    from gpt4image.artifacts.store import DescriptionStore

    with DescriptionStore(store) as opened:
        return opened.dataset or "SPEC"


def _label(store: Path, data: str | None, embeddings: Path | None = None) -> Step:
    """Return how targets are made of all that a store has: its answers, and its descriptions where they are encoded."""
    from gpt4image.artifacts.store import DescriptionStore

    with DescriptionStore(store) as opened:
        asked = {part for prompt in opened.prompts() for part in prompt.ask}
    boxes = "boxes" in asked and not {"class", "tags"} & asked
    out = _new((embeddings or store).with_name("boxes.parquet" if boxes else "text-labels.parquet"))
    answers = {"answers": store} if asked - {"description"} else {}
    task = {"task": "detection"} if boxes else {}
    return "label", {"data": data or "SPEC", "embeddings": embeddings, **answers, **task, "out": out}


def _after_label(config: Any, outcome: LabelResult) -> Step:
    splits = {key: getattr(config, key) for key in ("val_fraction", "test_fraction")}
    aligned = {"embeddings": config.embeddings} if config.embeddings and outcome.teacher_boxes is not None else {}
    start = {"init": "pretrained"} if outcome.path is not None and _starts_pretrained(outcome.path) else {}
    learned = {"text_labels": outcome.path, **aligned, **start}
    return "train", {"data": config.data, **learned, "out": _run_beside(config.out), **splits}


def _starts_pretrained(targets: Path) -> bool:
    """Return whether a run of these targets can start from pretrained weights that lie on this machine.

    They were measured for one class per image, on photographs (docs/practice.md).
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    from gpt4image.artifacts.label_evidence import LabelEvidence

    evidence = LabelEvidence.of(targets)
    if evidence is None or evidence.task != "classification" or not any(Path(HF_HUB_CACHE).glob("models--timm--*")):
        return False
    from gpt4image.models.backbones import pretrained_weights
    from gpt4image.training.auto import PRETRAINED_MODEL

    return pretrained_weights(PRETRAINED_MODEL) == "here"


def _again(config: Any, outcome: LabelResult, config_types: Mapping[str, str]) -> str:
    """Return how the images of confused classes are asked about once more, which is paid for; never the next step."""
    classes, images = outcome.again_classes, outcome.again
    options = {"data": config.data, "store": config.answers, "describer": "SPEC", "ask": "class"}
    ask = command("describe", {**options, "classes": str(classes), "only": images}, config_types)
    return f"To pay for a second answer to these images, write into {classes} what tells the classes apart:\n  {ask}"


def _after_review(config: Any, outcome: ReviewResult) -> Step | None:
    if config.export_tasks is not None:
        return None
    data = f"manifest:{config.labels}"
    evidence = config.answers or config.embeddings
    if evidence is None:
        return ("train", {"data": data, "out": _new(Path("run"))}) if outcome.labelled else None
    out = _new(evidence.with_name("text-labels.parquet"))
    return "label", {"data": data, "embeddings": config.embeddings, "answers": config.answers, "out": out}


def _after_train(config: Any, outcome: TrainResult) -> Step:
    images = {"test": outcome.test_images, "val": outcome.val_images}
    if config.task == "pretrain":
        weights, out = str(config.out / "model.safetensors"), config.out.with_name(f"{config.out.name}-tuned")
        return "train", {"data": config.data, "init": weights, "out": _new(out)}
    if split := next((split for split, count in images.items() if count), None):
        return "evaluate", {"run_dir": config.out, "split": split}
    return _export(config.out)


def _after_evaluate(config: Any, _outcome: Outcome) -> Step:
    return ("evaluate", {"run_dir": config.run_dir}) if config.split == "val" else _export(config.run_dir)


def _export(folder: Path) -> Step:
    """Return how the model of a run or of a comparison is written; a model that cannot be is asked as it is."""
    beyond_timm = _options_of(folder).get("task") in BEYOND_TIMM
    if beyond_timm and not all(map(importlib.util.find_spec, OF_ONNX)):
        return "predict", _predict(folder, _options_of(folder).get("data", ""))
    form, ending = ("onnx", ".onnx") if beyond_timm else ("timm", "-timm")
    return "export", {"run_dir": folder, "format": form, "out": _new(folder.with_name(f"{folder.name}{ending}"))}


def _options_of(folder: Path) -> Mapping[str, Any]:
    """Return the options of a run, or of the first one of a comparison."""
    from gpt4image.artifacts import runs

    own = (
        folder if (folder / runs.CONFIG).is_file() else next((path.parent for path in folder.rglob(runs.CONFIG)), None)
    )
    return {} if own is None else runs.read_config(own)


def _after_export(config: Any) -> Step | None:
    return (
        None
        if config.format == "torch-export"
        else ("predict", _predict(config.out, _options_of(config.run_dir).get("data", "")))
    )


def _after_distill(config: Any, outcome: DistillResult) -> Step | None:
    if outcome.measured_on:
        model = outcome.model
        return None if model.suffix == ".pt2" else ("predict", _predict(model, config.data))
    folder = Path(config.data.removeprefix("folder:"))
    labels = folder / "labels.csv" if folder.is_dir() else Path("labels.csv")
    table = config.out / "embeddings"
    evidence = {"answers": config.out / "answers.db", "embeddings": table if table.exists() else None}
    return "review", {"data": config.data, **evidence, "labels": labels}


def _predict(model: Path, data: str) -> dict[str, Any]:
    """Return how a model predicts the pictures of the dataset that it is of: any others can stand in their place."""
    return {"model": model, "images": (_pictures(data),), "out": _new(Path("predictions.csv"))}


def _pictures(data: str) -> str:
    """Return the folder of the pictures of a dataset, or a word in its place where they are no files."""
    place = Path(data if Path(data).exists() else data.partition(":")[2]).expanduser()
    if not place.exists() or place == Path() or data.startswith("hf:"):
        return "PHOTOS"
    place = place if place.is_dir() else place.parent
    inside = (base / name for base in (place, place.parent) for name in ("images", "JPEGImages"))
    return str(next(filter(Path.is_dir, inside), place))


def _run_beside(path: Path) -> Path:
    return _new(path.with_name("run"))


def _new(path: Path) -> Path:
    """Return a path where there is nothing yet: this one, or one with a number."""
    others = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], others) if not each.exists())


_NEXT: Mapping[str, Callable[[Any, Any], Step | Path | None]] = {
    "demo": lambda config, _: config.out / "report.html",
    "distill": _after_distill,
    "describe": _after_describe,
    "descriptions import": _after_import,
    "descriptions export": lambda config, _: ("descriptions stats", {"store": config.store}),
    "descriptions backup": lambda config, _: ("doctor", {"path": config.out}),
    "descriptions stats": lambda config, _: ("descriptions view", {"store": config.store, "data": config.data}),
    "descriptions check": lambda config, _: ("descriptions view", {"store": config.store, "data": config.data}),
    "descriptions view": lambda config, _: config.out,
    "encode": _after_encode,
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
