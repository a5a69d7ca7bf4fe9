"""How good text labels are, on real descriptions.

    python benchmarks/text_labels.py [few] [uneven] [noise] [poor] [silent] [next] [describe] [names] [multilabel]

Without a name, all nine; each prints tables. Needs the descriptions of 2,000 photographs (CIFAR-10), 1,549 pictograms
(OpenMoji) and, for multilabel, 704 street photographs (CCP), in $GPT4IMAGE_SHARED_DATA or ../shared/data. Numbers are
means over draws of labels, of images without a label: accuracy / log loss / expected calibration error.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from gpt4image.artifacts.runs import environment
from gpt4image.base.files import read_json_lines
from gpt4image.data.splits import flip_labels
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.labelling.label_noise import suspected
from gpt4image.labelling.predictions import Predictions, predict_labels
from gpt4image.labelling.suggest import to_describe, to_label
from gpt4image.labelling.text_vectors import Texts, smooth
from gpt4image.tasks.classification import Classification
from gpt4image.training.targets import blend, class_targets, explained, says_nothing

DATA = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DRAWS = 10
SETS = ("CIFAR-10", "OpenMoji")
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Descriptions of images, one each, with their keys and true classes."""

    keys: tuple[str, ...]
    descriptions: tuple[str, ...]
    labels: Ints
    classes: tuple[str, ...]

    @property
    def everywhere(self) -> NDArray[np.bool_]:
        return np.ones(len(self.labels), bool)


@cache
def corpus(name: str) -> Corpus:
    folder = DATA / ("cifar10" if name == "CIFAR-10" else "openmoji")
    rows = read_json_lines(folder / "descriptions-plain.jsonl")
    if name == "CIFAR-10":
        classes = [row["key"].split("/")[0] for row in rows]
    else:
        with (folder / "labels.csv").open(encoding="utf-8") as file:
            known = {row["key"]: row["label"] for row in csv.DictReader(file)}
        classes = [known[row["key"]] for row in rows]
    names, labels = np.unique(classes, return_inverse=True)
    return Corpus(
        keys=tuple(row["key"] for row in rows),
        descriptions=tuple(row["description"] for row in rows),
        labels=labels.astype(np.int64),
        classes=tuple(names),
    )


@cache
def encoded(texts: tuple[str, ...], encoder: str) -> NDArray[np.float32]:
    found = load_text_encoder(encoder, "cpu")
    return np.concatenate([found.encode(texts[start : start + 64]) for start in range(0, len(texts), 64)])


def table(name: str, encoder: str = "minilm", part: Callable[[str], str] = str) -> NDArray[np.float32]:
    return encoded(tuple(map(part, corpus(name).descriptions)), encoder)


def names_of(name: str, encoder: str = "minilm") -> NDArray[np.float32]:
    return encoded(tuple(CLASS_NAME_PROMPT.format(label.replace("_", " ")) for label in corpus(name).classes), encoder)


def texts_of(name: str, *, named: bool = True) -> Texts:
    return Texts(table(name), corpus(name).everywhere, names_of(name) if named else None)


def left(name: str, kept: int | None, seed: int) -> Ints:
    return kept_labels(corpus(name).labels, kept, seed)


def kept_labels(labels: Ints, kept: int | None, seed: int) -> Ints:
    """Return the labels with ``kept`` of each class, drawn by the seed, and -1 for the others."""
    if kept is None:
        return labels.copy()
    order = np.random.default_rng(seed).permutation(len(labels))
    given = np.full_like(labels, -1)
    for label in range(labels.max() + 1):
        given[order[labels[order] == label][:kept]] = label
    return given


def read(name: str, texts: Texts, given: Ints, seed: int) -> Predictions:
    return predict_labels(texts, given, len(corpus(name).classes), seed)


def targets_by(predictions: Predictions, given: Ints) -> NDArray[np.float32]:
    """Return the (n, K) targets that training makes of predictions."""
    explains = explained(predictions.probabilities, given, predictions.out_of_fold)
    return class_targets(Classification(), predictions.probabilities, given, predictions.noise, explains)


def scores(probabilities: NDArray[np.float32], labels: Ints) -> tuple[float, float, float]:
    """Return accuracy, log loss and expected calibration error in 15 bins."""
    right, sure = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean()
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(right.mean()), float(loss), float(sum(gaps))


def shown(rows: Iterable[Sequence[float]]) -> str:
    """Return the mean of each column over its draws, a dash where no draw has a value."""
    columns = np.array(list(rows)).T
    return " / ".join("–" if np.isnan(values).all() else f"{np.nanmean(values):.3f}" for values in columns)


def print_table(title: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Print a table, and append it as a line of JSON to the record that $GPT4IMAGE_BENCHMARK_TABLES names, if any."""
    print(f"\n**{title}**\n\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)
    shown: dict[str, Sequence[str]] = {}
    for head, cells in rows:
        print(f"| {head} | {' | '.join(cells)} |", flush=True)
        shown[head] = list(cells)
    if place := os.environ.get("GPT4IMAGE_BENCHMARK_TABLES"):
        command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}"
        facts = {"title": title, "command": command, "columns": list(columns), "rows": shown}
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts | {"environment": environment()}) + "\n")


def unlabelled(name: str, texts: Texts, kept: int) -> str:
    labels, rows = corpus(name).labels, []
    for seed in range(DRAWS):
        given = left(name, kept, seed)
        hidden = given < 0
        rows.append(scores(read(name, texts, given, seed).probabilities[hidden], labels[hidden]))
    return shown(rows)


def few(name: str) -> None:
    """Labels a class, with and without class names."""
    ways = {"no class names": False, "classifier": True}
    rows = (
        (way, [unlabelled(name, texts_of(name, named=named), kept) for kept in (4, 5, 10, 25)])
        for way, named in ways.items()
    )
    print_table(f"{name}, labels a class", ["4", "5", "10", "25"], rows)


def uneven(name: str) -> None:
    """Labels that some classes have fewer of: so many of each, or of images drawn from all."""
    labels, texts = corpus(name).labels, texts_of(name)
    classes = len(corpus(name).classes)
    half = classes // 2
    counts = {
        "1, one class 2": [2] + [1] * (classes - 1),
        "half 3, half 1": [3] * half + [1] * (classes - half),
        "5, one class 1": [5] * (classes - 1) + [1],
    }

    def drawn(of_each: Sequence[int] | int, seed: int) -> Ints:
        order = np.random.default_rng(seed).permutation(len(labels))
        if isinstance(of_each, int):
            chosen = order[:of_each]
        else:
            chosen = np.concatenate([order[labels[order] == label][:count] for label, count in enumerate(of_each)])
        given = np.full_like(labels, -1)
        given[chosen] = labels[chosen]
        return given

    def found(of_each: Sequence[int] | int) -> str:
        rows = []
        for seed in range(DRAWS):
            given = drawn(of_each, seed)
            hidden = given < 0
            rows.append(scores(read(name, texts, given, seed).probabilities[hidden], labels[hidden]))
        return shown(rows)

    at_random = {f"{each} a class, at random": each * classes for each in (3, 5, 10, 20)}
    rows = ((way, [found(of_each)]) for way, of_each in (counts | at_random).items())
    print_table(f"{name}, uneven labels", ["images without a label"], rows)


def with_noise(name: str, kept: int | None, kind: str, rate: float, seed: int) -> tuple[float, ...]:
    """Return the estimated rate, accuracy of the texts on unlabelled images, accuracy and log loss of the targets, and
    precision, recall and average precision of the wrong labels that are named."""
    labels, n_classes = corpus(name).labels, len(corpus(name).classes)
    given, everyone = left(name, kept, seed), np.arange(len(labels))
    given = flip_labels(given, everyone, rate, n_classes, seed, class_dependent=kind == "by class")
    predictions = read(name, texts_of(name), given, seed)
    said, held, hidden = predictions.probabilities, predictions.out_of_fold, given < 0
    target = blend(said, given, predictions.noise)
    named, wrong = suspected(said[held], given[held]), given[held] != labels[held]
    hits, nothing = (named & wrong).sum(), float("nan")
    return (
        predictions.noise.rate,
        float((said.argmax(axis=1) == labels)[hidden].mean()) if hidden.any() else nothing,
        *scores(target[held], labels[held])[:2],
        hits / max(named.sum(), 1) if rate else nothing,
        hits / wrong.sum() if rate else nothing,
        float(average_precision_score(wrong, 1 - said[held, given[held]])) if rate else nothing,
    )


def noise(name: str) -> None:
    """Wrong labels: what is estimated, what becomes of the targets, and whether the wrong ones are named."""
    kinds = [
        ("uniform", 0.0),
        ("uniform", 0.2),
        ("uniform", 0.4),
        ("uniform", 0.6),
        ("by class", 0.2),
        ("by class", 0.4),
    ]
    columns = ["estimated", "text, unlabelled", "target: accuracy / log loss", "named: precision / recall / AP"]
    parts = (slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 7))

    def rows(kept: int | None) -> Iterator[tuple[str, list[str]]]:
        for kind, rate in kinds:
            values = [with_noise(name, kept, kind, rate, seed) for seed in range(DRAWS)]
            yield f"{kind} {rate:.0%}", [shown(each[part] for each in values) for part in parts]

    for kept in (5, 10, 25, None):
        print_table(f"{name}, {kept or 'all'} labels a class", columns, rows(kept))


def poor(name: str) -> None:
    """Right labels and poor texts, which say less of the images, or are of other images; of the images with a label."""
    vectors, labels = table(name), corpus(name).labels

    def dimmed(strength: float, seed: int) -> NDArray[np.float32]:
        noise = np.random.default_rng([seed, 1]).standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])
        mixed = vectors + strength * noise
        return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)

    def swapped(share: float, seed: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, 1])  # other images than those that keep their label, which the seed draws
        rows = rng.permutation(len(labels))[: round(share * len(labels))]
        mixed = vectors.copy()
        mixed[rows] = vectors[rng.permutation(rows)]
        return mixed

    def cell(made: NDArray[np.float32], kept: int | None, seed: int) -> tuple[float, ...]:
        given = left(name, kept, seed)
        predictions = read(name, Texts(made, corpus(name).everywhere, names_of(name)), given, seed)
        target = targets_by(predictions, given)
        told = given >= 0
        right = (answers.argmax(axis=1)[told] == labels[told] for answers in (predictions.probabilities, target))
        return predictions.noise.rate, *(float(each.mean()) for each in right)

    ways: dict[str, Callable[[int], NDArray[np.float32]]] = {
        "as they are": lambda seed: vectors,
        "noise four times as long": lambda seed: dimmed(4.0, seed),
        "10 % are of other images": lambda seed: swapped(0.1, seed),
        "25 % are of other images": lambda seed: swapped(0.25, seed),
    }
    columns = [f"{kept} labels a class: estimated noise / text right / target right" for kept in (10, "all")]
    rows = (
        (way, [shown(cell(make(seed), kept, seed) for seed in range(DRAWS)) for kept in (10, None)])
        for way, make in ways.items()
    )
    print_table(f"{name}, right labels, texts", columns, rows)


def silent(name: str) -> None:
    """How often texts are taken to say nothing of the classes, where labels are right or wrong, and whether they do."""
    own, labels = table(name), corpus(name).labels
    ways = {"right labels": 0.0, "40 % of the labels wrong": 0.4, "60 % of the labels wrong": 0.6}

    def cell(way: str, kept: int, seed: int) -> tuple[float, float]:
        made = own if way in ways else own[np.random.default_rng([seed, 1]).permutation(len(own))]
        given = left(name, kept, seed)
        given = flip_labels(given, np.arange(len(labels)), ways.get(way, 0.0), len(corpus(name).classes), seed)
        found = read(name, Texts(made, corpus(name).everywhere, names_of(name)), given, seed)
        nothing = says_nothing(Classification(), found.probabilities, given, found.out_of_fold, found.noise, None)
        return float(nothing), float((found.probabilities.argmax(axis=1) == labels)[given < 0].mean())

    kinds, kept = (*ways, "right labels, texts of other images"), (2, 4, 10)
    columns = [f"{each} labels a class: taken to say nothing / right without a label" for each in kept]
    rows = ((way, [shown(cell(way, each, seed) for seed in range(DRAWS)) for each in kept]) for way in kinds)
    print_table(f"{name}, texts that say nothing", columns, rows)


def grown(name: str, first: int, more: int, seed: int, *, suggested: bool) -> list[float]:
    """Return the accuracy on the half of the images that is never labelled, as labels are added four times."""
    labels, texts = corpus(name).labels, texts_of(name)
    everyone = np.arange(len(labels))
    vectors = smooth(texts.centred(everyone), everyone, 0)
    rng = np.random.default_rng(seed)
    pool, judged = np.array_split(rng.permutation(len(labels)), 2)
    given = np.full_like(labels, -1)
    chosen, found = rng.choice(pool, first, replace=False), []
    for _ in range(5):
        given[chosen] = labels[chosen]
        said = read(name, texts, given, seed).probabilities
        found.append(float((said.argmax(axis=1) == labels)[judged].mean()))
        free = np.sort(pool[given[pool] < 0])
        chosen = rng.choice(free, more, replace=False)
        if suggested:
            chosen = np.array([item.row for item in to_label(vectors, said, free, more, seed)])
    return found


def print_growth(title: str, first: int, more: int, ways: dict[str, Callable[[int], list[float]]]) -> None:
    """Print the mean accuracy over draws of each way, as what it chooses is added four times."""
    means = {way: np.mean([found(seed) for seed in range(DRAWS)], axis=0) for way, found in ways.items()}
    rows = ((way, [f"{value:.3f}" for value in values]) for way, values in means.items())
    print_table(title, [str(first + more * step) for step in range(5)], rows)


def following(name: str) -> None:
    """Labels chosen by --suggest, and at random."""
    first, more = (20, 10) if name == "CIFAR-10" else (36, 36)
    ways = {"at random": False, "suggested": True}
    found = {way: partial(grown, name, first, more, suggested=suggested) for way, suggested in ways.items()}
    print_growth(f"{name}, labels in all", first, more, found)


def described(name: str, kept: int, first: int, more: int, seed: int, way: str) -> list[float]:
    """Return the accuracy on the half of the images that has descriptions and no label, as images of the other half,
    where ``kept`` of each class have a label, are described four times."""
    labels = corpus(name).labels
    pool, judged = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    given = np.full_like(labels, -1)
    given[pool] = kept_labels(labels[pool], kept, seed)
    rng = np.random.default_rng([seed, 1])
    has = np.zeros(len(labels), bool)
    chosen, found = rng.choice(np.flatnonzero(given >= 0), first, replace=False), []
    for _ in range(5):
        has[chosen] = True
        texts = Texts(table(name), has | np.isin(np.arange(len(labels)), judged), names_of(name))
        said = read(name, texts, np.where(has, given, -1), seed).probabilities
        found.append(float((said.argmax(axis=1) == labels)[judged].mean()))
        free = np.sort(pool[~has[pool]])
        if way == "suggested":
            chosen = np.array([item.row for item in to_describe(has, given, free, more)])
        else:
            chosen = rng.choice(free if way == "at random" else free[given[free] >= 0], more, replace=False)
    return found


def describing(name: str) -> None:
    """Images to describe, chosen by --suggest, and at random, of all or of those with a label."""
    kept, first, more = (25, 20, 10) if name == "CIFAR-10" else (10, 36, 18)
    ways = ("at random", "at random, of those with a label", "suggested")
    found = {way: partial(described, name, kept, first, more, way=way) for way in ways}
    print_growth(f"{name}, {kept} labels a class, descriptions of that half", first, more, found)


def class_names(name: str) -> None:
    """The class name nearest to each description, as they are and with both centred: no label is read."""
    texts, right = texts_of(name), corpus(name).labels
    names = texts.centred_names()
    if names is None:
        raise ValueError("the encoder gave no class names")
    everyone = np.arange(len(right))
    ways = {"as they are": table(name) @ names_of(name).T, "both centred": texts.centred(everyone) @ names.T}
    rows = ((way, [f"{(cosines.argmax(axis=1) == right).mean():.3f}"]) for way, cosines in ways.items())
    print_table(f"{name}, the nearest class name", ["accuracy"], rows)


def clothes() -> tuple[list[dict[str, Any]], list[str], NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Return answers, classes, labels, embedded descriptions and class names of street photographs; clothes are present
    where the mask has 20 pixels of them."""
    from PIL import Image

    folder = DATA / "clothing"
    classes = (folder / "classes.txt").read_text(encoding="utf-8").split()[1:]
    rows = read_json_lines(folder / "answers-tags.jsonl")
    masks = [folder / "masks" / Path(row["key"]).relative_to("images").with_suffix(".png") for row in rows]
    pixels = [np.bincount(np.asarray(Image.open(mask)).ravel(), minlength=len(classes) + 1) for mask in masks]
    labels = (np.array(pixels)[:, 1:] >= 20).astype(np.int8)
    names = encoded(tuple(map(CLASS_NAME_PROMPT.format, classes)), "minilm")
    return rows, classes, labels, encoded(tuple(row["description"] for row in rows), "minilm"), names


def multilabel(draws: int = 5) -> None:
    """Several classes per image."""
    from gpt4image.data.labels import rarest_classes
    from gpt4image.tasks.multilabel import MultiLabel

    rows, classes, labels, vectors, names = clothes()
    texts = Texts(vectors, np.ones(len(rows), bool), names)
    tags = np.array([[name in row["tags"] for name in classes] for row in rows], np.float32)

    def measured(kept: int | None, way: str, seed: int) -> tuple[float, ...]:
        left = kept_labels(rarest_classes(labels), kept, seed) >= 0
        given = np.where(left[:, None], labels, np.int8(-1))
        hidden = np.full(labels.shape, kept is None) | ~left[:, None]
        if way == "class frequencies":
            predicted = np.tile(labels[left].mean(axis=0, dtype=np.float32), (len(labels), 1))
        elif way == "tags of the describer":
            predicted = tags
        else:
            found = predict_labels(texts if way == "classifier" else texts._replace(names=None), given, 15, seed)
            predicted = found.probabilities
            hidden &= found.out_of_fold | (kept is not None)
        record = MultiLabel().measure(predicted, np.where(hidden, labels, np.int8(-1)), classes)
        return float(left.sum()), record["mAP"], record["f1_macro"], record["loss"]

    columns = [f"{kept} labels per class: images / mAP / F1 / log loss" for kept in (5, 20, "all")]
    ways = ("class frequencies", "no class names", "classifier", "tags of the describer")
    seeds = {5: draws, 20: draws, None: 1}
    table = ((way, [shown(measured(kept, way, seed) for seed in range(seeds[kept])) for kept in seeds]) for way in ways)
    print_table("Clothes, images without a label; with all labels, out of fold", columns, table)


PARTS = {
    "few": few,
    "uneven": uneven,
    "noise": noise,
    "poor": poor,
    "silent": silent,
    "next": following,
    "describe": describing,
    "names": class_names,
}

if __name__ == "__main__":
    for asked in sys.argv[1:] or (*PARTS, "multilabel"):
        if asked == "multilabel":
            multilabel()
            continue
        for corpus_name in SETS:
            PARTS[asked](corpus_name)
