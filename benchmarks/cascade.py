"""What `describe --second-describer` gains: a describer that is 20 % worse, and the real one for some of its images.

    python benchmarks/cascade.py [DRAWS]
    python benchmarks/cascade.py texts [DRAWS]

Recorded answers about clothes, CIFAR-10 and OpenMoji are the second describer. The first one gives the same, with 20 %
of its classes replaced at random. Where it errs, it is less confident by .3, by .1, or not at all. Accuracy of the
second answer where it was asked, else of the first.

With ``texts``: accuracy of targets from answers and descriptions, without a label, where the second describer is asked
about the tenth of the images with the largest expected gain by these targets (``--second-targets``).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit import answers
from gpt4image.base.files import read_json_lines
from gpt4image.describing.cascade import Known, forecast, next_round, pilot
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.text_classifier import Texts
from text_labels import DATA, encoded

Ints = NDArray[np.int64]
WORSE = 0.2
LIMITS = (0.2, 0.05)


def ask(known: Known, second: Ints, truth: Ints, rows: Ints) -> None:
    known.differs[rows] = known.said[rows] != second[rows]
    known.right[rows] = np.where(known.right[rows] < 0, -1, np.stack([known.said == truth, second == truth], 1)[rows])


def run(name: str, less: float, labelled: float, seed: int) -> dict[str, tuple[float, ...]]:
    """Return accuracy, part of the images asked, and accuracy that was expected, by what ends the asking."""
    truth, second, other, stated, classes = answers(name)
    rng = np.random.default_rng(seed)
    bad = rng.random(len(truth)) < WORSE
    said = np.where(bad, rng.integers(0, classes, len(truth)), second)
    sure = np.where(bad, np.clip(stated - less, 0.05, 1), stated)
    right = np.full((len(truth), 2), -1)
    mine = rng.random(len(truth)) < labelled
    right[mine, 0] = (said == truth)[mine]
    known = Known(said, sure, other >= 0, np.full(len(truth), -1), right)

    def state() -> tuple[float, float, float]:
        asked = known.differs >= 0
        final = np.where(asked, second, said)
        return float((final == truth).mean()), float(asked.mean()), forecast(known).right / len(truth)

    found: dict[str, tuple[float, ...]] = {"first": state(), "second": (float((second == truth).mean()), 1.0, 1.0)}
    names = [f"{row}" for row in rng.permutation(len(truth))]
    ask(known, second, truth, np.array([names.index(one) for one in pilot(names)]))
    for limit in LIMITS:
        while len(rows := next_round(forecast(known).gain, limit)):
            room = round(0.1 * len(truth)) - int((known.differs >= 0).sum())
            if "10 %" not in found and len(rows) >= room:
                ask(known, second, truth, rows[:room])
                found["10 %"] = state()
            else:
                ask(known, second, truth, rows)
        found[f"gain < {limit}"] = state()
    tenth = rng.random(len(truth)) < 0.1
    found["10 % at random"] = (float((np.where(tenth, second, said) == truth).mean()), 0.1, 0.0)
    return found


def targets_of(texts: Texts, other: Ints, stated: NDArray[np.float64], classes: int, first: Ints) -> Any:
    said = Answers(first, other, stated.astype(np.float32))
    return predict_labels(texts, np.full(len(first), -1), classes, 0, answers=said).probabilities[:]


def with_texts(draws: int) -> None:
    for name in ("clothes", "cifar10", "openmoji"):
        truth, second, other, stated, classes = answers(name)
        folder, file = DATA / name, "answers.jsonl" if name == "clothes" else "answers-class.jsonl"
        said_of = "answers.jsonl" if name == "clothes" else "descriptions-plain.jsonl"
        text_of = {row["key"]: row["description"] for row in read_json_lines(folder / said_of)}
        texts = Texts(encoded(tuple(text_of[row["key"]] for row in read_json_lines(folder / file)), "minilm"),
                      np.ones(len(truth), bool))  # fmt: skip
        total, none, scores = len(truth), np.full(len(truth), -1), list[list[float]]()

        targets = partial(targets_of, texts, other, stated, classes)
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            said = np.where(rng.random(total) < WORSE, rng.integers(0, classes, total), second)
            before = targets(said)
            best = before.argmax(axis=1)
            known = Known(best, before.max(axis=1).astype(float), other >= 0, none.copy(), np.full((total, 2), -1))
            looks = rng.permutation(total)[:50]
            ask(known, second, truth, looks)
            order = np.argsort(-forecast(known).gain)[: round(0.1 * total) - 50]
            asked = np.zeros(total, bool)
            asked[looks] = asked[order] = True
            mixed = targets(np.where(asked, second, said))
            scores.append([float((one == truth).mean()) for one in (
                said, best, mixed.argmax(axis=1), targets(second).argmax(axis=1), second)])  # fmt: skip
        means = np.mean(scores, axis=0)
        print(f"{name}: first {means[0]:.3f}, targets of it {means[1]:.3f}, with the second for 10 % {means[2]:.3f}, "
              f"targets of the second for all {means[3]:.3f}, second {means[4]:.3f}", flush=True)  # fmt: skip


def main(draws: int) -> None:
    for name in ("clothes", "cifar10", "openmoji"):
        for less in (0.3, 0.1, 0.0):
            for labelled in (0.0, 0.05):
                runs = [run(name, less, labelled, seed) for seed in range(draws)]
                print(f"{name}, errors less confident by {less}, {labelled:.0%} labelled", flush=True)
                for what in sorted({key for one in runs for key in one}):
                    mean = np.mean([one[what] for one in runs if what in one], axis=0)
                    print(f"  {what:16} right {mean[0]:.3f}  asked {mean[1]:.3f}  expected {mean[2]:.3f}", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    number = int(words[-1]) if words and words[-1].isdecimal() else 10
    (with_texts if "texts" in words else main)(number)
