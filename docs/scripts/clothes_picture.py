"""Draw docs/images/clothes.png from the record of the demo; with a folder, renew the record first.

python docs/scripts/clothes_picture.py             draws what docs/research/records/ says
python docs/scripts/clothes_picture.py demo-out    takes the records of a finished `gpt4image demo` before
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

import records
import tables
from gpt4image.data.known_sets import ANSWERS, load_clothes
from gpt4image.evaluating.examples import across_classes, read_predictions

SHOWN = records.FOLDER / "clothes-pictures.csv"
PICTURE = Path(__file__).resolve().parents[1] / "images" / "clothes.png"
PHOTOGRAPHS = 6
SIDE = 150
"""Pixels of a photograph."""


def renew(demo: Path) -> None:
    """Take what the picture and the tables need from a finished demo; the rows of "demo/" stay, mend them by hand."""
    records.add("clothes.csv", tables.DEMO, str(demo / "comparison.json"))
    with SHOWN.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["split", "key", "label", "class", "probability"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"split": split, **row} for split, found in shown(demo).items() for row in found)


def shown(demo: Path) -> dict[str, list[dict[str, Any]]]:
    """Return keys, answers and predictions of the photographs that are drawn: a random choice across classes."""
    images, rng = load_clothes(), np.random.default_rng(0)
    answers = {row["key"]: row for row in map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())}
    predictions = read_predictions(demo / "run", "test", images)
    rows: dict[str, list[dict[str, Any]]] = {}
    for split in ("train", "test"):
        classes = set(rng.permutation(len(images.classes))[:PHOTOGRAPHS].tolist())
        some = [row for row in rng.permutation(images.indices(split)) if int(images.labels[row]) in classes]
        chosen = across_classes(images.labels, np.array(some), PHOTOGRAPHS).tolist()
        said = {images.keys[row]: answers[images.keys[row]] for row in chosen} if split == "train" else predictions
        rows[split] = [
            {
                "key": images.keys[row],
                "label": images.label_names(row)[0],
                "class": said[images.keys[row]]["class"],
                "probability": said[images.keys[row]].get("confidence", said[images.keys[row]].get("probability")),
            }
            for row in chosen
        ]
    return rows


def caption() -> str:
    """Return what it took and what came of it, in two lines, which fit the width of the picture."""
    facts = {cell: row.mean for (record, _, cell), row in records.rows().items() if record == tables.DEMO}
    minutes, right = facts["demo/distill_cpu_seconds"] / 60, 100 * facts["demo/accuracy"]
    return (
        f"learnt from {facts['demo/photographs']:,.0f} photographs that no person labelled: "
        f"${facts['demo/live_cost_usd']:.2f} of answers, {minutes:.0f} minutes of one CPU core\n"
        f"{right:.1f} % of {facts['data/test']:.0f} held-out photographs are classified correctly"
    )


def draw() -> None:
    """Write the picture: photographs and answers above, other photographs and predictions below."""
    from matplotlib.figure import Figure

    rows = records.table(SHOWN.name)
    images = load_clothes()
    row_of = {key: row for row, key in enumerate(images.keys)}
    figure = Figure(figsize=(9.6, 5.1), layout="constrained", facecolor="white")
    parts = figure.subfigures(2, 1)
    titles = (
        "A multimodal LLM names the class of each training photograph",
        "The small model classifies held-out photographs",
    )
    for part, title, split in zip(parts, titles, ("train", "test"), strict=True):
        part.suptitle(title, fontsize=13, x=0.01, ha="left", fontweight="bold", color="#1d2126")
        for axis, one in zip(
            part.subplots(1, PHOTOGRAPHS), [row for row in rows if row["split"] == split], strict=True
        ):
            with Image.open(io.BytesIO(images.read(row_of[one["key"]]))) as picture:
                axis.imshow(ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE)))
            right = one["class"] == one["label"]
            mark = "" if split == "train" else " ✓" if right else f" ✗ ({one['label']})"
            colour = "#1d2126" if split == "train" or right else "#a9480b"
            axis.set_title(
                f"{one['class']} {100 * float(one['probability']):.0f} %{mark}", y=-0.2, fontsize=11, color=colour
            )
            axis.axis("off")
    figure.supxlabel(caption(), fontsize=13, color="#0b5fa5")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, metadata={"Software": None})
    with Image.open(buffer) as drawn:
        drawn.convert("RGB").quantize(200, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB; {caption()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        renew(Path(sys.argv[1]))
    draw()
