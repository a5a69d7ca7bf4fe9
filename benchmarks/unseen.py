"""Judge the runs of a comparison by images that nobody decided anything by.

    python benchmarks/unseen.py cifar10-longer --data hf:DATA/images --embeddings cifar.emb \
        --out docs/research/records/unseen/cifar10-longer.json --arms baseline,text-labels,class-name-light

Settings are searched on the validation split, and test images serve many comparisons, so that what looks best on them
is flattered. A set such as CIFAR-10, of which 2,000 training images are described and used, has more: training images
without a description, which runs with --only-described do not learn from, but those of the validation split of
searches. Seeds must be fresh as well: images do not take back a choice among seeds. The numbers are accuracies of every
run; differences are paired by seed (and, in the last column, other images could have been drawn too).
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.files import read_json, write_json
from gpt4image.comparing.results import pair
from gpt4image.data.dataset import NO_LABEL
from gpt4image.pages.numbers import p_value, percent, points, points_interval
from gpt4image.training.training_data import TrainingData

SEARCHED = 0.1  # part of train that searches validate on: the default of --val-fraction


@dataclasses.dataclass(frozen=True)
class Unseen:
    comparison: Path
    """Folder of one finished comparison, whose runs have --only-described."""
    data: str
    """Image set SPEC of its runs."""
    embeddings: Path
    """Table that says which images are described."""
    out: Path
    """Record to write."""
    arms: str = ""
    """Arms and variants to judge, separated by commas; all without it."""
    processes: int = 2


@cache
def images(data: str, embeddings: Path, image_size: int) -> tuple[TrainingData, NDArray[np.int64]]:
    """Return the training images of a set, and the positions of those that neither runs nor searches have seen."""
    from gpt4image.artifacts.table import EmbeddingTable
    from gpt4image.config import TrainConfig
    from gpt4image.training.prepare import load_dataset, prepare
    from gpt4image.training.training_data import TextTargets

    config = TrainConfig(data=data, embeddings=embeddings, image_size=image_size, val_fraction=0.0, out=Path("unused"))
    searched, _ = load_dataset(config.model_copy(update={"only_described": True, "val_fraction": SEARCHED}))
    found = prepare(config, ("train",)).data
    digests = found.image_set.digests
    held_out = {searched.digests[i] for i in np.flatnonzero(searched.splits != "train")}
    met = TextTargets.of(EmbeddingTable.open(embeddings), digests).described | np.array(
        [one in held_out for one in digests]
    )
    return found, np.flatnonzero(found.usable & (found.labels != NO_LABEL) & ~met)


def right(options: Unseen, run: str) -> NDArray[np.bool_]:
    """Return which of the images a run names right."""
    from gpt4image.artifacts import runs
    from gpt4image.evaluating.evaluate import run_predictions
    from gpt4image.parallel.devices import cpu_threads

    folder = options.comparison / run
    with cpu_threads(1):
        data, unseen = images(options.data, options.embeddings, runs.read_run(folder)["config"]["image_size"])
        return run_predictions(folder, data, unseen).argmax(axis=1) == data.labels[unseen]


def main() -> None:
    from command_line import parsed

    options = parsed(Unseen, "comparison")
    record = read_json(options.comparison / "comparison.json")
    if "comparisons" in record or not record["data"]["only_described"]:
        raise SystemExit(f"{options.comparison} must hold one comparison, whose runs have --only-described.")
    asked = options.arms.split(",") if options.arms else list(record["arms"])
    jobs = [(arm, run) for arm in asked for run in record["arms"][arm]["runs"]]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(right, [options] * len(jobs), [run for _, run in jobs]))
    answers = {arm: [row for row, (other, _) in zip(found, jobs, strict=True) if other == arm] for arm in asked}
    hits = {arm: np.stack(rows) for arm, rows in answers.items()}
    top1 = {arm: rows.mean(axis=1).tolist() for arm, rows in hits.items()}
    arms = {arm: {"seeds": record["arms"][arm]["seeds"], "accuracy": top1[arm]} for arm in asked}
    pairs = [pair(ours, other, top1, hits) for other, ours in combinations(asked, 2)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {"command": record["command"], "images": len(found[0]), "arms": arms, "pairs": pairs})
    print(f"{len(found[0]):,} images that were neither trained on, nor searched on, nor tested on\n")
    print("\n".join(f"{arm}: {percent(float(np.mean(values)))}" for arm, values in top1.items()))
    print("\n| arm | over | points | 95 % | p | p, images too |\n|---|---|---|---|---|---|")
    for gain in pairs:
        cells = [gain["arm"], gain["against"], points(gain["difference"]), points_interval(gain["ci95"])]
        print(f"| {' | '.join([*cells, p_value(gain['p']), p_value(gain['other_images']['p'])])} |")


if __name__ == "__main__":
    main()
