"""Small finished runs on real pictures, one of each family of models whose first layers differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.data.openmoji import load_openmoji
from gpt4image.evaluate import evaluate
from gpt4image.train import train

CLASSES = ("animal", "food", "vehicle")
TINY_RESNET = {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet-small-stem": {**TINY_RESNET, "stem": "small"},
    "resnet-larger-crops": {**TINY_RESNET, "stem": "standard", "min_scale": 0.5, "memory_format": "channels_last"},
    "convnext-small-stem": {"model": "test_convnext", "stem": "small"},
    "vit-small-stem": {"model": "test_vit", "stem": "small"},
}
SHORT = {"image_size": 32, "batch_size": 16, "epochs": 2, "threads": 1, "precision": "fp32"}


def write_pictures(root: Path, per_class: int = 16) -> str:
    """Write pictograms as class folders, transparent PNG files as they come; return the SPEC."""
    images = load_openmoji()
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        label = images.classes.index(name)
        for i in [i for i, found in enumerate(images.labels.tolist()) if found == label][:per_class]:
            (root / name / f"{images.keys[i]}.png").write_bytes(images.read(i))
    return f"folder:{root}"


def trained(spec: str, out: Path, **options: Any) -> Path:
    """Train a run for a few steps and measure it on its test split."""
    train(TrainConfig(**{"data": spec, "out": out, "memory_format": "contiguous", **SHORT, **options}))
    evaluate(EvaluateConfig(run_dir=out))
    return out
