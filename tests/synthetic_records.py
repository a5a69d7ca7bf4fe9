"""Made-up records in the shape that `train` and `compare` write, to test what a report makes of them."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from gpt4image.artifacts import runs
from gpt4image.base.files import append_json_line, write_json
from gpt4image.data.known_sets import load_openmoji
from worlds import packaged_texts

CLASSES = ("animal", "body", "clothing", "flag", "food", "person", "place", "sign", "tool", "vehicle")
SCORES = ("top1", "top5", "ece", "mean_class_accuracy")
MEANS = {"baseline": 0.35, "aligned": 0.36, "text-labels": 0.5, "zero-shot": 0.39, "oracle": 0.61}


def data_url(colour: str = "teal", kind: str = "png") -> str:
    """Return a plain picture as a data URL."""
    buffer = io.BytesIO()
    Image.new("RGB", (72, 72), colour).save(buffer, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def arm_record(test: Sequence[float], **more: Any) -> dict[str, Any]:
    """Return an arm of comparison.json."""
    n, mean = len(test), float(np.mean(test))
    half = float(stats.t.ppf(0.975, n - 1) * np.std(test, ddof=1) / np.sqrt(n)) if n > 1 else None
    interval = None if half is None else [mean - half, mean + half]
    return {"seeds": list(range(n)), "test": list(test), "mean": mean, "ci95": interval, "seconds": 42.0, **more}


def pair_record(arms: Mapping[str, Any], arm: str, against: str = "baseline") -> dict[str, Any]:
    """Return a pair of comparison.json, tested as `compare` does."""
    differences = np.subtract(arms[arm]["test"], arms[against]["test"])
    n, mean = len(differences), float(differences.mean())
    record = {"arm": arm, "against": against, "difference": mean, "ci95": None, "p": None, "n": n}
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
        p = float(stats.ttest_rel(arms[arm]["test"], arms[against]["test"]).pvalue)
        wider = {"ci95": [mean - 1.2 * half, mean + 1.2 * half], "p": min(1.0, 1.5 * p)}
        record |= {"ci95": [mean - half, mean + half], "p": p, "other_images": wider}
    return record


def comparison_record(seeds: int = 3, means: Mapping[str, float] = MEANS, **more: Any) -> dict[str, Any]:
    """Return the content of a comparison.json."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 0.008, seeds)
    arms = {
        name: arm_record(
            [round(float(value), 4) for value in mean + level + rng.normal(0, 0.012, seeds)],
            runs=[f"runs/{name}-seed{seed}" for seed in range(seeds)],
            peak_memory_bytes=612_000_000,
            description=f"What {name} learns from.",
        )
        for name, mean in means.items()
    }
    pairs = [pair_record(arms, name) for name in arms if name != "baseline"]
    if {"text-labels", "zero-shot"} <= arms.keys():
        pairs.append(pair_record(arms, "text-labels", "zero-shot"))
    data = {
        "spec": "openmoji",
        "train": 1007,
        "val": 112,
        "val_labelled": 112,
        "test": 430,
        "classes": len(CLASSES),
        "labelled": 90,
    }
    return {
        "metric": "top1",
        "arms": arms,
        "pairs": pairs,
        "data": {**data, "described": 1007, "labels_per_class": 5},
        "question": "What do descriptions buy with 5 labels a category?",
        "command": "gpt4image compare --data openmoji --labels-per-class 5 --seeds 3 --out cmp",
        "notes": ["The text classifier is right for 71 % of the training pictures."],
        **more,
    }


def write_run(folder: Path, arm: str = "text-labels", seed: int = 0, top1: float = 0.5, epochs: int = 24) -> Path:
    """Write the records of a finished run."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    config = {"arm": arm, "seed": seed, "data": "openmoji", "task": "classification", "lr": 0.002, "out": "x"}
    config["chosen"] = {"epochs": epochs}
    write_json(folder / "config.json", config | ({"align_weight": 0.3} if arm == "aligned" else {}))
    about = {"python": "3.11.9", "torch": "2.10.0", "cpu": "Xeon", "device": "cpu"}
    write_json(folder / "environment.json", about | {"command": "gpt4image train --out run"})
    for epoch in range(1, epochs + 1):
        reached = 1 - np.exp(-epoch / 6)
        task_loss = float(2.3 - 1.2 * reached + rng.normal(0, 0.03))
        row = {"epoch": epoch, "step": 16 * epoch, "lr": 0.002, "loss": 3.0, "task_loss": task_loss, "seconds": 1.7}
        val = {"top1": float(top1 * reached + rng.normal(0, 0.01)), "loss": 1.5}
        align_loss = float(4 - reached) if arm == "aligned" else None
        append_json_line(folder / "metrics.jsonl", {**row, "align_loss": align_loss, "val": val})
    accuracy = np.clip(top1 + rng.normal(0, 0.15, len(CLASSES)), 0.02, 0.98)
    count = len(CLASSES)
    taken = rng.multinomial(43, np.ones(count) / count, size=count)
    confused = [[a, b, int(taken[a, b])] for a in range(count) for b in range(count) if a != b and taken[a, b]]
    titles = dict(zip(SCORES, ("accuracy", "top-5 accuracy", "calibration error", "mean class accuracy"), strict=True))
    scores = {"top1": top1, "top5": 0.9, "ece": 0.041, "mean_class_accuracy": top1 - 0.01, "loss": 1.4}
    of_classes = {"classes": list(CLASSES), "support": [43] * count, "per_class": [*accuracy[:-1].tolist(), None]}
    measured = {"split": "test", "metric": "top1", "titles": titles, "images": 430, "labelled": 430, **scores}
    facts = {"status": "finished", "classes": list(CLASSES), "seconds": 42.0, "peak_memory_bytes": 612_000_000}
    facts |= {"steps": 384, "images_per_second": 570.2, "parameters": 701_034, "data": comparison_record()["data"]}
    skipped = [{"name": "broken.png", "reason": "cannot identify image file"}]
    runs.finish(folder, {**facts, "set_aside": skipped})
    measured |= {**of_classes, "confused": confused}
    write_json(folder / "evaluation-test.json", measured)
    return folder


def examples(count: int = 8) -> list[dict[str, Any]]:
    """Return the content of an examples.json: pictograms with their real descriptions."""
    pictures, description_of, made = load_openmoji(), packaged_texts(), []
    for split in ("test", "train"):
        for index in pictures.indices(split)[:: 300 // count][: count // 2]:
            label = pictures.classes[pictures.labels[index]]
            guess = {"class": label, "probability": 0.83}
            predictions = {"baseline": {"class": "sign", "probability": 0.34}, "text-labels": guess}
            picture = "data:image/png;base64," + base64.b64encode(pictures.read(index)).decode()
            said = {"descriptions": [description_of[pictures.keys[index]]], "predictions": predictions}
            said |= {"text_label": guess, "predictions": {}} if split == "train" else {"text_label": None}
            made.append({"key": pictures.keys[index], "label": label, "split": split, "picture": picture, **said})
    return made


def descriptions() -> dict[str, Any]:
    """Return the content of a descriptions.json."""
    encoding = {"encoder": "minilm", "width": 384, "max_tokens": 256, "truncated": 0.012, "length_policy": "pool"}
    describer = {"prompt": "paper", "describer": "openai:gpt-4.1-mini", "descriptions": 1600, "cost_usd": 0.6115}
    return {
        "images": 1549, "described": 1524, "encoding": encoding, "descriptions": 1600, "flawed": 16, "failures": 25,
        "words": {"min": 17, "median": 25.0, "mean": 24.9, "p95": 29.0, "p99": 31.0, "max": 133},
        "flaws": {"refusal": {"descriptions": 0, "rejected": 25}, "loop": {"descriptions": 16, "rejected": 0}},
        "prompts": [{"name": "paper", "version": 1, "text": "Describe this image.", "class_conditioned": False}],
        "describers": [{**describer, "tokens_in": 1_240_000, "tokens_out": 72_000}],
    }  # fmt: skip


def write_comparison(folder: Path, record: Mapping[str, Any] | None = None) -> Path:
    """Write a whole comparison folder: comparison.json, its runs, and optional files."""
    record = record or comparison_record()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", record)
    for part in record.get("comparisons", {"": record}).values():
        for name, arm in part["arms"].items():
            for seed, run, top1 in zip(arm["seeds"], arm["runs"], arm["test"], strict=True):
                write_run(folder / run, name, seed, top1)
    return folder
