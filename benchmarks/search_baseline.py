"""Search the baseline's settings on the validation split: a gain over an undertrained baseline is no gain.

    python benchmarks/search_baseline.py --data hf:DATA/cifar10/images --embeddings cifar.emb --out search.jsonl \
        --labels-per-class 10 --seeds 3

Trains labels-only models with one option changed at a time and writes mean validation accuracy as JSON lines. The test
split is not read. docs/log.md says what was found and what became the default.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tyro

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "two thirds of the epochs": {"epochs": 2 / 3},
    "a third of the epochs": {"epochs": 1 / 3},
    "twice the epochs": {"epochs": 2.0},
    "lr 0.01": {"lr": 0.01},
    "lr 0.02": {"lr": 0.02},
    "lr 0.1": {"lr": 0.1},
    "weight decay 0.3": {"weight_decay": 0.3},
    "lr 0.02, weight decay 0.3": {"lr": 0.02, "weight_decay": 0.3},
    "lr 0.02, weight decay 1": {"lr": 0.02, "weight_decay": 1.0},
    "lr 0.05, weight decay 1": {"lr": 0.05, "weight_decay": 1.0},
    "weight decay 0": {"weight_decay": 0.0},
    "adamw lr 2e-3": {"optimizer": "adamw", "lr": 2e-3},
    "adamw lr 5e-3": {"optimizer": "adamw", "lr": 5e-3},
    "adamw lr 1e-2": {"optimizer": "adamw", "lr": 1e-2},
    "sgd lr 0.1 wd 5e-4": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4},
    "batch 32": {"batch_size": 32},
    "crops from 0.5": {"min_scale": 0.5},
    "colour 0.3": {"colour": 0.3},
    "erase 0.3": {"erase": 0.3},
    "cutmix 1": {"cutmix": 1.0},
    "mixup 0.2": {"mixup": 0.2},
    "ema 0.99": {"ema": 0.99},
    "no label smoothing": {"label_smoothing": 0.0},
}


@dataclasses.dataclass(frozen=True)
class Search:
    data: str
    """Image set SPEC."""
    embeddings: Path
    """Table that says which images are described; training uses those alone."""
    out: Path
    """JSON lines to append to."""
    labels_per_class: int | None = None
    label_noise: float = 0.0
    epochs: int | None = None
    """Epochs of the default; those that the set gets without it."""
    seeds: int = 2
    variants: tuple[str, ...] = tuple(VARIANTS)


def one(search: Search, variant: str, seed: int) -> float:
    """Return the validation accuracy of one labels-only run."""
    from gpt4image.auto import choose
    from gpt4image.compare import labels_left
    from gpt4image.config import TrainConfig
    from gpt4image.devices import cpu_threads
    from gpt4image.runs import read_run
    from gpt4image.train import run
    from gpt4image.training_data import load_image_set, prepare

    options = dict(VARIANTS[variant])
    base = TrainConfig(
        data=search.data, embeddings=search.embeddings, only_described=True, seed=seed, out=Path("unused"), threads=1,
        precision="bf16", memory_format="channels_last", epochs=search.epochs,
    )  # fmt: skip
    if "epochs" in options:
        default = base.epochs or choose(base, load_image_set(base)[0])[0].epochs or 1
        options["epochs"] = max(1, round(default * options["epochs"]))
    with cpu_threads(1), tempfile.TemporaryDirectory() as folder:
        ready = prepare(base.model_copy(update=options), splits=("train", "val"))
        labels = labels_left(ready.data, search.labels_per_class, search.label_noise, seed)
        ready = dataclasses.replace(ready, data=dataclasses.replace(ready.data, labels=labels, text=None))
        run(ready, Path(folder) / "run", arm="baseline", resume=False, on_step=lambda *_: None)
        return read_run(Path(folder) / "run")["metrics"][-1]["val"]["top1"]


def main() -> None:
    search = tyro.cli(Search)
    jobs = [(variant, seed) for variant in search.variants for seed in range(search.seeds)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        futures = {job: pool.submit(one, search, *job) for job in jobs}
        for variant in search.variants:
            values = [futures[variant, seed].result() for seed in range(search.seeds)]
            row = {
                "variant": variant,
                "labels_per_class": search.labels_per_class,
                "label_noise": search.label_noise,
                "val_top1": [round(value, 4) for value in values],
                "mean": round(sum(values) / len(values), 4),
            }
            print(json.dumps(row), flush=True)
            with search.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
