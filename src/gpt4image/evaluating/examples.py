"""Pictures, descriptions and suspected label errors that a report shows; what the files hold: reporting/extras.py.

A report is made from records only, so these are written while images and texts are at hand. None of them may cost a
finished run: what cannot be written is skipped with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, take
from gpt4image.artifacts.table import EmbeddingTable, Manifest, is_table, read_manifest, texts_behind
from gpt4image.artifacts.targets import BoxLabels, load_targets
from gpt4image.base.errors import DamagedError, DecodeError
from gpt4image.base.files import read_parquet, write_json
from gpt4image.base.outcome import Skipped
from gpt4image.config import TrainConfig
from gpt4image.data.dataset import Dataset
from gpt4image.data.decode import decode, decode_numbers
from gpt4image.data.masks import UNSEEN
from gpt4image.data.regions import Boxes, Masks
from gpt4image.describing.inspection import store_record
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.noise import suspected_errors
from gpt4image.pages.cards import PICTURE, Thumbnails, data_url, mark, overlaid
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES
from gpt4image.training.training_data import TextTargets

PER_SPLIT = 24
SUSPECTED = 24
AT_RANDOM, SMALL = 48, 96
"""Held-out pictures that show how often a model is right, and the pixels of their longer side."""
LEAST_SCORE = 0.3
"""Score of the predicted boxes that are drawn."""
SIDE = 128
"""Pixels of the longer side of a picture with a mask."""
NO_CLASS = "none of the classes"
"""Label of an annotated image that shows no class, and prediction of none."""


def _box_examples(
    images: Dataset, usable: Any, run_dir: Path, name: str, split: str, comparison: str
) -> list[dict[str, Any]] | None:
    """Return the pictures of a split with the lowest scores; None if the run predicts no boxes."""
    truth = images.regions
    if not isinstance(truth, Boxes):
        return None
    try:
        table = read_parquet(run_dir / f"predictions-{split}.parquet", ["key", "score", "boxes"])
    except DamagedError:  # images with boxes may be classified too
        return None
    row_of = {key: row for row, key in enumerate(images.keys)}
    pictures, cards, names = Thumbnails(images, 2 * PICTURE), list[dict[str, Any]](), images.classes
    found: list[dict[str, Any]] = table.to_pylist()
    scores = np.array([row["score"] for row in found])
    for place in np.argsort(scores, kind="stable")[: int((~np.isnan(scores)).sum())]:  # NaN, without a label, is last
        row = found[place]
        index = row_of.get(row["key"])
        if index is None or not usable[index] or not (picture := pictures.of(index)):
            continue
        boxes = [box for box in row["boxes"] if box[4] >= LEAST_SCORE]
        corners, labels, weights = truth.image(index)
        own = [mark("true", corners[k], names[labels[k]], label=False) for k in np.flatnonzero(weights > 0)]
        card = {
            "key": row["key"],
            "comparison": comparison,
            "label": ", ".join(dict.fromkeys(names[label] for label in labels.tolist())) or NO_CLASS,
            "split": split,
            "picture": picture,
            "boxes": [*own, *(mark("found", box[:4], f"{names[int(box[5])]} {box[4]:.2f}") for box in boxes)],
            "about": f"{name}: {len(boxes)} predicted, {len(own)} true, AP of the picture {row['score']:.2f}",
        }
        cards.append(card)
        if len(cards) == PER_SPLIT:
            break
    return cards


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnMasks:
    """The masks of a held-out split, and those that runs predicted: by run, then by key, a PNG file of class numbers;
    by key, the score of the first run, NaN without a mask."""

    images: Dataset
    predicted: Mapping[str, Mapping[str, bytes]]
    scores: Mapping[str, float]

    @classmethod
    def of_runs(cls, images: Dataset, run_dirs: Mapping[str, Path], split: str) -> DrawnMasks | None:
        """Return those of runs by name; None where they predicted no masks."""
        if not isinstance(images.regions, Masks) or not run_dirs:
            return None
        try:
            tables = {
                name: read_parquet(folder / f"predictions-{split}.parquet", ["key", "mask", "score"]).to_pydict()
                for name, folder in run_dirs.items()
            }
        except DamagedError:  # of runs for another task
            return None
        predicted = {name: dict(zip(table["key"], table["mask"], strict=True)) for name, table in tables.items()}
        first = next(iter(tables.values()))
        return cls(images=images, predicted=predicted, scores=dict(zip(first["key"], first["score"], strict=True)))

    def worst_first(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return images at ``rows`` by the score of the first run, the lowest first."""
        scores = np.array([self.scores.get(self.images.keys[row], np.nan) for row in rows.tolist()], np.float64)
        return rows[np.argsort(scores, kind="stable")]

    def of(self, row: int) -> dict[str, str]:
        """Return pictures of an image as data URLs: with its true mask, and with the mask of each run."""
        regions, key = self.images.regions, self.images.keys[row]
        unseen = [number for number, name in enumerate(self.images.classes) if name.lower() in UNSEEN]
        masks: dict[str, NDArray[np.uint8]] = {}
        try:
            picture = decode(self.images.read(row))
            picture.thumbnail((SIDE, SIDE))
            if isinstance(regions, Masks) and regions.known[row]:
                masks["true mask"] = regions[row : row + 1].pixels(2 * SIDE)[0]
            masks |= {name: decode_numbers(own[key]) for name, own in self.predicted.items() if key in own}
        except (DecodeError, OSError):
            return {}
        background = unseen[0] if unseen else -1
        return {name: data_url(overlaid(picture, mask, background), 80) for name, mask in masks.items()}


class Said(NamedTuple):
    """What was said of N images: the descriptions, (N, K) class probabilities predicted from them, and classes that a
    describer answered."""

    text: TextTargets | None = None
    targets: Probabilities | None = None
    answers: Answers | None = None


def write_all(work: Mapping[str, Callable[[], None]]) -> list[Skipped]:
    """Call what writes each file, and return the files that could not be written."""
    skipped: list[Skipped] = []
    for name, write in work.items():
        try:
            write()
        except Exception as error:  # noqa: BLE001 -- the run is finished: what is shown beside it may not cost it
            skipped.append(Skipped(name=name, reason=f"left out of the report: {error}"))
    return skipped


def write_run_extras(
    run_dir: Path, config: TrainConfig, images: Dataset, table: EmbeddingTable | None, split: str
) -> list[Skipped]:
    """Write what the report of a run shows; return what could not be written."""
    text = None if table is None else TextTargets.of(table, images.digests)
    path = config.targets if config.targets and config.targets.is_file() else None
    found = cache(lambda: None if path is None else load_targets(path))

    def examples() -> None:
        labels = found()  # boxes give no class of the whole image to show
        said, every = (
            Said(text, None if labels is None or isinstance(labels, BoxLabels) else labels.of(images.digests)),
            np.ones(len(images), bool),
        )
        write_examples(run_dir / EXAMPLES, images, every, said, run_dirs={"predicted": run_dir}, split=split)

    def label_errors() -> None:
        if (labels := found()) is None or isinstance(labels, BoxLabels):
            return
        row_of = {digest: row for row, digest in enumerate(images.digests)}
        pairs = suspected_errors(labels.probabilities, labels.labels, labels.out_of_fold)
        rows, given = np.array([pair for pair in pairs if labels.digests[pair[0]] in row_of], np.int64).reshape(-1, 2).T
        own = np.array([row_of[labels.digests[row]] for row in rows], np.int64)
        tables = manifests_of(map(Path, labels.facts.embeddings))
        write_suspected(run_dir / DOUBTFUL, images, own, given, take(labels.probabilities, rows), tables=tables)

    work: dict[str, Callable[[], None]] = {EXAMPLES: examples}
    if table is not None and text is not None:
        work[DESCRIPTIONS] = lambda: write_descriptions(run_dir / DESCRIPTIONS, table.manifest, text.described)
    if path is not None:
        work[DOUBTFUL] = label_errors
    return write_all(work)


def manifests_of(tables: Iterable[Path]) -> list[Manifest]:
    """Return the manifests of those embedding tables that are still there."""
    return [read_manifest(path) for path in tables if is_table(path)]


def write_descriptions(path: Path, manifest: Manifest, described: NDArray[np.bool_]) -> None:
    """Write who described images, (N,) ``described``, at what cost and how well; the store may be gone."""
    record: dict[str, Any] = {}
    if Path(manifest.store).is_file():
        record |= store_record(Path(manifest.store), manifest.prompts)
    encoding = ("encoder", "width", "max_tokens", "truncated", "length_policy")
    record |= {"images": len(described), "described": int(described.sum())}
    encoded = {name: getattr(manifest, name) for name in encoding}
    write_json(path, record | {"store": manifest.store, "encoding": encoded})


def write_examples(
    path: Path,
    images: Dataset,
    usable: NDArray[np.bool_],
    said: Said,
    *,
    run_dirs: Mapping[str, Path],
    split: str = "test",
    comparison: str = "",
) -> None:
    """Write pictures of a held-out split and of described training images, across classes, or the worst ones."""
    text, targets, answers = said
    first = next(iter(run_dirs), None)
    if first and (cards := _box_examples(images, usable, run_dirs[first], first, split, comparison)) is not None:
        write_json(path, cards)
        return
    predictions = {name: read_predictions(folder, split, images) for name, folder in run_dirs.items()}
    drawn = DrawnMasks.of_runs(images, run_dirs, split)
    described = np.zeros(len(images), bool) if text is None else text.described
    described = described if answers is None else described | answers.given
    train = np.flatnonzero(usable & described & (images.splits == "train"))
    held_out = np.flatnonzero(usable & (images.splits == split))
    sample = _sample(images, held_out, train, list(predictions.values()), drawn)
    manifests = [text.table.manifest] if text and text.table else []
    texts = texts_behind(manifests, [images.digests[i] for i in sample])
    pictures = Thumbnails(images)

    def row(index: int, picture: str) -> dict[str, Any]:
        key = images.keys[index]
        by_text = np.zeros(1) if targets is None else np.nan_to_num(targets[index])  # NaN: not known
        classes = predicted_of(images, index, np.flatnonzero(by_text >= 0.5))
        guess: dict[str, Any] = {"class": classes, "probability": None}
        if images.labels.ndim == 1:
            guess = {"class": images.classes[int(by_text.argmax())], "probability": round(float(by_text.max()), 4)}
        answer = None
        if answers is not None and answers.first.ndim == 1 and answers.first[index] >= 0:
            stated = float(answers.confidence[index])
            sure = None if np.isnan(stated) else stated
            answer = {"class": images.classes[int(answers.first[index])], "probability": sure}
        return {
            "key": key,
            "comparison": comparison,
            "label": label_of(images, index),
            "split": str(images.splits[index]),
            "picture": picture,
            "descriptions": texts.get(images.digests[index], []),
            "text_label": guess if by_text.any() else None,
            "answer": answer,
            "predictions": {name: found[key] for name, found in predictions.items() if key in found},
            **({} if drawn is None else {"drawn": drawn.of(index)}),
        }

    rows = [row(index, picture) for index in sample if (picture := pictures.of(index))]
    if predictions and drawn is None:
        small, some = Thumbnails(images, SMALL), np.random.default_rng(1).permutation(held_out)[:AT_RANDOM].tolist()
        only = ("key", "comparison", "label", "split", "picture", "predictions")
        shown = (row(index, picture) for index in some if (picture := small.of(index)))
        rows += [{name: one[name] for name in only} | {"at_random": True} for one in shown]
    write_json(path, rows)


def _sample(
    images: Dataset,
    held_out: NDArray[np.int64],
    train: NDArray[np.int64],
    predictions: Sequence[Mapping[str, dict[str, Any]]],
    drawn: DrawnMasks | None,
) -> list[int]:
    """Return which of the held-out and training images are shown: across classes; of masks those predicted worst."""
    rng = np.random.default_rng(0)
    groups = [held_out]
    if drawn is not None:
        held_out, groups = drawn.worst_first(held_out)[:PER_SPLIT], []
    elif len(predictions) == 1:
        guesses = [(label_of(images, i), predictions[0].get(images.keys[i])) for i in held_out.tolist()]
        wrong = np.array([bool(label and guess and guess["class"] != label) for label, guess in guesses], bool)
        groups = [held_out[wrong], held_out[~wrong]]
    sample: list[int] = [] if groups else held_out.tolist()
    for group, most in [*((group, PER_SPLIT // len(groups)) for group in groups), (train, PER_SPLIT)]:
        sample += across_classes(images.labels, rng.permutation(group), most).tolist()
    return sample


def across_classes(labels: NDArray[Any], rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of ``rows``, sorted: one of each (first) class in turn."""
    kinds = labels[rows] if labels.ndim == 1 else np.argmax(labels[rows] == 1, axis=1)
    by_class = np.argsort(kinds, kind="stable")
    turns = np.empty(len(rows), np.int64)
    turns[by_class] = np.arange(len(rows)) - np.searchsorted(kinds[by_class], kinds[by_class])
    return np.sort(rows[np.argsort(turns, kind="stable")[:most]])


def write_suspected(
    path: Path,
    images: Dataset,
    rows: NDArray[np.int64],
    given: NDArray[np.int64],
    probabilities: Probabilities,
    *,
    tables: Sequence[Manifest],
    true: bool = False,
    comparison: str = "",
) -> None:
    """Write the first SUSPECTED pictures (rows most suspect first) whose ``given`` (n,) label texts contradict."""
    found: list[dict[str, Any]] = []
    pictures = Thumbnails(images)
    texts = texts_behind(tables, [images.digests[row] for row in rows[: 2 * SUSPECTED]])
    for place, (row, label) in enumerate(zip(rows.tolist(), given.tolist(), strict=True)):
        if len(found) < SUSPECTED and (picture := pictures.of(row)):
            predicted = probabilities[place]
            names, likely = (images.classes[label], images.classes[int(predicted.argmax())]), float(predicted.max())
            if images.labels.ndim > 1:  # the text contradicts one of several labels
                words = ("present", "absent") if predicted[label] < 0.5 else ("absent", "present")
                names = f"{names[0]}: {words[0]}", f"{names[0]}: {words[1]}"
                likely = max(float(predicted[label]), 1.0 - float(predicted[label]))
            item = {
                "key": images.keys[row],
                "picture": picture,
                "comparison": comparison,
                "given": names[0],
                "text": names[1],
                "probability": round(likely, 4),
                "description": next(iter(texts.get(images.digests[row], [])), ""),
                "truth": label_of(images, row) if true else None,
            }
            found.append(item)
    write_json(path, found)


def read_predictions(run_dir: Path, split: str, images: Dataset) -> dict[str, dict[str, Any]]:
    """Return the predicted class, or all classes, of each image by key, and the probability where there is one."""
    path = run_dir / f"predictions-{split}.parquet"
    try:
        rows = read_parquet(path, ["key", "prediction", "confidence"]).to_pylist()
    except DamagedError:  # of several classes per image there is no confidence
        rows = read_parquet(path, ["key", "prediction"]).to_pylist()
    row_of = {key: row for row, key in enumerate(images.keys)}
    return {
        row["key"]: {
            "class": predicted_of(images, row_of[row["key"]], np.atleast_1d(row["prediction"])),
            "probability": row.get("confidence"),
        }
        for row in rows
        if row["key"] in row_of
    }


def label_of(images: Dataset, index: int) -> str | None:
    """Return the classes of an image in words; None where no class is known to be there, and not all to be absent."""
    absent = images.labels.ndim == 2 and (images.labels[index] == 0).all()
    return ", ".join(images.label_names(index)) or (NO_CLASS if absent else None)


def predicted_of(images: Dataset, index: int, predicted: NDArray[Any]) -> str:
    """Return predicted classes in words, to be compared with ``label_of``: without those that the label leaves open."""
    classes = predicted.astype(np.int64)
    if images.labels.ndim == 2 and label_of(images, index) is not None:
        classes = classes[images.labels[index, classes] >= 0]
    return ", ".join(images.classes[k] for k in classes.tolist()) or NO_CLASS
