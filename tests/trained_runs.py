"""Small finished runs on real pictures, one of each family of models whose first layers differ."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.base.files import read_json, write_json
from gpt4image.config import DescribeConfig, EncodeConfig, EvaluateConfig, TrainConfig
from gpt4image.data import load_dataset
from gpt4image.data.known_sets import load_openmoji
from gpt4image.describing.describe import describe
from gpt4image.encoding.encode import encode
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.training.train import train
from worlds import packaged_texts

CLASSES = ("animal", "food", "vehicle")
TINY_RESNET = {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet-small-stem": {**TINY_RESNET, "stem": "small"},
    "resnet-larger-crops": {**TINY_RESNET, "stem": "standard", "min_scale": 0.5, "memory_format": "channels_last"},
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


def rewrite_config(run: Path, record: dict[str, Any], **of_run: Any) -> None:
    """Give a run other options, and other facts in run.json."""
    write_json(run / runs.CONFIG, record)
    write_json(run / runs.RUN, read_json(run / runs.RUN) | of_run)


def of_several_labels(run: Path, out: Path, classes: Sequence[str], thresholds: Sequence[float]) -> Path:
    """Copy a run, as if it had been trained for several labels per image."""
    shutil.copytree(run, out)
    config = read_json(out / runs.CONFIG) | {"task": "multilabel"}
    rewrite_config(out, config, classes=list(classes), decision={"thresholds": list(thresholds)})
    return out


def described(spec: str, folder: Path, encoder: str = "bag-of-words:64", name: str = "texts") -> Path:
    """Describe the pictures by the packaged texts of a multimodal model, and return their embedding table."""
    text_of = packaged_texts()
    lines = [json.dumps({"key": key, "description": text_of[Path(key).stem]}) for key in load_dataset(spec).keys]
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    describer = f"replay:{folder / 'captions.jsonl'}"
    store, table = folder / f"{name}.db", folder / f"{name}.emb"
    describe(DescribeConfig(data=spec, store=store, describer=describer, splits="train,val,test"))
    encode(EncodeConfig(store=store, out=table, encoder=encoder))
    return table
