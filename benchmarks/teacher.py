"""How good the teacher is: answers, texts, names and labels, each and fused, on real answers.

    python benchmarks/teacher.py [fused] [next] [noise] [weak] [tags]

Without a name, all five; each prints tables. Sets and texts are those of text_labels.py; the answers lie beside them.
Each result is kept as a line of JSON in $GPT4IMAGE_BENCHMARK_RESULTS (without it, nowhere), and not computed again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from gpt4image.base.files import read_json_lines
from gpt4image.data.labels import rarest_classes
from gpt4image.data.splits import flip_labels
from gpt4image.labelling import predictions
from gpt4image.labelling.answers import USUAL_CONFIDENCE, Answers
from gpt4image.labelling.label_noise import suspected
from gpt4image.labelling.predictions import Inputs, Predictions, predict_labels, taught_by_answers
from gpt4image.labelling.suggest import doubt_of, to_label
from gpt4image.labelling.text_vectors import Texts, smooth
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.targets import blend
from text_labels import (
    DATA,
    SETS,
    Ints,
    clothes,
    corpus,
    kept_labels,
    left,
    names_of,
    print_table,
    scores,
    shown,
    table,
    texts_of,
)

DRAWS = 5
KEPT = (0, 2, 5, 10, 25, None)
NOISY_KEPT = (5, 25, None)
WAYS = ("answers", "texts", "names", "fused")
NOISY_WAYS = ("answers", "texts", "fused")
WEAK = (
    ("at random", 0.05),
    ("at random", 0.1),
    ("at random", 0.2),
    ("at random", 0.4),
    ("confused", 0.2),
    ("hallucinated", 0.2),
)
NOISE = (("uniform", 0.2), ("uniform", 0.4), ("uniform", 0.6), ("by class", 0.4))
RESULTS = os.environ.get("GPT4IMAGE_BENCHMARK_RESULTS")


@cache
def answers_of(name: str) -> Answers:
    """Return the answers of the describer, aligned to the corpus."""
    folder = DATA / ("cifar10" if name == "CIFAR-10" else "openmoji")
    rows = {row["key"]: row for row in read_json_lines(folder / "answers-class.jsonl")}
    number = {label: k for k, label in enumerate(corpus(name).classes)}
    own = [rows[key] for key in corpus(name).keys]
    first = [number.get(row["class"], -1) for row in own]
    second = [number.get(row["second"] or "", -1) for row in own]
    return Answers(np.array(first), np.array(second), np.array([row["confidence"] for row in own], np.float32))


_taught: dict[tuple[bytes, int, int], Any] = {}


def _taught_once(sources: Inputs, n_classes: int, seed: int) -> Any:
    """Return the text classifier that is taught by answers; it reads no label, so that one is enough for all draws."""
    answers = b"" if sources.answers is None else sources.answers.first.tobytes()
    key = (answers, hash(sources.vectors.tobytes()), n_classes)
    if key not in _taught:
        _taught[key] = taught_by_answers(sources, n_classes, seed)
    return _taught[key]


def given_labels(name: str, kept: int | None, kind: str, rate: float, seed: int) -> Ints:
    """Return the labels that are given, with ``rate`` of them wrong."""
    if kept == 0:
        return np.full_like(corpus(name).labels, -1)
    given = left(name, kept, seed)
    if rate:
        everyone, n_classes = np.arange(len(given)), len(corpus(name).classes)
        given = flip_labels(given, everyone, rate, n_classes, seed, class_dependent=kind == "by class")
    return given


@cache
def _known() -> dict[str, list[float]]:
    if RESULTS is None or not Path(RESULTS).is_file():
        return {}
    rows = read_json_lines(Path(RESULTS))
    return {row["what"]: [float("nan") if value is None else value for value in row["values"]] for row in rows}


def remembered(what: str, make: Any) -> list[float]:
    """Return values that were computed before under this name, or compute and keep them."""
    if what not in _known():
        _known()[what] = [float(value) for value in make()]
        if RESULTS is not None:
            with Path(RESULTS).open("a", encoding="utf-8") as file:
                values = [None if np.isnan(value) else value for value in _known()[what]]
                file.write(json.dumps({"what": what, "values": values}) + "\n")
    return _known()[what]


def measured(name: str, kept: int | None, kind: str, rate: float, way: str, seed: int) -> list[float]:
    """Return accuracy, log loss and calibration error of images without a label (with all labels, out of fold); then
    the estimated rate, precision and recall of the labels named, and how many wrong labels have a right target."""
    nothing = float("nan")
    if kept == 0 and way == "texts":
        return [nothing] * 7

    def make() -> Sequence[float]:
        labels, given = corpus(name).labels, given_labels(name, kept, kind, rate, seed)
        found = predict(name, given, way, answers_of(name))
        hidden, told = (given < 0) | (kept is None), given >= 0
        named = suspected(found.probabilities[told], given[told]) if told.any() else np.zeros(0, bool)
        wrong = given[told] != labels[told]
        targets = blend(found.probabilities, given, found.noise, None if found.noise.rate else 0.5)[told]
        mended = (targets.argmax(axis=1) == labels[told])[wrong]
        hits = (named & wrong).sum()
        return [
            *scores(found.probabilities[hidden], labels[hidden]),
            found.noise.rate,
            hits / named.sum() if named.any() else nothing,
            hits / wrong.sum() if wrong.any() else nothing,
            mended.mean() if wrong.any() else nothing,
        ]

    return remembered(json.dumps([name, kept, kind, rate, way, seed]), make)


def predict(name: str, given: Ints, way: str, answers: Answers | None, texts: Texts | None = None) -> Predictions:
    """Return predictions by one way of reading the evidence; texts are read without answers."""
    evidence: Any = "texts" if way == "taught" else way
    own = None if way in ("texts", "names") else answers
    return predict_labels(texts or texts_of(name), given, len(corpus(name).classes), 0, answers=own, evidence=evidence)


def cells(name: str, kept: int | None, kind: str, rate: float, part: slice) -> list[str]:
    ways, draws = WAYS if not rate else NOISY_WAYS, DRAWS if kept is not None or rate else 1
    return [shown(measured(name, kept, kind, rate, way, seed)[part] for seed in range(draws)) for way in ways]


def fused(name: str) -> None:
    """Each source of evidence, and all of them, by labels per class."""
    rows = ((f"{'all' if kept is None else kept} labels", cells(name, kept, "", 0.0, slice(0, 3))) for kept in KEPT)
    print_table(f"{name}: accuracy / log loss / ECE", WAYS, rows)


def noise(name: str) -> None:
    """The same where labels are wrong, and which of the wrong ones are found."""
    for title, part in (
        ("accuracy / log loss / ECE", slice(0, 3)),
        ("estimated rate / precision / recall of the labels named / wrong labels with a right target", slice(3, 7)),
    ):
        rows = (
            (f"{kind} {rate:.0%}, {'all' if kept is None else kept} labels", cells(name, kept, kind, rate, part))
            for kind, rate in NOISE
            for kept in NOISY_KEPT
        )
        print_table(f"{name}, wrong labels: {title}", NOISY_WAYS, rows)


def damaged(name: str, share: float, kind: str, seed: int) -> tuple[Answers, Texts]:
    """Return answers and texts of a weaker describer, which is as sure as before.

    ``share`` of the answers are of a class at random, or half of the classes are confused with the next one. Where it
    is "hallucinated" the text of these images is that of another image, too.
    """
    answers, texts, n_classes = answers_of(name), texts_of(name), len(corpus(name).classes)
    rng, first = np.random.default_rng([seed, 7]), answers.first
    if kind == "confused":
        changed = (rng.random(len(first)) < 2 * share) & (first % 2 == 0)
        other = (first + 1) % n_classes
    else:
        changed = rng.random(len(first)) < share
        other = rng.integers(0, n_classes, len(first))
    if kind == "hallucinated":
        rows = np.where(changed, rng.permutation(len(first)), np.arange(len(first)))
        texts = Texts(table(name)[rows], corpus(name).everywhere, names_of(name))
    first = np.where(changed, other, first)
    return Answers(first, np.where(answers.second == first, -1, answers.second), answers.confidence), texts


def weak(name: str) -> None:
    """Answers that are wrong more often than they say: labels are right."""
    labels = corpus(name).labels

    def values(kind: str, share: float, kept: int | None, way: str, seed: int) -> list[float]:
        if way == "texts" and kept == 0:
            return [float("nan")] * 3
        if way == "texts" and kind != "hallucinated":
            kind, share = "at random", 0.0

        def make() -> Sequence[float]:
            given = given_labels(name, kept, "", 0.0, seed)
            found = predict(name, given, way, *damaged(name, share, kind, seed))
            hidden = (given < 0) | (kept is None)
            return [*scores(found.probabilities[hidden], labels[hidden])[:2], found.noise.rate]

        return remembered(json.dumps([name, "weak", kind, share, kept, way, seed]), make)

    def rows() -> Iterable[tuple[str, list[str]]]:
        for kind, share in WEAK:
            for kept in (0, 5, 25, None):
                found = [shown(values(kind, share, kept, way, seed) for seed in range(3)) for way in NOISY_WAYS]
                yield f"{share:.0%} more wrong, {kind}, {'all' if kept is None else kept} labels", found

    print_table(f"{name}, weaker answers: accuracy / log loss / noise found", NOISY_WAYS, rows())


def following(name: str) -> None:
    """Labels chosen in four ways; judged on the half that is never labelled, and on the half they are chosen from."""
    labels, n_classes, answers = corpus(name).labels, len(corpus(name).classes), answers_of(name)
    texts, step = texts_of(name), 20 if name == "CIFAR-10" else 36
    everyone = np.arange(len(labels))
    vectors = smooth(texts.centred(everyone), everyone, 0)

    def grown(way: str, seed: int) -> Sequence[float]:
        rng = np.random.default_rng(seed)
        pool, judged = np.array_split(rng.permutation(len(labels)), 2)
        given, found = np.full_like(labels, -1), []
        taught = predict(name, given, "taught", answers).probabilities
        for _ in range(5):
            predicted = predict(name, given, "fused", answers).probabilities
            right = predicted.argmax(axis=1) == labels
            found += [right[judged].mean(), (right | (given >= 0))[pool].mean()]
            free = np.sort(pool[given[pool] < 0])
            if way == "at random":
                chosen = rng.choice(free, step, replace=False)
            elif way == "suggested":
                chosen = np.array([item.row for item in to_label(vectors, predicted, free, step, seed)])
            else:
                asked = answers.probabilities(n_classes)[free]
                value = doubt_of(predicted[free]) if way == "most unsure" else disagreement(asked, taught[free])
                chosen = free[np.argsort(-value, kind="stable")[:step]]
            given[chosen] = labels[chosen]
        return found

    ways = ("at random", "suggested", "most unsure", "answers and texts differ")
    values = {
        way: np.mean([remembered(json.dumps([name, "next", way, n]), partial(grown, way, n)) for n in range(DRAWS)], 0)
        for way in ways
    }
    columns = [str(step * number) for number in range(5)]
    for title, first in (("the half that is never labelled", 0), ("the half they are chosen from, labels counted", 1)):
        rows = ((way, [f"{value:.3f}" for value in values[way][first::2]]) for way in ways)
        print_table(f"{name}, labels in all: accuracy on {title}", columns, rows)


def disagreement(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of each row, in bits."""
    return (entr((one + other) / 2) - (entr(one) + entr(other)) / 2).sum(axis=1) / np.log(2)


def tags(draws: int = 3) -> None:
    """Several classes per image: the describer's tags, texts, and both, on clothes of street photographs."""
    rows, classes, labels, vectors, names = clothes()
    seen = np.array([[name in row["tags"] for name in classes] for row in rows], np.int64)
    answers = Answers(seen, np.full_like(seen, -1), np.full(seen.shape, USUAL_CONFIDENCE, np.float32))
    texts = Texts(vectors, np.ones(len(rows), bool), names)

    def measured(kept: int | None, way: str, seed: int) -> Sequence[float]:
        chosen = kept_labels(rarest_classes(labels), kept, seed) >= 0 if kept != 0 else np.zeros(len(labels), bool)
        given = np.where(chosen[:, None], labels, np.int8(-1))
        hidden = np.full(labels.shape, kept is None) | ~chosen[:, None]
        own = None if way == "texts" else answers
        found = predict_labels(texts, given, len(classes), 0, answers=own, evidence=cast(Any, way))
        record = MultiLabel().measure(found.probabilities, np.where(hidden, labels, np.int8(-1)), classes)
        return record["mAP"], record["f1_macro"], record["loss"]

    def cell(kept: int | None, way: str) -> str:
        if kept == 0 and way == "texts":
            return "–"
        seeds = range(draws if kept else 1)
        return shown(
            remembered(json.dumps(["clothes", kept, way, seed]), partial(measured, kept, way, seed)) for seed in seeds
        )

    table = ((way, [cell(kept, way) for kept in (0, 5, 20, None)]) for way in ("answers", "texts", "fused"))
    columns = [f"{'all' if kept is None else kept} labels per class" for kept in (0, 5, 20, None)]
    print_table("Clothes, mAP / F1 / log loss; with all labels, out of fold", columns, table)


PARTS = {"fused": fused, "next": following, "noise": noise, "weak": weak}

if __name__ == "__main__":
    predictions.taught_by_answers = _taught_once
    for asked in sys.argv[1:] or (*PARTS, "tags"):
        if asked == "tags":
            tags()
            continue
        for corpus_name in SETS:
            PARTS[asked](corpus_name)
