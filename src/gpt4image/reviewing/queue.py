"""Which image is worth a look next: what answers and texts say of the images, and the order that follows from it.

The only module of the review that knows the teacher (``labelling/``). What of it loads torch is imported where there is
evidence.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, allocate, scatter, take
from gpt4image.artifacts.targets import BoxLabels, Targets, load_targets
from gpt4image.base.errors import ConfigError, TableError
from gpt4image.data import NO_LABEL, Dataset
from gpt4image.encoding.class_names import find_class_names
from gpt4image.labelling.audited import matches
from gpt4image.labelling.evidence import Answers, read_answers
from gpt4image.labelling.texts import Texts, Vectors, open_table, smooth
from gpt4image.reviewing.labels_file import Kind, boxes_value, value_of
from gpt4image.selecting.order import doubt_of, unlike

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

PRESENT = 0.5  # probability from which a tag is proposed
FIRST = 24  # images that are chosen to be unlike each other; the others follow by how unsure they are
LIKELY = 9  # classes that are offered for an image: as many as there are number keys


class Proposal(NamedTuple):
    """What is shown of an image: the proposed label, how probable it is, why, and the likeliest classes, best first."""

    proposal: Any
    share: float = 0.0
    reason: str = ""
    likely: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """A ranking of N images by all evidence, given the labels so far: those without a label, the most valuable first;
    those with one, the most suspicious first, of which so many look wrong; the expected share of wrong proposals, None
    without any; what is proposed for an image; and whether the order is by doubt, or nothing is known to order by.

    ``classes`` are names to choose from, where they follow from the labels, as those of clusters; such an order has all
    images, also those with a label.
    """

    order: Sequence[int]
    labelled: Sequence[int] = ()
    suspects: int = 0
    wrong: float | None = None
    proposal_of: Callable[[int], Proposal]
    classes: Sequence[str] | None = None
    by_doubt: bool = True


class Ranker(Protocol):
    """Ranks N distinct images from evidence and the labels of some. Slow: not for requests."""

    @property
    def learns(self) -> bool:
        """Whether a ranking changes with the labels."""
        ...

    def ranking(self, cells: Sequence[str], classes: Sequence[str], *, learn: bool = True) -> Ranking:
        """Return what the evidence says, of N labels as cells of the file; quickly without ``learn``."""
        ...


class TargetRanker:
    """Proposes tags or boxes that are known, None for an image without, and learns nothing.

    Images come in the order of errors to expect, those with a label by how far it is from what is proposed.
    """

    learns = False

    def __init__(self, kind: Kind, predicted: Sequence[Any], doubt: NDArray[np.float64] | None = None) -> None:
        """Take what ``targets_of`` returns; without doubts, images come as they are in the dataset."""
        self._kind: Kind = kind
        self._predicted = predicted
        self._by_doubt = doubt is not None
        self._order = range(len(predicted)) if doubt is None else np.argsort(-doubt, kind="stable").tolist()

    def ranking(self, cells: Sequence[str], classes: Sequence[str], *, learn: bool = True) -> Ranking:
        """Return what the targets say."""
        values = [value_of(self._kind, cell) for cell in cells]
        far = [
            0 if value is None or predicted is None else len(predicted) + len(value) - 2 * matches(predicted, value)
            for predicted, value in zip(self._predicted, values, strict=True)
        ]
        return Ranking(
            order=[row for row in self._order if values[row] is None],
            labelled=sorted((row for row, value in enumerate(values) if value is not None), key=lambda row: -far[row]),
            suspects=sum(count > 0 for count in far),
            proposal_of=lambda row: Proposal(self._predicted[row]),
            by_doubt=self._by_doubt,
        )


def targets_of(kind: Kind, targets: Path, digests: Sequence[str]) -> tuple[list[Any], NDArray[np.float64], list[str]]:
    """Return tags or boxes of images by a file of targets, None for one that it lacks; how many errors are expected in
    each; and the class names."""
    file = load_targets(targets)
    if isinstance(file, BoxLabels) != (kind == "detection"):
        raise ConfigError(f"= {targets}: it is for {file.facts.task}, not for {kind}.", field="targets")
    if isinstance(file, BoxLabels):
        boxes = file.by_digest(digests)
        sure = boxes.only(boxes.weights > 0)
        doubt = np.bincount(sure.image_of, weights=1 - sure.weights, minlength=len(digests)).astype(np.float64)
        drawn = [  # without weights: what a person confirms counts in full
            [box[:5] for box in boxes_value(sure, row, file.classes)] if known else None
            for row, known in enumerate(sure.known.tolist())
        ]
        return drawn, doubt, list(file.classes)
    probabilities = file.of(digests, np.nan)[:]
    shares = np.nan_to_num(probabilities)
    predicted = [
        [file.classes[k] for k in np.flatnonzero(own >= PRESENT)] if known else None
        for own, known in zip(shares, np.asarray(~np.isnan(probabilities).all(axis=1)), strict=True)
    ]
    return predicted, np.minimum(shares, 1 - shares).sum(axis=1, dtype=np.float64), list(file.classes)


class Teacher:
    """Proposes classes, learned from answers, texts and labels, or those of a file of targets."""

    def __init__(
        self,
        images: Dataset,
        answers: Path | None = None,
        embeddings: Path | None = None,
        targets: Path | None = None,
        *,
        seed: int | None = 0,
    ) -> None:
        """Open the evidence. Without a seed, images come as they are in the dataset.

        Targets propose where nothing else does; beside answers or texts, images with a target come last.
        """
        self._images, self._seed, self._store, self._embeddings = images, seed or 0, answers, embeddings
        self.learns = answers is not None or embeddings is not None
        self._train = images.splits == "train"
        self._texts = Texts.none(len(images))
        self._targets = None if targets is None else Targets.load(targets)
        there = frozenset(self._targets.digests if self._targets and self.learns else ())
        self._has_target = [digest in there for digest in images.digests]
        if embeddings is not None:
            table = open_table(embeddings)
            table.require_own(images)
            vectors = table.of_images(images.digests)
            self._texts = Texts(vectors, vectors.described)
        self._read: tuple[tuple[str, ...], Answers | None] = ((), None)
        rows = np.arange(len(images))
        self._shuffled = rows if seed is None else np.random.default_rng(seed).permutation(rows)
        self._place = np.argsort(self._shuffled, kind="stable")

    @functools.cached_property
    def _vectors(self) -> Vectors:
        shaping = np.flatnonzero(self._texts.described & self._train)
        return smooth(self._texts.centred(shaping), shaping, self._seed)

    def ranking(self, cells: Sequence[str], classes: Sequence[str], *, learn: bool = True) -> Ranking:
        """Return what the evidence says.

        Without ``learn``, answers count as they were given and texts say nothing: that takes no time, and no torch.
        """
        number = {name: k for k, name in enumerate(classes)}
        labels = np.array([number.get(cell, NO_LABEL) for cell in cells], np.int64)
        of_train = np.where(self._train, labels, NO_LABEL)
        sources = self._evidence(of_train, tuple(classes), learn) if len(classes) > 1 else {}
        together = [*sources.values()][-1] if sources else allocate(len(labels), len(classes))
        unlabelled = np.flatnonzero(labels == NO_LABEL)
        known = unlabelled[np.asarray(together.any(axis=1))[unlabelled]]
        suspected, right = _by_doubt(together, of_train, learn)
        others = self._shuffled[labels[self._shuffled] != NO_LABEL].tolist()

        def proposal_of(row: int) -> Proposal:
            if not len(classes):
                return Proposal("")
            best = {name: int(found[row].argmax()) for name, found in sources.items() if found[row].any()}
            reasons = (f"{name}: {classes[k]}, {sources[name][row][k]:.2f}" for name, k in best.items() if name)
            own = together[row]
            ranked: list[int] = [k for k in np.argsort(-own, kind="stable")[:LIKELY].tolist() if own[k] > 0]
            likely = [classes[k] for k in ranked]
            return Proposal(likely[0] if likely else "", round(float(own.max()), 4), "; ".join(reasons), likely)

        return Ranking(
            order=sorted(self._order(together, unlabelled, learn), key=self._has_target.__getitem__),
            labelled=list(dict.fromkeys([*suspected, *right, *others])),
            suspects=len(suspected),
            wrong=float(1 - together.max(axis=1)[known].mean()) if len(known) else None,
            proposal_of=proposal_of,
            by_doubt=bool(sources),
        )

    def _evidence(self, labels: Ints, classes: tuple[str, ...], learn: bool) -> dict[str, Probabilities]:
        """Return (N, K) probabilities of each source by its name; all together come last, without a name if they are no
        source."""
        sources: dict[str, Probabilities] = {}
        if self._targets is not None and not self.learns:
            predicted = self._targets.of(self._images.digests)[:]
            found = np.zeros((len(predicted), len(classes)), np.float32)
            for k, name in enumerate(self._targets.classes):
                if name in classes:
                    found[:, classes.index(name)] = predicted[:, k]
            return {"target": found}
        if self._store is not None and classes != self._read[0]:
            self._read = classes, read_answers(self._store, self._images.digests, classes).answers
        answers = self._read[1]
        if answers is not None:
            sources["answer"] = _only(answers.probabilities(len(classes)), answers.given)
        if learn and (found := self._predicted(labels, classes, answers)) is not None:
            sources["text" if answers is None else ""] = found
        return sources

    def _predicted(self, labels: Ints, classes: tuple[str, ...], answers: Answers | None) -> Probabilities | None:
        """Return (N, K) probabilities by all evidence, rows of zeros where nothing is known but the label itself."""
        from gpt4image.labelling.sources import predict_labels

        texts = self._texts._replace(names=find_class_names(self._embeddings, "auto", classes).vectors)
        if answers is None and len(np.unique(labels[texts.described & (labels != NO_LABEL)])) < 2:
            labels = np.full_like(labels, NO_LABEL)  # too few to learn from: class names say something
        try:
            found = predict_labels(texts, labels, len(classes), self._seed, reference=self._train, answers=answers)
        except TableError:  # nothing to learn from, so far
            return None
        return _only(found.probabilities, (labels == NO_LABEL) | found.out_of_fold)

    def _order(self, probabilities: Probabilities, unlabelled: Ints, learn: bool) -> list[int]:
        """Return the images in their order of value: of train first, those that are unsure and unlike each other."""
        known = probabilities if probabilities.shape[1] > 1 else np.zeros((len(probabilities), 2), np.float32)
        doubt = doubt_of(take(known, unlabelled))
        by_doubt = unlabelled[np.lexsort((self._place[unlabelled], -doubt.round(6), ~self._train[unlabelled]))]
        candidates = np.sort(unlabelled[(self._train & self._texts.described)[unlabelled]])
        if not learn or len(candidates) <= FIRST:
            return by_doubt.tolist()
        first = unlike(self._vectors, doubt_of(take(known, candidates)), candidates, FIRST, self._seed)
        return list(dict.fromkeys([*first.tolist(), *by_doubt.tolist()]))


def _only(probabilities: Probabilities, images: NDArray[np.bool_]) -> Probabilities:
    """Return probabilities with rows of zeros for all but some images."""
    return scatter(take(probabilities, images), np.flatnonzero(images), len(images))


def _by_doubt(probabilities: Probabilities, labels: Ints, learn: bool) -> tuple[list[int], list[int]]:
    """Return the images whose label looks wrong, then the others that have one; the least probable label first."""
    rows = np.flatnonzero((labels != NO_LABEL) & probabilities.any(axis=1))
    if not len(rows):
        return [], []
    given, found = labels[rows], take(probabilities, rows)
    own, predicted = found[np.arange(len(rows)), given], found.argmax(axis=1)
    wrong = predicted != given
    if learn:
        from gpt4image.labelling.noise import suspected

        wrong |= suspected(found, given)
    order = np.argsort(own, kind="stable")
    pairs = list(zip(given.tolist(), predicted.tolist(), strict=True))
    suspicious: list[int] = order[wrong[order]].tolist()
    often = Counter(pairs[place] for place in suspicious)  # in the order of their first image
    # One pair of classes after the other, the most frequent first, so that a person compares the same two.
    rank = {pair: number for number, (pair, _) in enumerate(often.most_common())}
    suspicious.sort(key=lambda place: rank[pairs[place]])
    return rows[suspicious].tolist(), rows[order[~wrong[order]]].tolist()
