"""How soon an order of asking knows what all answers would say: right targets after parts of the calls.

    python benchmarks/asking.py [clothes] [CIFAR-10] [OpenMoji]

Sets, real answers and features are those of teacher.py. An image that was asked about has the class that was answered,
every other one that of a classifier on pictures, taught by these answers. Draws differ in the names of the images,
so in what is drawn at random.
"""

import hashlib
import sys
from typing import Any

import numpy as np

from gpt4image.describing.order import ONE_IN, Order, round_size
from gpt4image.labelling.texts import classify
from gpt4image.selecting.order import at_random, unlike
from teacher import CORPORA, corpus, pictures_of, print_table

DRAWS, SHARES = 3, (0.05, 0.1, 0.2, 0.35, 0.4)


class Unlike(Order):
    """The same first round, then images in doubt no two of which are alike."""

    def _chosen(self, doubt: Any, rest: Any, count: int) -> Any:
        return unlike(self.vectors, doubt[rest], rest, count, seed=0)


class AtRandom(Order):
    """All at random."""

    def _chosen(self, doubt: Any, rest: Any, count: int) -> Any:
        shuffled = at_random(self.digests, "ask")
        return shuffled[np.isin(shuffled, rest)][:count]


ARMS = {"random": AtRandom, "doubt": Unlike, "margin": Order}


def run(name: str, arm: type[Order], draw: int) -> list[tuple[float, float, float, float, float]]:
    """Return per share: right targets, how many are as all answers say, and what the order says of it, low, high."""
    answers, pictures, true = corpus(name).answers, pictures_of(name), corpus(name).labels
    rows = np.flatnonzero(pictures.seen)
    vectors = np.asarray(pictures.take(rows).principal(np.arange(len(rows))).vectors, np.float32)
    first, true, n_classes = answers.first[rows], true[rows], len(corpus(name).classes)
    names = [hashlib.sha256(f"{draw} {row}".encode()).hexdigest() for row in range(len(rows))]
    said, row_of = np.full(len(rows), -1), {each: row for row, each in enumerate(names)}
    order = arm(names, vectors, np.ones(len(rows), bool), n_classes, lambda: said)
    found, wanted = [], [round(share * len(rows)) for share in SHARES]
    for digests in order.rounds(set(names), round_size(len(rows), 1, batches=False)):
        while wanted and order.curve and (said >= 0).sum() >= wanted[0] - len(rows) // 200:
            wanted.pop(0)
            best = classify(vectors, said, n_classes, seed=0).probabilities.argmax(axis=1)
            target = np.where(said >= 0, said, best)
            reached = order.curve[-1]
            agree = (target == np.where(first >= 0, first, target)).mean()
            found.append((float((target == true).mean()), float(agree), reached.share, reached.low, reached.high))
        if not wanted:
            break
        asked = [row_of[each] for each in digests]
        said[asked] = first[asked]
    return found


def main(names: list[str]) -> None:
    print(f"one in {ONE_IN} at random, {DRAWS} draws")
    for name in names or CORPORA:
        everything = float((corpus(name).answers.first == corpus(name).labels)[pictures_of(name).seen].mean())
        table = []
        for arm, kind in ARMS.items():
            found = np.array([run(name, kind, draw) for draw in range(DRAWS)])
            right, agree, said, low, high = (found[:, :, k] for k in range(5))
            spread = [f"{100 * each.mean():.1f} ± {100 * each.std(ddof=1):.1f}" for each in right.T]
            told = 100 * np.abs(said - agree).mean()
            inside = f"{((low <= agree) & (agree <= high)).mean():.2f}"
            table.append((arm, [*spread, f"{told:.1f}", inside]))
            print(table[-1], flush=True)
        title = f"{name}: right targets in %; all answers: {everything:.1%}"
        print_table(title, [*(f"{share:.0%}" for share in SHARES), "off by", "inside"], table)


if __name__ == "__main__":
    main(sys.argv[1:])
