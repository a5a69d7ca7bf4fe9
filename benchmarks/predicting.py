"""`predict` with an ONNX file, against the loop that one would write with Pillow and onnxruntime."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from describing import photographs
from gpt4image.config import ExportConfig, PredictConfig, TrainConfig
from measure import Row, seconds_in_turn

BATCH = 64


def predicting() -> list[Row]:
    """Predict small pictures with the model of the demo, and larger ones with a ResNet-18."""
    with (
        tempfile.TemporaryDirectory() as folder,
        photographs(600, (32, 32)) as small,
        photographs(64, (640, 480)) as large,
    ):
        title = "JPEG of 640 x 480, ResNet-18"
        return [
            _row(Path(folder), small, "JPEG of 32 x 32, model of the demo", image_size=32, rounds=9),
            _row(Path(folder), large, title, image_size=224, model="resnet18", rounds=5),
        ]


def _row(folder: Path, images: Path, name: str, rounds: int, **options: Any) -> Row:
    from gpt4image.deploying.predict import predict

    model, out = _exported(folder, **options), folder / "predictions.csv"
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
    return Row(title, len(plain) / mine, len(plain) / limit, "images/s", ">= 0.9")


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
