"""After the first model: 1,000 photographs of clothes, then three months of 500 with another mix and a new class.

`improve` asks about a quarter of each month and looks at a tenth; it is compared with a model that stays as it is and
with one for which everything is asked, each month. Accuracy is by the owner's labels of test photographs that none of
them has seen: those of each month, and old ones. The answers are recorded ones; the class SHORTS is named in month 1.

    python benchmarks/improving.py --data CLOTHES --out FOLDER --seed 0

CLOTHES has class folders train, validation and test, and answers.jsonl. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image import distill, improve
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.data import Dataset, load_dataset
from gpt4image.improving.look import load_deployed

NEW_CLASS, FIRST, MONTH, MONTHS = "shorts", 1000, 500, 3
OF_NEW_CLASS, TESTED = 0.12, 150
WEIGHTS = {"shoes": 3.0, "hat": 3.0, "outwear": 3.0, "t-shirt": 0.3}
"""How much more often a class comes in the months than in the first photographs."""
OPTIONS: dict[str, Any] = {"model": "tf_efficientnet_lite0", "init": "pretrained", "freeze": "all", "image_size": 128}


def drawn(rng: np.random.Generator, classes: np.ndarray, left: np.ndarray, count: int, *, later: bool) -> np.ndarray:
    """Return rows of those ``left``: of the first photographs, or of a month."""
    own = np.flatnonzero(left & (classes != NEW_CLASS))
    new = np.flatnonzero(left & (classes == NEW_CLASS))
    of_new = round(OF_NEW_CLASS * count) if later else 0
    weight = np.array([WEIGHTS.get(name, 1.0) if later else 1.0 for name in classes[own]])
    others = rng.choice(own, count - of_new, replace=False, p=weight / weight.sum())
    rows = np.concatenate([others, rng.choice(new, of_new, replace=False)])
    left[rows] = False
    return rows


def written(folder: Path, files: list[Path]) -> Path:
    """Copy files into one folder without labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / file.name)
    return folder


def accuracy(run: Path, images: Dataset) -> float:
    """Return the accuracy of a run on labelled images."""
    model = load_deployed(run)
    said, _, _ = model.predict(images, np.arange(len(images)))
    names = [model.classes[k] for k in said.argmax(axis=1)]
    return float(np.mean([name == images.label_names(row)[0] for row, name in enumerate(names)]))


def answered(out: Path) -> int:
    """Return how many images have been asked about."""
    with DescriptionStore(out / "answers.db") as store:
        return len({item.digest for item in store.descriptions()})


def main() -> None:
    """Run one seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, out = np.random.default_rng(given.seed), given.out
    sides = [
        sorted(file for name in names for file in (given.data / name).glob("*/*.jpg"))
        for names in (("train",), ("validation", "test"))
    ]
    classes = [np.array([file.parent.name for file in side]) for side in sides]
    left = [np.ones(len(side), bool) for side in sides]
    everything = sorted({*classes[0].tolist()})
    said = {
        row["key"].split("/")[-1].removesuffix(".jpg"): row
        for row in map(json.loads, (given.data / "answers.jsonl").open())
    }
    out.mkdir(parents=True)
    with (out / "answers.jsonl").open("w") as file:
        for picture in sides[0]:
            row = {name: value for name, value in said[picture.stem].items() if name != "key"}
            file.write(json.dumps({"digest": hashlib.sha256(picture.read_bytes()).hexdigest(), **row}) + "\n")
    describer = f"replay:{out / 'answers.jsonl'}"

    def take(side: int, count: int, *, later: bool) -> list[Path]:
        return [sides[side][row] for row in drawn(rng, classes[side], left[side], count, later=later)]

    tests: dict[str, Dataset] = {}
    for name in [*(f"month {number}" for number in range(1, MONTHS + 1)), "old"]:
        files = take(1, TESTED if name != "old" else 200, later=name != "old")
        for picture in files:
            written(out / name.replace(" ", "-") / picture.parent.name, [picture])
        tests[name] = load_dataset(str(out / name.replace(" ", "-")))
    first = written(out / "first", take(0, FIRST, later=False))
    months = [written(out / f"new-{number}", take(0, MONTH, later=True)) for number in range(1, MONTHS + 1)]
    known = [name for name in everything if name != NEW_CLASS]
    options = {**OPTIONS, "seed": given.seed}
    distill(data=first, describer=describer, classes=known, out=out / "model", **options)
    rows: dict[str, Any] = {"nothing": [], "improve": [], "everything": []}

    def measure(arm: str, run: Path, asked: int) -> None:
        rows[arm].append({name: accuracy(run, images) for name, images in tests.items()} | {"asked": asked})
        print(json.dumps({"seed": given.seed, "arm": arm, **rows[arm][-1]}), flush=True)

    measure("nothing", out / "model" / "run", 0)
    parent, both = out / "model", out / "all"
    written(both, [*first.iterdir()])
    start = answered(parent)
    for number, month in enumerate(months, 1):
        made = improve(run=parent, new=month, classes=everything, force=True)
        parent = made.path
        measure("improve", parent / "run", answered(parent) - start)
        written(both, [*month.iterdir()])
        distill(data=both, describer=describer, classes=everything, out=out / f"all-{number}", **options)
        measure("everything", out / f"all-{number}" / "run", answered(out / f"all-{number}") - start)
    (out / "result.json").write_text(json.dumps({"seed": given.seed, **rows}))


if __name__ == "__main__":
    main()
