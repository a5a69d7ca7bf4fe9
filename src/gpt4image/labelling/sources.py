"""The sources of evidence about images, made of answers, texts, class names and labels; and what they say together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from gpt4image.artifacts.probabilities import Probabilities, blocks, from_blocks, map_blocks, scatter, take
from gpt4image.base.errors import TableError
from gpt4image.config.learning import Evidence
from gpt4image.labelling.combine import FLOOR, Cases, Labels, Source, combine, corrected, find_cases
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.noise import find_noise, find_transition, noise_by_evidence, raise_to
from gpt4image.labelling.pictures import Pictures
from gpt4image.labelling.texts import MAX_CELLS, Classification, Texts, Vectors, classify, smooth
from gpt4image.training.targets import NEXT_TO_NOTHING, Noise, explained

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Weights without labels. Answers are taken at their word. Texts that they teach repeat some of their mistakes: 0.1
# gains on photographs and costs nothing on pictograms. Only labels give weight to what learns from labels.
ANSWER_PRIOR, TAUGHT_PRIOR, LEARNED_PRIOR = 1.0, 0.1, 0.0
# A picture classifier has the weight by which it explains more of the answers than this part (McFadden's R2): .3 where
# photographs are of objects, .03 where pictograms are sorted by their meaning, of which it would cost half a point.
PICTURE_EXPLAINS = 0.5
NAME_SCALE = 8.0  # of cosines between texts and class names; log loss is flat around it on both sets
LEAST_KINDS = 2  # of evidence (answers, texts, pictures) that overrule a given label
MAX_TAUGHT = 20_000  # answers that teach a text classifier
ROUNDS = 10  # of fitting classifier and noise in turn
SETTLED = 0.02  # change of a transition matrix at which they agree
MISSING: dict[Evidence, str] = {
    "fused": "There is no label, no answer and no class name to learn from. Label a few images of each class, or give "
    "the answers of a describer (`gpt4image describe --ask class`) as --answers.",
    "texts": "--evidence texts needs labels, or answers of at least two classes: label a few images of each class, or "
    "give --answers.",
    "answers": "--evidence answers needs the answers of a describer: give its store as --answers.",
    "names": "--evidence names compares descriptions with class names: give an embedding table whose text encoder can "
    "be loaded as --embeddings.",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(Classification):
    """What is predicted of N images by all sources, by one model, or by one per class.

    As of ``Classification``, with a row of zeros where no source knows the image. Of several labels per image,
    ``probabilities`` are those of each class, NaN without evidence, ``out_of_fold`` is (N, K), ``c`` the geometric
    mean, and no noise is looked for. Besides: the noise of given labels, the weight of each source, (N,) the class that
    each finds most probable, -1 where it does not know the image, the part of out-of-fold predictions that agree with
    the label, the share of answers that are not about their image by describer, and (N,) the images of which one kind
    of evidence alone tells, so that it overrules no given label.
    """

    noise: Noise = field(default_factory=Noise)
    weights: dict[str, float] = field(default_factory=dict[str, float])
    said: dict[str, Ints] = field(default_factory=dict[str, Ints])
    agreement: float | None = None
    unrelated: dict[str, float] = field(default_factory=dict[str, float])
    single_source: Bools | None = None

    @property
    def known(self) -> Bools:
        """(N,) which images have evidence."""
        return map_blocks(self.probabilities, lambda found, _: np.nan_to_num(found).any(axis=1))


def require_learnable(described: Bools, labels: NDArray[Any]) -> None:
    """Refuse images of whose texts nothing can be learned: no two that are described, (N,), have different labels."""
    known = labels[described]
    if labels.ndim == 2:
        enough = ((known == 1).any(axis=0) & (known == 0).any(axis=0)).any()
        need, have = "of which some have a class and some have not", "labels that do not differ"
    else:
        count = len(np.unique(known[known >= 0]))
        enough, need, have = count >= 2, "of at least 2 classes", f"labels of {count} class(es)"
    if not enough:
        raise TableError(
            f"Targets need described images with labels {need}; {int(described.sum())} of {len(labels)} images are "
            f"described and have {have}. Describe labelled images or label more."
        )


def predict_labels(  # noqa: PLR0913
    texts: Texts,
    labels: NDArray[Any],
    n_classes: int,
    seed: int,
    *,
    reference: Bools | None = None,
    answers: Answers | None = None,
    evidence: Evidence = "fused",
    groups: Ints | None = None,
    pictures: Pictures | None = None,
    judging: Bools | None = None,
) -> Predictions:
    """Predict class probabilities of N images from text embeddings, answers, features of pictures and labels.

    All labels teach. Those of the images ``judging`` (N,), by default all, say how right the evidence is; of others,
    the label is what is predicted. Labels are (N,) classes, negative where there is none; or (N, K) 1 present, 0
    absent, -1 not known. Only texts and answers of the images of ``reference`` (N,) shape what is said of others.
    Images of a group (N,) are predicted by labels and answers of others. Raises TableError where the evidence is not
    there.
    """
    answers = None if evidence == "names" else answers
    only_texts = evidence == "texts" or (answers is None and evidence == "fused")
    known = texts.described | (False if answers is None or evidence == "texts" else answers.given)
    if only_texts:
        own = labels if answers is None else labels[texts.described]  # without their labels, texts learn from answers
        if labels.ndim == 2 or (own >= 0).any():
            require_learnable(texts.described, labels)
    pictures = None if answers is None or evidence != "fused" else pictures
    if pictures is not None:  # what was not asked, or not answered, has the classes of similar pictures
        known |= pictures.seen
    if answers is not None and answers.none is not None and labels.ndim == 1:
        known &= ~answers.none | (labels >= 0)  # none of the classes: there is no target
    rows, total = np.flatnonzero(known), len(labels)
    texts, labels = texts.take(rows), labels[rows]
    shaping = np.arange(len(rows)) if reference is None else np.flatnonzero(reference[rows])
    pictures = pictures and pictures.take(rows)
    inputs = Inputs(
        texts.centred(shaping),
        texts.described,
        texts.centred_names(),
        answers and answers.take(rows),
        None if pictures is None else pictures.principal(shaping),
        np.isin(np.arange(len(rows)), shaping),
        None if groups is None else groups[rows],
        np.ones(len(rows), bool) if judging is None else judging[rows],
    )
    if labels.ndim == 2:
        inputs = inputs._replace(vectors=inputs.vectors[:])
        found = _several_labels(inputs, labels, seed, evidence)
    else:
        inputs = inputs._replace(vectors=smooth(inputs.vectors, shaping[texts.described[shaping]], seed))
        if only_texts and (labels >= 0).any():
            more: Any = {"seed": seed, "names": inputs.names, "groups": inputs.groups}
            fit = partial(classify, inputs.vectors, labels, n_classes, **more)
            found = _by_labels(fit, labels, seed, inputs.judging)
        else:
            free, unrelated = _free_sources(inputs, n_classes, seed, evidence)
            found = _combined(free, inputs, labels, seed, learn_from_labels=answers is not None and evidence == "fused")
            found = replace(found, unrelated=unrelated)
    told = _with_labels(found.probabilities, labels, ~inputs.judging)
    return replace(
        found,
        probabilities=scatter(told, rows, total, np.nan if labels.ndim == 2 else 0.0),
        out_of_fold=scatter(found.out_of_fold, rows, total),
        said={name: scatter(classes, rows, total, -1) for name, classes in found.said.items()},
        single_source=None if found.single_source is None else scatter(found.single_source, rows, total),
    )


def _with_labels(found: Probabilities, labels: NDArray[Any], images: Bools) -> Probabilities:
    """Return probabilities; of some images (N,), the label where there is one."""
    if not images.any():
        return found
    if labels.ndim == 2:
        return np.where(images[:, None] & (labels >= 0), labels, found[:]).astype(np.float32)
    own = np.where(images, labels, -1)[:, None]

    def block(rows: slice) -> Floats:
        return np.where(own[rows] >= 0, np.arange(found.shape[1]) == own[rows], found[rows]).astype(np.float32)

    return from_blocks(len(labels), found.shape[1], block)


class Inputs(NamedTuple):
    """What is known of N images before a label is read: (N, D) ``vectors`` of texts, smoothed; which are ``described``;
    (K, D) class names; answers; features of pictures; (N,) whose texts and answers may shape what is said of others
    (shaping), (N,) groups, each of which is in one fold, and (N,) whose labels say how right the others are."""

    vectors: Vectors
    described: Bools
    names: Floats | None
    answers: Answers | None
    pictures: Pictures | None
    shaping: Bools
    groups: Ints | None
    judging: Bools

    def of_class(self, k: int) -> Inputs:
        """Return what is known of the absence (0) and presence (1) of class k."""
        names = None if self.names is None else np.stack([-self.names[k], self.names[k]])
        said = self.answers
        said = said and Answers(said.first[:, k], said.second[:, k], said.confidence[:, k])
        return self._replace(names=names, answers=said)


def _taught(name: str, inputs: Inputs, n_classes: int, seed: int) -> list[Source]:
    """Return a classifier of texts (taught) or pictures whose labels are the answers, if they name two classes.

    It needs no human label. Each image is predicted by folds that have not seen its answer, so that what it says of the
    image is not the answer again: texts of similar images correct answers that are wrong.
    """
    by_texts = name == "taught"
    if inputs.answers is None or not (by_texts or inputs.pictures):
        return []
    vectors, known = (inputs.vectors, inputs.described) if by_texts or inputs.pictures is None else inputs.pictures
    answered = inputs.answers.first
    usable = np.flatnonzero(known & (answered >= 0) & inputs.shaping)
    if len(usable) > MAX_TAUGHT:
        usable = np.random.default_rng(seed).choice(usable, MAX_TAUGHT, replace=False)
    taught = np.full(len(known), -1)
    taught[usable] = answered[usable]
    if len(np.unique(taught[usable])) < 2:
        return []
    names = inputs.names if by_texts else None
    fit = classify(vectors, taught, n_classes, seed=seed, names=names, groups=inputs.groups)
    # Classes that were never answered are possible all the same.
    found = _filled(fit.probabilities, taught, 1e-3 / n_classes)
    prior = TAUGHT_PRIOR
    if not by_texts:
        explains = explained(found, taught, fit.out_of_fold) or 0.0
        prior = max(0.0, explains - PICTURE_EXPLAINS)
        if explains < NEXT_TO_NOTHING:  # no target is better than how frequent the classes are
            known = known & (inputs.described | (answered >= 0))
    return [Source(name=name, probabilities=found, known=known, prior=prior, shrunk=True, first=found.argmax(axis=1))]


def _free_sources(
    inputs: Inputs, n_classes: int, seed: int, evidence: Evidence
) -> tuple[list[Source], dict[str, float]]:
    """Return the sources that read no label, and which share of each describer's answers is not about its image."""
    answered: list[Source] = []
    if inputs.answers is not None and evidence in ("answers", "fused"):
        each = inputs.answers.by or {"": inputs.answers}
        for name, own in each.items():
            stated = own.probabilities(n_classes)
            source = Source(name="answers", probabilities=stated, known=own.given, prior=ANSWER_PRIOR, first=own.first)
            answered.append(source if len(each) == 1 else replace(source, name=f"answers of {name}"))
    taught = _taught("taught", inputs, n_classes, seed) if evidence in ("texts", "fused") else []
    seen = _taught("pictures", inputs, n_classes, seed)
    unrelated: dict[str, float] = {}
    texts, pictures = (each[0] if each else None for each in (taught, seen))
    for place, source in enumerate(answered):
        usable = np.flatnonzero(source.known & inputs.shaping)
        cases: Cases | None = None
        if n_classes > 2:  # an answer about another image is so for all classes; one of two shows it too weakly
            cases = find_cases(source.probabilities, usable, texts, pictures, seed)
        if cases is not None:
            found = corrected(source.probabilities, cases, usable, texts, pictures)
            answered[place] = replace(source, probabilities=found, first=found.argmax(axis=1))
            unrelated[source.name] = cases.rate
    free = [*answered, *taught, *seen]
    if inputs.answers is None and inputs.names is not None and evidence in ("names", "fused"):
        vectors, names = inputs.vectors, inputs.names.T

        def likeness(rows: slice) -> Floats:
            return softmax(np.float32(NAME_SCALE) * (vectors[rows] @ names), axis=1)

        alike = from_blocks(len(vectors), names.shape[1], likeness)
        free.append(Source(name="names", probabilities=alike, known=inputs.described, prior=1.0))
    if not free:
        raise TableError(MISSING[evidence])
    return free, unrelated


class Learner(NamedTuple):
    """What learns from ``labels`` (N,) of the images that it ``knows`` (N,), and the sources of the same kind, which
    tell of what no label shows."""

    learn: Callable[..., Classification]
    labels: Ints
    knows: Bools
    others: tuple[str, ...]

    @classmethod
    def all(cls, inputs: Inputs, labels: Ints, n_classes: int, seed: int) -> dict[str, Learner]:
        """Return the classifiers of texts and of pictures that have labels of two classes to learn from."""
        kinds: list[tuple[str, Any, Bools, Floats | None, tuple[str, ...]]]
        kinds = [("texts", inputs.vectors, inputs.described, inputs.names, ("taught", "names"))]
        if inputs.pictures is not None:
            vectors, seen = inputs.pictures
            kinds.append(("pictures of labels", vectors, seen, None, ("pictures",)))
        found: dict[str, Learner] = {}
        for kind, vectors, knows, names, others in kinds:
            own = np.where(knows, labels, -1)
            if len(np.unique(own[own >= 0])) > 1:
                learn = partial(classify, vectors, own, n_classes, seed=seed, names=names, groups=inputs.groups)
                found[kind] = cls(learn, own, knows, others)
        return found

    def source(self, name: str, fit: Classification, free: list[Source]) -> Source:
        """Return what it has learned; what it cannot know is as another source of the same kind has it."""
        others = [source.probabilities for source in free if source.name in self.others]
        other = others[0] if others else 1.0 / fit.probabilities.shape[1]
        predicted = _filled(fit.probabilities, self.labels, other)
        seen = np.flatnonzero((self.labels >= 0) & ~fit.out_of_fold)
        for rows in blocks(len(seen), predicted.shape[1]):
            predicted[seen[rows]] = other if isinstance(other, int | float) else other[seen[rows]]
        return Source(name=name, probabilities=predicted, known=self.knows, prior=LEARNED_PRIOR, shrunk=True)


def _filled(predicted: Probabilities, labels: Ints, other: Probabilities | float) -> Probabilities:
    """Return predictions, changed in place: classes without a label have what ``other`` says, or that number each."""
    absent = np.ones(predicted.shape[1], bool)
    absent[labels[labels >= 0]] = False
    for rows in blocks(len(predicted), predicted.shape[1]):
        own = predicted[rows]
        another = np.full_like(own, other) if isinstance(other, int | float) else other[rows]
        found = np.where(absent, another, own * (1.0 - another[:, absent].sum(axis=1, keepdims=True)))
        predicted[rows] = found / np.maximum(found.sum(axis=1, keepdims=True), FLOOR)
    return predicted


def _combined(
    free: list[Source], inputs: Inputs, labels: Ints, seed: int, *, learn_from_labels: bool, judge_labels: bool = True
) -> Predictions:
    """Return what all sources say, and the noise of (N,) labels; ``free`` sources have read none, one at least.

    Classifiers of texts and pictures learn from the labels with ``learn_from_labels``; these may be wrong with
    ``judge_labels``.
    """
    n_classes = free[0].probabilities.shape[1]
    rows = np.flatnonzero((labels >= 0) & inputs.judging & np.any([source.known for source in free], axis=0))
    if inputs.answers is not None and inputs.answers.examples is not None:
        rows = rows[~inputs.answers.examples[rows]]
    read = rows
    if len(rows) * n_classes > MAX_CELLS:  # what the others say is predicted like that of images without a label
        read = np.sort(np.random.default_rng(seed).choice(rows, max(MAX_CELLS // n_classes, 1), replace=False))
    own, noise, sources = labels[read], Noise(), list(free)
    fits: dict[str, Classification] = {}
    out_of_fold = np.zeros(len(labels), bool)
    out_of_fold[rows] = True
    if len(rows):
        unread = combine([source.of(read) for source in free], Labels.none(n_classes), seed)[0]
        learners = Learner.all(inputs, labels, n_classes, seed) if learn_from_labels else {}
        fits = {name: each.learn() for name, each in learners.items()}
        probable = noise
        if judge_labels:
            losses = [_held_out_loss(fit, learners[name].labels) for name, fit in fits.items() if fit.out_of_fold.any()]
            noise, probable = noise_by_evidence(unread, own, min(losses, default=None), seed)
        matrix, true = None, np.eye(n_classes, dtype=np.float32)[own]
        if probable.rate > 0.0:
            matrix = probable.matrix(n_classes)
            true = np.maximum(unread[:], np.float32(FLOOR)) * matrix.T[own]
            true /= true.sum(axis=1, keepdims=True)
        if noise.rate > 0.0:
            fits = {name: each.learn(transition=noise.matrix(n_classes)) for name, each in learners.items()}
        sources += [learners[name].source(name, fit, free) for name, fit in fits.items()]
        found, weights = combine(sources, Labels(read, own, true, matrix), seed, inputs.groups, inputs.shaping)
        if noise.rate > 0.0:
            noise = find_transition(take(found, read), own, Noise(rate=noise.rate), seed)
    else:
        found, weights = combine(free, Labels.none(n_classes), seed)
    said = {each.name: np.where(each.known, each.probabilities.argmax(axis=1), -1) for each in sources}
    fit = fits.get("texts")
    if inputs.answers is not None and inputs.answers.by:
        said["answers"] = inputs.answers.first
    return Predictions(
        probabilities=found,
        out_of_fold=out_of_fold,
        c=None if fit is None else fit.c,
        names=0.0 if fit is None else fit.names,
        folds=0 if fit is None else fit.folds,
        noise=noise,
        weights=weights,
        said=said,
        single_source=_kinds(sources) < LEAST_KINDS,
        agreement=float((found.argmax(axis=1)[rows] == labels[rows]).mean()) if len(rows) else None,
    )


def _held_out_loss(fit: Classification, labels: Ints) -> float:
    """Return the log loss of labels that a classifier has not seen."""
    rows = np.flatnonzero(fit.out_of_fold)
    return float(-np.log(np.maximum(fit.probabilities[rows, labels[rows]], FLOOR)).mean())


def _kinds(sources: list[Source]) -> Ints:
    """Return (N,) how many kinds of evidence know each image: answers, texts, pictures."""
    known: dict[str, Bools] = {}
    for source in sources:
        kind = "texts" if source.name in ("taught", "names", "texts") else source.name.split(" ")[0]
        known[kind] = known.get(kind, False) | source.known
    return np.sum(list(known.values()), axis=0)


def _several_labels(inputs: Inputs, labels: NDArray[Any], seed: int, evidence: Evidence) -> Predictions:
    """Return predictions by one model per class, of whether it is absent or present; a class that is known only by
    labels, all alike, has the probability of Laplace's rule of succession."""
    if evidence == "names":
        raise TableError("--evidence names compares each description with one class name; here images have several.")
    probabilities, out_of_fold = np.full(labels.shape, np.nan, np.float32), np.zeros(labels.shape, bool)
    fits: list[Classification] = []
    weights: list[dict[str, float]] = []
    for k, own in enumerate(labels.T.astype(np.int64)):
        about, counts = inputs.of_class(k), np.bincount(own[own >= 0], minlength=2)
        if about.answers is not None and evidence != "texts":
            free, _ = _free_sources(about, 2, seed, evidence)
            fit = _combined(free, about, own, seed, learn_from_labels=evidence == "fused", judge_labels=False)
            weights.append(fit.weights)
        elif counts.all():
            weigh = bool(counts.min() > 1)
            fit = classify(about.vectors, own, 2, seed=seed, names=about.names, weigh=weigh, groups=about.groups)
            weights.append({"texts": 1.0})
        else:
            probabilities[:, k] = (counts[1] + 1) / (counts.sum() + 2) if counts.any() else np.nan
            continue
        known = fit.probabilities.any(axis=1)
        probabilities[known, k], out_of_fold[:, k] = fit.probabilities[known, 1], fit.out_of_fold & inputs.judging
        fits.append(fit)
    right = ((probabilities >= 0.5) == labels)[out_of_fold]
    searched = [fit.c for fit in fits if fit.c is not None]
    return Predictions(
        probabilities=probabilities,
        out_of_fold=out_of_fold,
        weights={
            name: float(np.mean([each.get(name, 0.0) for each in weights])) for name in dict.fromkeys(chain(*weights))
        },
        agreement=float(right.mean()) if len(right) else None,
        c=float(np.exp(np.mean(np.log(searched)))) if searched else None,
        names=float(np.mean([fit.names for fit in fits])),
        folds=max(fit.folds for fit in fits),
    )


def _by_labels(fit: Callable[..., Classification], labels: Ints, seed: int, judging: Bools) -> Predictions:
    """Return predictions of a text classifier that learns from labels, and their noise, both fitted in turn if by
    class."""
    result, noise, agreement = fit(), Noise(), None
    held_out = result.out_of_fold & judging
    own = labels[held_out]
    if held_out.any():
        raw = result.probabilities
        agreement = float((take(raw, held_out).argmax(axis=1) == own).mean())
        noise, power = find_noise(take(raw, held_out), own)
        if noise.rate > 0.0:
            uniform = noise
            result = replace(
                result, probabilities=from_blocks(len(raw), raw.shape[1], lambda rows: raise_to(raw[rows], power))
            )
            noise = find_transition(take(result.probabilities, held_out), own, uniform, seed)
            for _ in range(ROUNDS):
                if (before := noise.transition) is None:
                    break
                result = fit(transition=before)
                noise = find_transition(take(result.probabilities, held_out), own, uniform, seed)
                if noise.transition is not None and np.abs(noise.transition - before).max() < SETTLED:
                    break
    result = replace(result, out_of_fold=held_out)
    return Predictions(**vars(result), noise=noise, weights={"texts": 1.0}, agreement=agreement)
