"""A small model finds pictures by words: test pictures of OpenMoji that have no description, and a sheet of them.

python examples/search_openmoji.py --out found

Only the training pictures have a description here, so a test picture is found by what the model sees in it alone.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gpt4image import Dataset, load_dataset
from gpt4image.artifacts.runs import is_finished
from gpt4image.config import DescribeConfig, EncodeConfig, SearchConfig, TrainConfig
from gpt4image.data.openmoji import packaged_descriptions
from gpt4image.describing.describe import describe
from gpt4image.encoding.encode import encode
from gpt4image.searching.search import search
from gpt4image.training.train import train

QUERIES = (
    "a yellow fruit",
    "someone riding a bicycle",
    "a building with windows",
    "a sad face",
    "a red sign",
    "someone playing an instrument",
)
PICTURE, GAP, TEXT = 72, 12, 30
CREDIT = "Pictograms: OpenMoji, CC BY-SA 4.0. Found among 387 test pictures by a ResNet of 0.3 million weights."


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on described pictograms, search the others by words.")
    parser.add_argument("queries", nargs="*", default=QUERIES, help="what to look for")
    parser.add_argument("--out", type=Path, default=Path("found"), help="folder for the run and the sheet")
    parser.add_argument("--epochs", type=int, help="passes over the training pictures; chosen by gpt4image without it")
    parser.add_argument("--top", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    images = load_dataset("openmoji")
    if not is_finished(args.out / "run"):
        train_on_described(images, args.out, args.epochs)
    run, texts = args.out / "run", tuple(args.queries)
    outcome = search(SearchConfig(run_dir=run, texts=texts, data="openmoji", split="test", top=args.top))
    print(outcome.text)
    draw(images, outcome.record["queries"]).quantize(128).save(args.out / "sheet.png", optimize=True)
    print(f"\nsaved {args.out / 'sheet.png'}")


def train_on_described(images: Dataset, out: Path, epochs: int | None) -> None:
    """Train a run whose embedding table knows descriptions of training pictures alone."""
    in_train = {images.keys[i] for i in images.indices("train")}
    lines = packaged_descriptions().read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["key"] in in_train]
    (out / "train.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    describe(DescribeConfig(data="openmoji", store=out / "train.db", describer=f"replay:{out / 'train.jsonl'}"))
    encode(EncodeConfig(store=out / "train.db", out=out / "train.emb"))
    train(TrainConfig(data="openmoji", embeddings=out / "train.emb", out=out / "run", epochs=epochs))


def draw(images: Dataset, found: list[dict]) -> Image.Image:
    """Return one row of pictures for each query, best first."""
    columns = max(len(row["results"]) for row in found)
    height = TEXT + PICTURE + GAP
    sheet = Image.new("RGB", (GAP + columns * (PICTURE + GAP), GAP + len(found) * height + TEXT), "white")
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(found):
        top = GAP + number * height
        pen.text((GAP, top), row["query"], fill="#1d2126", font=ImageFont.load_default(18))
        for column, result in enumerate(row["results"]):
            with Image.open(io.BytesIO(images.read(images.keys.index(result["key"])))) as picture:
                sheet.paste(picture.convert("RGB"), (GAP + column * (PICTURE + GAP), top + TEXT))
    pen.text((GAP, sheet.height - TEXT + 4), CREDIT, fill="#5c6570", font=ImageFont.load_default(12))
    return sheet


if __name__ == "__main__":
    main()
