"""`predict` with an ONNX file, against the loop that one would write with Pillow and onnxruntime."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gpt4image.config import ExportConfig, PredictConfig, TrainConfig
from gpt4image.data.known_sets import load_openmoji
from measure import Row, seconds_in_turn

BATCH = 64


def predicting() -> list[Row]:
    """Predict small pictures with the model of the demo, and larger ones with a ResNet-18."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = _pictures(folder / "small"), _photographs(folder / "large")
        return [
            _row(folder, small, "small pictures (PNG of 32 x 32), model of the demo", image_size=32, rounds=9),
            _row(
                folder, large, "photographs (JPEG of 640 x 480), ResNet-18", image_size=224, model="resnet18", rounds=5
            ),
        ]


def _row(folder: Path, images: Path, name: str, rounds: int, **options: Any) -> Row:
    from gpt4image.deploying.predict import predict

    model, out = _exported(folder, **options), folder / "predictions.csv"
    count = sum(1 for path in images.rglob("*") if path.is_file())
    plain: list[int] = []

    def ours() -> None:
        predict(PredictConfig(model=model, images=(str(images),), out=out))

    def theirs() -> None:
        plain[:] = _plain_loop(model, images, options["image_size"])

    mine, limit = seconds_in_turn(ours, theirs, rounds=rounds)
    with out.open(encoding="utf-8") as file:
        predicted = [int(row["class"]) for row in csv.DictReader(file)]
    same = np.mean(np.array(predicted) == np.array(plain))
    title = f"{name}: images/s over Pillow and onnxruntime ({same:.1%} same class)"
    return Row(name=title, ours=count / mine, limit=count / limit, unit="images/s", goal=(">=", 0.9))


def _plain_loop(model: Path, images: Path, size: int) -> list[int]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    found: list[int] = []
    for start in range(0, len(paths), BATCH):
        pictures = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
        squares = [ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC) for picture in pictures]
        batch = np.stack([np.asarray(square) for square in squares]).astype(np.float32).transpose(0, 3, 1, 2) / 255
        probabilities = np.asarray(session.run(None, {"images": batch})[0])
        found += probabilities.argmax(axis=1).tolist()
    return found


def _exported(folder: Path, **options: Any) -> Path:
    """Return an ONNX file of a model that was trained for a moment: what it says does not matter here."""
    from gpt4image.deploying.export import export
    from gpt4image.training.train import train

    rng = np.random.default_rng(0)
    name = options.get("model", "small")
    for number in range(20):
        path = folder / f"data-{name}" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    run, out = folder / f"run-{name}", folder / f"model-{name}"
    plain = {"epochs": 1, "device": "cpu", "precision": "fp32", "memory_format": "contiguous"}
    train(TrainConfig(data=f"folder:{folder / f'data-{name}'}", out=run, **plain, **options))
    export(ExportConfig(run_dir=run, format="onnx", out=out))
    return out / "model.onnx"


def _emoji() -> Iterator[Image.Image]:
    images = load_openmoji()
    for row in range(len(images)):
        yield Image.open(io.BytesIO(images.read(row))).convert("RGB")


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, picture in enumerate(_emoji()):
        picture.resize((32, 32)).save(folder / f"{number:04}.png")
    return folder


def _photographs(folder: Path) -> Path:
    """Write JPEG files of the size and detail of photographs: 12 pictograms each on a noisy ground."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    emoji = list(_emoji())
    for number in range(64):
        ground = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize((640, 480))
        for position in range(12):
            picture = emoji[(12 * number + position) % len(emoji)].resize((120, 120))
            ground.paste(picture, (20 + position % 4 * 160, 20 + position // 4 * 160))
        ground.save(folder / f"{number:03}.jpg", quality=90)
    return folder
