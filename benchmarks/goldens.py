"""Frozen behaviour: accuracies, targets, exported models and command lines, compared with a record.

    python benchmarks/goldens.py [PART ...]            # prints each difference from goldens.json
    python benchmarks/goldens.py --renew [PART ...]    # writes what this source does into goldens.json

Parts: targets, arms, exports, lines. The data lie in $GPT4IMAGE_SHARED_DATA. One thread, some six minutes. After an
option is renamed, change the table of commands below. After a change that is meant to alter a number, renew its part
and say in the commit why. Other CPUs may give slightly other numbers: renew on yours first, from an older commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image

from gpt4image.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")
DATA = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", ROOT.parent / "shared" / "data"))
SETS = {
    "clothes": (f"folder:{DATA}/clothes", "class,description", f"{DATA}/clothes/answers.jsonl"),
    "cifar10": (f"hf:{DATA}/cifar10/images", "class", f"{DATA}/cifar10/answers-class.jsonl"),
    "openmoji": ("openmoji", "class", f"{DATA}/openmoji/answers-class.jsonl"),
    "groceries": (f"coco:{DATA}/groceries/train.json", "boxes,description", f"{DATA}/groceries/answers-boxes.jsonl"),
}
"""Dataset, question and answers of each set; descriptions of two of them are in a second file."""
DESCRIPTIONS = {name: f"{DATA}/{name}/descriptions-plain.jsonl" for name in ("cifar10", "openmoji")}
DESCRIBE = "describe --data {data} --store {name}.db --ask {ask} --describer replay:{answers}"
ENCODE = "encode --store {name}.db --encoder bag-of-words:64 --out {name}.emb"
LABEL = "label --data {data} --answers {name}.db --embeddings {name}.emb --features none --out {name}.parquet"
ARMS = "baseline,aligned,text-labels,asked,fused,oracle"
COMPARE = (
    f"compare --data {{data}} --answers {{name}}.db --embeddings {{name}}.emb --features none --arms {ARMS} --seeds 1 "
    "--only-described --labels-per-class 10 --jobs 1 --threads 1 --out {name}-arms "
)
MODELS = {  # the second learns from pixels
    "clothes": "--model tf_efficientnet_lite0 --init pretrained --freeze all --image-size 64 --epochs 2",
    "openmoji": "--model test_resnet --init scratch --image-size 32 --epochs 3 --batch-size 32 --precision fp32",
}
TRAIN = (
    "train --data {data} --task {task} --epochs {epochs} --model test_resnet --init scratch --image-size 32 "
    "--batch-size 8 --precision fp32 --threads 1 --device cpu --out {task}"
)
EXPORT = "export {task} --format onnx --out {task}-model"
TASKS = {
    "classification": ("folder:classes", 1), "multilabel": ("masks:masks", 1), "segmentation": ("masks:masks", 8),
    "detection": ("coco:boxes/train.json", 30), "video": ("clips:clips", 1),
}  # fmt: skip
"""Small datasets, and epochs until a model of them says something."""


def call(line: str, **facts: str) -> None:
    """Run a command of the package in this process."""
    code = main(line.format(**facts).split())
    if code > 1:  # 1 says that some items were skipped
        sys.exit(f"exit code {code}: gpt4image {line.format(**facts)}")


def facts_of(values: Any, digits: int) -> list[Any]:
    """Return shape, root mean square and a digest of rounded values: it tells a small difference from a large one."""
    array = np.asarray(values, np.float64)
    digest = hashlib.sha256((np.round(array, digits) + 0.0).tobytes()).hexdigest()[:16]
    return [list(array.shape), round(float(np.sqrt((array**2).mean())), 6), digest]


def describe(names: Iterable[str]) -> None:
    for name in names:
        data, ask, answers = SETS[name]
        call(DESCRIBE, name=name, data=data, ask=ask, answers=answers)
        if name in DESCRIPTIONS:
            call(DESCRIBE, name=name, data=data, ask="description", answers=DESCRIPTIONS[name])
        call(ENCODE, name=name)


def targets() -> dict[str, Any]:
    describe(name for name in SETS if not Path(f"{name}.db").exists())
    found: dict[str, Any] = {}
    for name, (data, *_) in SETS.items():
        call(LABEL, name=name, data=data)
        table = pq.read_table(f"{name}.parquet").to_pydict()
        if "boxes" in table:
            sides = ("left", "top", "right", "bottom", "class", "weight")
            found[name] = facts_of([[box[side] for side in sides] for boxes in table["boxes"] for box in boxes], 6)
        else:
            probabilities, given = (
                np.array(table["probabilities"]),
                np.unique(table["given_label"], return_inverse=True),
            )
            accuracy, sure = (probabilities.argmax(1) == given[1]).mean(), probabilities.max(1).mean()
            found[name] = [round(float(accuracy), 6), round(float(sure), 6), *facts_of(probabilities, 6)]
    return found


def arms() -> dict[str, Any]:
    describe(name for name in MODELS if not Path(f"{name}.db").exists())
    for name, model in MODELS.items():
        call(COMPARE + model, name=name, data=SETS[name][0])
    records = {name: json.loads(Path(f"{name}-arms/comparison.json").read_text("utf-8")) for name in MODELS}
    return {f"{name} {arm}": round(one["mean"], 6) for name in MODELS for arm, one in records[name]["arms"].items()}


def write_small_sets() -> None:
    """Copy a few images of each kind."""
    few = {"classes": ("clothes/train/*", 12), "clips/test": ("clips/test/[cs]*", 2)}
    few["clips/train"] = ("clips/train/[cs]*", 9)
    few |= {f"masks/{kind}": (f"clothing/{kind}/t[er]*", 80) for kind in ("images", "masks")}
    for place, (pattern, count) in few.items():
        for folder in sorted(DATA.glob(pattern)):
            (Path(place) / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, Path(place) / folder.name)
    shutil.copy(DATA / "clothing/classes.txt", "masks")
    for split in ("train", "test"):
        known = json.loads((DATA / f"groceries/{split}.json").read_text("utf-8"))
        known["images"] = known["images"][::40]
        rows = {image["id"] for image in known["images"]}
        known["annotations"] = [row for row in known["annotations"] if row["image_id"] in rows]
        for image in known["images"]:
            Path("boxes", image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(DATA / "groceries" / image["file_name"], Path("boxes", image["file_name"]))
        Path(f"boxes/{split}.json").write_text(json.dumps(known), "utf-8")


def exports() -> dict[str, Any]:
    write_small_sets()
    found: dict[str, Any] = {}
    for task, (data, epochs) in TASKS.items():
        call(TRAIN, task=task, data=data, epochs=str(epochs))
        call(EXPORT, task=task)
        model = onnxruntime.InferenceSession(f"{task}-model/model.onnx")
        entry, files = model.get_inputs()[0], sorted(Path("boxes").rglob("*.jpg"))[:2]
        pixels = np.stack([np.asarray(Image.open(file).resize((32, 32)), np.float32) / 255 for file in files])
        pixels = np.broadcast_to(pixels.transpose(0, 3, 1, 2)[:, None], (2, 8, 3, 32, 32))
        pixels = np.ascontiguousarray(pixels if len(entry.shape) == 5 else pixels[:, 0])
        for output, values in zip(model.get_outputs(), model.run(None, {entry.name: pixels}), strict=True):
            found[f"{task} {output.name}"] = facts_of(values, 3)
    return found


def lines() -> dict[str, bool]:
    """Return each command of README and docs with the options that they show."""
    pages = [page.read_text("utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))]
    written = re.findall(r"(?m)^(?:\$ )?gpt4image (.*)$", "\n".join(pages).replace("\\\n", " "))
    names = {line: next((name for name in COMMANDS if f"{line} ".startswith(f"{name} ")), "") for line in written}
    options = {line: re.findall(r" (--[a-z][\w-]*)", line) for line in written}
    shown = {f"{name} {option}" for line, name in names.items() if name for option in options[line]}
    return dict.fromkeys(sorted({*filter(None, names.values()), *shown}), True)


PARTS: dict[str, Callable[[], Any]] = {"targets": targets, "arms": arms, "exports": exports, "lines": lines}

if __name__ == "__main__":
    wanted = [word for word in sys.argv[1:] if word != "--renew"] or list(PARTS)
    record: dict[str, Any] = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = {part: PARTS[part]() for part in wanted}
        os.chdir(ROOT)
    if "--renew" in sys.argv:
        RECORD.write_text(json.dumps(record | made, indent=1) + "\n", "utf-8")
        sys.exit()
    for part in wanted:
        for key in dict.fromkeys([*record[part], *made[part]]):
            then, now = record[part].get(key), made[part].get(key)
            if then != now:
                print(f"DIFFERENCE {part}, {key}: {then} -> {now}")
