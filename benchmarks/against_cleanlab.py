"""Wrong labels found by the teacher, and by cleanlab from the images alone.

    python benchmarks/against_cleanlab.py lite0.safetensors    # the file of benchmarks/pretrained_weights.py

Labels of the described photographs of CIFAR-10 are made wrong. cleanlab gets probabilities out of fold of a softmax
classifier on ImageNet features, which is what its tutorials do, or those of the teacher; its own rules find the issues.
The teacher's are those of `gpt4image label`. Means over draws, with their range. cleanlab is AGPL: it is installed
into bench-out/cleanlab-venv, runs there as a program of its own, and nothing here imports it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from frozen import DRAWS, STRENGTHS, WAYS, Array, Frozen, Ints, Material, apply, fit, material, one_hot
from gpt4image.data.splits import flip_labels
from gpt4image.labelling.label_noise import suspected
from rivals import python_with
from text_labels import print_table

CLEANLAB = "cleanlab==2.7.1"
FOLDS = 5
SITUATIONS = {"20 %, at random": (0.2, False), "40 %, at random": (0.4, False), "40 %, one other class": (0.4, True)}
SCRIPT = """
import sys, numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
given = np.load(sys.argv[1])
np.savez(sys.argv[2], named=find_label_issues(given["labels"], given["predicted"], n_jobs=1),
         quality=get_label_quality_scores(given["labels"], given["predicted"]))
"""


def by_cleanlab(labels: Ints, predicted: Array) -> tuple[NDArray[np.bool_], Array]:
    """Return (n,) which labels cleanlab calls issues, and its quality of each, lower where it doubts more."""
    with TemporaryDirectory() as name:
        asked, answered = Path(name, "asked.npz"), Path(name, "answered.npz")
        np.savez(asked, labels=labels, predicted=predicted)
        subprocess.run([str(python_with(CLEANLAB)), "-c", SCRIPT, str(asked), str(answered)], check=True)
        with np.load(answered) as found:
            return found["named"], found["quality"]


def of_images(features: Array, labels: Ints, classes: int, seed: int) -> Array:
    """Return (n, K) probabilities out of fold, of the L2 strength whose own are likeliest to give the labels."""
    folds = np.random.default_rng(seed).integers(0, FOLDS, len(labels))
    inputs, aims = torch.from_numpy(features), torch.from_numpy(one_hot(labels, classes))

    def predicted(strength: float) -> Array:
        found = np.empty((len(labels), classes), np.float32)
        for fold in range(FOLDS):
            own = torch.from_numpy(folds == fold)
            found[folds == fold] = apply(fit(inputs[~own], aims[~own], strength), inputs[own]).softmax(1).numpy()
        return found

    def loss(found: Array) -> float:
        return -float(np.log(np.maximum(found[np.arange(len(labels)), labels], 1e-9)).mean())

    return min(map(predicted, STRENGTHS), key=loss)


def judged(truth: Ints, given: Ints, named: NDArray[np.bool_], quality: Array, predicted: Array) -> list[float]:
    """Return the numbers of a row of the table."""
    wrong = given != truth
    hits, mended = (named & wrong).sum(), (predicted.argmax(axis=1) == truth)[wrong].mean()
    return [hits / named.sum(), hits / wrong.sum(), average_precision_score(wrong, -quality), mended]


def measured(known: Material, rate: float, by_class: bool, seed: int) -> dict[str, list[float]]:
    """Return the numbers of each way of finding wrong labels, for one draw of them."""
    truth, everyone = known.truth, np.arange(len(known.truth))
    given = flip_labels(truth, everyone, rate, known.classes, seed, class_dependent=by_class)
    images = of_images(known.train, given, known.classes, seed)
    found = {"cleanlab, images": judged(truth, given, *by_cleanlab(given, images), images)}
    said = {way: np.asarray(known.predicted(given, way, seed).probabilities) for way in WAYS}
    for way, shares in said.items():
        found[f"teacher, {way}"] = judged(truth, given, suspected(shares, given), shares[everyone, given], shares)
    return found | {"cleanlab, fused": judged(truth, given, *by_cleanlab(given, said["fused"]), said["fused"])}


def main() -> None:
    known = material("CIFAR-10", Frozen(sys.argv[1]), unseen=False)
    rows: list[tuple[str, list[str]]] = []
    for title, (rate, by_class) in SITUATIONS.items():
        draws = [measured(known, rate, by_class, seed) for seed in range(DRAWS)]
        for arm in draws[0]:
            columns = np.array([draw[arm] for draw in draws]).T
            cells = [f"{each.mean():.3f} ({each.min():.3f} to {each.max():.3f})" for each in columns]
            rows.append((f"{title}: {arm}", cells))
    print_table(
        f"CIFAR-10, {len(known.truth)} photographs, {DRAWS} draws",
        ["precision", "recall", "average precision", "wrong labels whose likeliest class is right"],
        rows,
    )


if __name__ == "__main__":
    main()
