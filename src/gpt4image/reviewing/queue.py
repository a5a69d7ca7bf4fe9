"""Which image is worth a look next: what answers and texts say of the images, and the order that follows from it.

The only module of the review that knows the teacher (``labelling/``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import TableError
from gpt4image.data import NO_LABEL, ImageSet
from gpt4image.encoding.class_names import find_class_names
from gpt4image.labelling.label import open_table
from gpt4image.labelling.label_noise import suspected
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.suggest import doubt_of, to_label
from gpt4image.labelling.text_vectors import Texts, smooth

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

USUAL_CONFIDENCE, MOST_CERTAIN, SECOND_SHARE, LEAST = 0.85, 0.99, 0.6, 1e-9
FIRST = 48  # images that are chosen to be unlike each other; the others follow by how unsure they are


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What one source of evidence says of N images: (N,) most probable class, -1 for none, and its probability."""

    name: str
    proposed: Ints
    probability: Floats

    @classmethod
    def of(cls, name: str, probabilities: Floats) -> Source:
        """Return what class probabilities say, rows of zeros saying nothing."""
        best = probabilities.max(axis=1, initial=0.0)
        proposed = np.where(best > 0, probabilities.argmax(axis=1), NO_LABEL) if probabilities.size else best - 1
        return cls(name=name, proposed=proposed.astype(np.int64), probability=best)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opinion:
    """What all evidence says of N images, given the labels so far.

    Attributes:
        probabilities: (N, K), rows of zeros where nothing is known.
        all: the proposals of everything together.
        parts: those of each source, for reasons.
        order: images without a label, the most valuable first.
        suspects: images whose label may be wrong, the most suspicious first.
        wrong: expected share of images without a label whose proposal is wrong; None without proposals.
    """

    probabilities: Floats
    all: Source
    parts: Sequence[Source]
    order: Sequence[int]
    suspects: Sequence[int]
    wrong: float | None

    def ranked(self, row: int, most: int) -> list[int]:
        """Return the most probable classes of an image, best first; none where nothing is known."""
        known = self.probabilities[row]
        return [int(k) for k in np.argsort(-known, kind="stable")[:most] if known[k] > 0]

    def reason(self, row: int, classes: Sequence[str]) -> str:
        """Return what each source says of an image: ``answer: cat, 0.92; text: cat, 0.88``."""
        said = [(part.name, int(part.proposed[row]), float(part.probability[row])) for part in self.parts]
        return "; ".join(f"{name}: {classes[k]}, {share:.2f}" for name, k, share in said if k >= 0)


class Teacher:
    """Forms an opinion of N distinct images from answers, texts and the labels of some. Slow: not for requests.

    Attributes:
        answered_classes: classes that the answers chose from.
    """

    def __init__(self, images: ImageSet, answers: Path | None, embeddings: Path | None, seed: int) -> None:
        """Open the evidence.

        Raises:
            StoreError, TableError: it is missing, or of other images.
        """
        from gpt4image.training.prepare import require_own_images

        self._images, self._seed, self._embeddings = images, seed, embeddings
        self._train = images.splits == "train"
        self._texts = None
        self._vectors = np.zeros((len(images), 0), np.float32)
        if embeddings is not None:
            table = open_table(embeddings)
            require_own_images(table, images)
            self._texts = Texts(*table.vectors(images.digests))
            shaping = np.flatnonzero(self._texts.described & self._train)
            self._vectors = smooth(self._texts.centred(shaping), shaping, seed)
        self._said, self.answered_classes = ({}, ()) if answers is None else _stored(answers, images)
        self._shuffled = np.random.default_rng(seed).permutation(len(images))
        self._place = np.argsort(self._shuffled, kind="stable")

    def opinion(self, labels: Ints, classes: Sequence[str]) -> Opinion:
        """Return what the evidence says; ``labels`` are (N,), NO_LABEL for none.

        Without evidence every labelled image is suspicious, classes in turn.
        """
        taught = np.where(self._train, labels, NO_LABEL)
        parts = {"answer": self._answers(classes), "text": self._text(taught, classes)}
        found = {name: part for name, part in parts.items() if part is not None}
        probabilities = _product([own for own, _ in found.values()], (len(labels), len(classes)))
        held_out = np.stack([np.zeros(len(labels), bool), *(unseen for _, unseen in found.values())]).any(axis=0)
        unlabelled = np.flatnonzero(labels == NO_LABEL)
        known = unlabelled[probabilities[unlabelled].any(axis=1)]
        if found:
            doubtful = _doubtful(probabilities, taught, held_out & (taught != NO_LABEL))
        else:
            doubtful = in_turn(self._shuffled[labels[self._shuffled] != NO_LABEL].tolist(), labels)
        return Opinion(
            probabilities=probabilities,
            all=Source.of("all", probabilities),
            parts=[Source.of(name, own) for name, (own, _) in found.items()],
            order=self._order(probabilities, unlabelled),
            suspects=doubtful,
            wrong=float(1 - probabilities[known].max(axis=1).mean()) if len(known) else None,
        )

    def _answers(self, classes: Sequence[str]) -> tuple[Floats, Bools] | None:
        """Return (N, K) probabilities as the answers state them, and which images have an answer."""
        if not self._said:
            return None
        number = {name: k for k, name in enumerate(classes)}
        found, others = np.zeros((len(self._images), len(classes)), np.float32), max(len(classes) - 1, 1)
        for row, answer in self._said.items():
            first, second = (number.get(name or "") for name in (answer.class_name, answer.second))
            if first is not None:
                sure = min(USUAL_CONFIDENCE if answer.confidence is None else answer.confidence, MOST_CERTAIN)
                found[row] = (1 - sure) / others
                if second is not None and second != first and others > 1:
                    found[row] = (1 - SECOND_SHARE) * (1 - sure) / (others - 1)
                    found[row, second] = SECOND_SHARE * (1 - sure)
                found[row, first] = sure
        return found, np.asarray(found.any(axis=1))

    def _text(self, labels: Ints, classes: Sequence[str]) -> tuple[Floats, Bools] | None:
        if self._texts is None or not classes:
            return None
        names = find_class_names(self._embeddings, "auto", tuple(classes)).vectors
        texts = self._texts._replace(names=names)
        try:
            found = predict_labels(texts, labels, len(classes), self._seed, reference=self._train)
        except TableError:  # too few labels so far
            return None
        has_seen = (labels != NO_LABEL) & ~found.out_of_fold
        return np.where(has_seen[:, None], np.float32(0), found.probabilities), found.out_of_fold

    def _order(self, probabilities: Floats, unlabelled: Ints) -> list[int]:
        """Return the images in their order of value: of train first, those that are unsure and unlike each other."""
        known = probabilities if probabilities.shape[1] > 1 else np.zeros((len(probabilities), 2), np.float32)
        doubt = doubt_of(known[unlabelled])
        by_doubt = unlabelled[np.lexsort((self._place[unlabelled], -doubt.round(6), ~self._train[unlabelled]))]
        described = np.asarray(self._vectors.any(axis=1))
        candidates = np.flatnonzero(self._train & described & np.isin(np.arange(len(described)), unlabelled))
        if not len(candidates):
            return by_doubt.tolist()
        first = [item.row for item in to_label(self._vectors, known, candidates, FIRST, self._seed)]
        return list(dict.fromkeys([*first, *by_doubt.tolist()]))


def _doubtful(probabilities: Floats, labels: Ints, held_out: Bools) -> list[int]:
    """Return the images whose label is suspected, or is not the most probable class, the least probable label first."""
    rows = np.flatnonzero(held_out)
    if not len(rows):
        return []
    given, found = labels[rows], probabilities[rows]
    own = found[np.arange(len(rows)), given]
    chosen = suspected(found, given) | (found.argmax(axis=1) != given)
    return rows[chosen][np.argsort(own[chosen], kind="stable")].tolist()


def _product(parts: Sequence[Floats], shape: tuple[int, int]) -> Floats:
    """Return (N, K) probabilities of all sources together: their normalised product, of those that know the image."""
    total, known = np.zeros(shape), np.zeros(shape[0], bool)
    for own in parts:
        there = own.any(axis=1)
        total[there] += np.log(np.maximum(own[there], LEAST))
        known |= there
    together = np.where(known[:, None], softmax(total, axis=1), 0.0) if shape[1] else total
    return together.astype(np.float32)


def _stored(path: Path, images: ImageSet) -> tuple[dict[int, Answer], tuple[str, ...]]:
    """Return the surest class answer about each image, and the classes that answers chose from.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: no answer is about these images.
    """
    row_of = {digest: row for row, digest in enumerate(images.digests)}
    found: dict[int, Answer] = {}
    classes: dict[str, None] = {}
    with DescriptionStore(path) as store:
        for item in store.answers():
            row = row_of.get(item.digest)
            if row is None or item.answer.class_name is None or item.prompt.class_conditioned:
                continue
            classes |= dict.fromkeys(item.classes)
            if row not in found or (found[row].confidence or 0) < (item.answer.confidence or 0):
                found[row] = item.answer
    if not found:
        raise TableError(
            f"--answers {path} holds no class answer about these images; ask with `gpt4image describe --ask class`, or "
            "leave it out."
        )
    return found, tuple(classes)


def in_turn(rows: Iterable[int], labels: Ints) -> list[int]:
    """Return images in an order in which classes take turns; within a class they keep their order."""
    seen: dict[int, int] = {}
    ranked = []
    for row in rows:
        label = int(labels[row])
        seen[label] = seen.get(label, -1) + 1
        ranked.append((seen[label], label, row))
    return [row for _, _, row in sorted(ranked)]
