"""What weights are worth that were made without labels: fine-tuned, and as a probe, against training from scratch.

    python benchmarks/pretraining.py --data hf:DATA/images --embeddings cifar.emb --pictograms openmoji.emb \\
        --out pretraining

Per seed, each recipe of recipes/pretrain/ is trained on the described photographs, at equal views. The comparisons
fine-tuned-*.toml start from these weights, with 10 labels per class of the pictograms, which the texts were not made
for, and of the photographs themselves. Accuracy on the test split, mean over seeds; in brackets, the 95 % interval of
the difference to training from scratch (paired, Student's t). The same command goes on where it stopped.

With --weights (the file of benchmarks/pretrained_weights.py) also ImageNet weights, of another model: fine-tuned and
as a probe at 96 pixels, against that model from scratch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gpt4image.artifacts.runs import Comparison, load_comparisons
from gpt4image.comparing.compare import compare
from gpt4image.comparing.results import paired
from gpt4image.config import CompareConfig, TrainConfig
from gpt4image.options import load_recipe, read_recipe
from gpt4image.pages.numbers import points, points_interval
from gpt4image.training.train import train
from pretrained_weights import MODEL

RECIPES = Path(__file__).parents[1] / "recipes" / "pretrain"
OBJECTIVES = ("simclr", "captions", "simclr-captions")
SCRATCH = "baseline"


@dataclasses.dataclass(frozen=True)
class Options:
    data: str
    """Photographs that the weights are made of."""
    embeddings: Path
    """Table of their descriptions."""
    pictograms: Path
    """Table of the descriptions of the pictograms, made as recipes/README.md says."""
    out: Path
    seeds: int = 3
    epochs: int | None = None
    """Of pretraining with two views per image, twice as many with one; as the recipes say without it."""
    fine_tuning_epochs: int | None = None
    weights: Path | None = None
    """ImageNet weights."""
    only: tuple[str, ...] = OBJECTIVES


def pretrained(options: Options, name: str, seed: int) -> Path:
    """Return the weights of an objective and a seed; a finished run is not trained again."""
    out = options.out / f"{name}-{seed}"
    views = 2 if name == "captions" else 1
    more: dict[str, Any] = {} if options.epochs is None else {"epochs": views * options.epochs}
    where = {"data": options.data, "embeddings": options.embeddings, "out": out}
    train(load_recipe(RECIPES / f"{name}.toml", TrainConfig, **where, seed=seed, threads=1, resume=True, **more))
    return out / "model.safetensors"


def compared(options: Options, recipe: str, name: str, seed: int, **more: Any) -> Comparison:
    """Return the comparison of one seed."""
    out = options.out / f"{name}-{seed}"
    epochs: dict[str, Any] = {} if options.fine_tuning_epochs is None else {"epochs": options.fine_tuning_epochs}
    values = {"out": out, "seeds": 1, "first_seed": seed, "jobs": 1, "threads": 1, **epochs, **more}
    compare(load_recipe(RECIPES / f"{recipe}.toml", CompareConfig, **values))
    return next(iter(load_comparisons(out).values()))


def of_seed(options: Options, seed: int) -> dict[str, Comparison]:
    """Return the comparisons of one seed by title."""
    weights = {name: str(pretrained(options, name, seed)) for name in options.only}
    shared = read_recipe(RECIPES / "base" / "fine-tuned.toml", CompareConfig)
    variants = {
        name: table | {"init": weights[name.removesuffix("-probe")]}
        for name, table in shared["variants"].items()
        if name.removesuffix("-probe") in weights
    }
    sets = {
        "pictograms": {"data": "openmoji", "embeddings": options.pictograms},
        "photographs": {"data": options.data, "embeddings": options.embeddings},
    }
    found = {
        title: compared(options, f"fine-tuned-{title}", title, seed, variants=variants, **where)
        for title, where in sets.items()
    }
    if options.weights is not None:
        given = {"arm": SCRATCH, "init": str(options.weights)}
        lite = {"imagenet": given, "imagenet-probe": given | {"freeze": "all"}}
        model = {"model": MODEL, "model_args": {}, "stem": "standard", "image_size": 96, "arms": SCRATCH}
        for title, where in sets.items():
            name = f"{title}, {MODEL}"
            out = f"{title}-imagenet"
            found[name] = compared(options, f"fine-tuned-{title}", out, seed, variants=lite, **model, **where)
    return found


def main() -> None:
    from command_line import parsed

    options = parsed(Options)
    every = [of_seed(options, seed) for seed in range(options.seeds)]
    for title, first in every[0].items():
        scores = {arm: [found[title].arms[arm].test[0] for found in every] for arm in first.arms}
        print(f"\n{title}, {len(every)} seeds")
        for arm, values in scores.items():
            gain = paired(values, scores[SCRATCH]) if arm != SCRATCH and len(values) > 1 else None
            said = "" if gain is None else f"  {points(gain.difference)} points ({points_interval(gain.ci95)})"
            print(f"  {arm:22}{sum(values) / len(values):.3f}{said}")


if __name__ == "__main__":
    main()
