"""Draw docs/images/clothes.png from the record of the demo; with a folder, renew the record first.

python docs/scripts/clothes_picture.py             draws what docs/research/records/ says
python docs/scripts/clothes_picture.py demo-out    takes the records of a finished `gpt4image demo` before
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import records
import tables
from gpt4image.base.files import read_json_lines
from gpt4image.data.known_sets import ANSWERS, load_clothes
from gpt4image.evaluating.examples import across_classes, read_predictions

SHOWN = records.FOLDER / "clothes-pictures.csv"
PICTURE = Path(__file__).resolve().parents[1] / "images" / "clothes.png"
PHOTOGRAPHS = 6
SIDE = 150
"""Pixels of a photograph."""


def renew(demo: Path) -> None:
    """Take what the picture and the tables need from a finished demo; the rows of "demo/" stay, mend them by hand.

    Drawn are photographs across random classes: training images with their answers, test images with predictions.
    """
    records.add("clothes.csv", tables.DEMO, str(demo / "comparison.json"))
    images, rng = load_clothes(), np.random.default_rng(0)
    answers = {row["key"]: (row["class"], row["confidence"]) for row in read_json_lines(ANSWERS)}
    predicted = read_predictions(demo / "run", "test", images)
    named = {"train": answers, "test": {key: (row["class"], row["probability"]) for key, row in predicted.items()}}
    with SHOWN.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "key", "label", "class", "probability"])
        for split, by_key in named.items():
            classes = set(rng.permutation(len(images.classes))[:PHOTOGRAPHS].tolist())
            some = [row for row in rng.permutation(images.indices(split)) if int(images.labels[row]) in classes]
            for row in across_classes(images.labels, np.array(some), PHOTOGRAPHS).tolist():
                key = images.keys[row]
                writer.writerow([split, key, images.label_names(row)[0], *by_key[key]])


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

    rows, images = records.table(SHOWN.name), load_clothes()
    figure = Figure(figsize=(9.6, 5.1), layout="constrained", facecolor="white")
    titles = {
        "train": "A multimodal LLM names the class of each training photograph",
        "test": "The small model classifies held-out photographs",
    }
    for part, (split, title) in zip(figure.subfigures(2, 1), titles.items(), strict=True):
        part.suptitle(title, fontsize=13, x=0.01, ha="left", fontweight="bold", color="#1d2126")
        own = [row for row in rows if row["split"] == split]
        for axis, one in zip(part.subplots(1, PHOTOGRAPHS), own, strict=True):
            with Image.open(io.BytesIO(images.read(images.keys.index(one["key"])))) as picture:
                axis.imshow(ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE)))
            right = one["class"] == one["label"]
            mark = "" if split == "train" else " ✓" if right else f" ✗ ({one['label']})"
            colour = "#1d2126" if split == "train" or right else "#a9480b"
            text = f"{one['class']} {100 * float(one['probability']):.0f} %{mark}"
            axis.set_title(text, y=-0.2, fontsize=11, color=colour)
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
