"""Example pictures for the report: what was written about them, what the text says, what each arm sees.

And pictures whose label the text doubts. What is in the files: extras.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import Manifest
from gpt4image.base.files import read_parquet, write_json
from gpt4image.data.image_set import ImageSet
from gpt4image.labelling.text_vectors import unit
from gpt4image.pages.cards import Thumbnails

if TYPE_CHECKING:
    from gpt4image.training.text_targets import TextTargets

SMALL = 56
PER_SPLIT = 24
DOUBTS = 24
NEIGHBOURS = 3
AMONG = 20_000
"""Most described training images that neighbours are looked for among."""


def write_examples(
    path: Path,
    image_set: ImageSet,
    candidates: NDArray[np.bool_],
    *,
    tables: Sequence[Manifest],
    text: TextTargets | None,
    text_labels: NDArray[np.float32] | None,
    run_dirs: Mapping[str, Path],
    comparison: str = "",
) -> None:
    """Write a fixed sample of held-out and described training pictures.

    Args:
        path: file to write.
        image_set: N images.
        candidates: (N,) which of them may be shown: those that can be decoded and, in train, are described.
        tables: of which table the texts are shown, as of ``read_descriptions``.
        text: embeddings of the descriptions, by which pictures have neighbours; or None.
        text_labels: (N, K) class probabilities read off the descriptions, zeros where there are none; or None.
        run_dirs: by arm, a run whose predictions are shown on test pictures; without any, there are none of these.
        comparison: whose predictions and text labels these are, where a report has several.
    """
    rng = np.random.default_rng(0)
    sample: list[int] = []
    for split in ("test", "train") if run_dirs else ("train",):
        images = np.flatnonzero(candidates & (image_set.splits == split))
        sample += np.sort(rng.choice(images, min(PER_SPLIT, len(images)), replace=False)).tolist()
    train = np.flatnonzero(candidates & (image_set.splits == "train"))
    alike = {} if text is None else nearest_texts(text, np.array(sample, np.int64), train)
    near = dict.fromkeys(other for others in alike.values() for other, _ in others)
    large, small = Thumbnails(image_set), Thumbnails(image_set, SMALL)
    shown = {index: picture for index in near if (picture := small.of(index))}
    texts = read_descriptions(tables, [image_set.digests[i] for i in dict.fromkeys([*sample, *near])])
    predictions = {arm: read_predictions(folder) for arm, folder in run_dirs.items()}

    def guess(label: int, probability: float) -> dict[str, Any]:
        return {"class": image_set.classes[label], "probability": round(probability, 4)}

    def name(index: int) -> str | None:
        return ", ".join(image_set.label_names(index)) or None

    def neighbour(index: int, similarity: float) -> dict[str, Any]:
        return {
            "key": image_set.keys[index],
            "label": name(index),
            "picture": shown[index],
            "description": next(iter(texts.get(image_set.digests[index], [])), ""),
            "similarity": round(similarity, 3),
        }

    def row(index: int, picture: str) -> dict[str, Any]:
        key = image_set.keys[index]
        by_text = None if text_labels is None or not text_labels[index].any() else text_labels[index]
        return {
            "key": key,
            "comparison": comparison,
            "label": name(index),
            "split": str(image_set.splits[index]),
            "picture": picture,
            "descriptions": texts.get(image_set.digests[index], []),
            "text_label": None if by_text is None else guess(int(by_text.argmax()), float(by_text.max())),
            "neighbours": [neighbour(*other) for other in alike.get(index, []) if other[0] in shown],
            "predictions": {arm: guess(*found[key]) for arm, found in predictions.items() if key in found},
        }

    write_json(path, [row(index, picture) for index in sample if (picture := large.of(index))])


def nearest_texts(
    text: TextTargets, images: NDArray[np.int64], pool: NDArray[np.int64]
) -> dict[int, list[tuple[int, float]]]:
    """Return the images of ``pool`` whose texts are most similar to that of each described image, and their cosines.

    There are NEIGHBOURS of each; images of the same text are none. Of more than AMONG images, a fixed sample is looked
    at.
    """
    pool = pool[text.described[pool]]
    if len(pool) > AMONG:
        pool = np.sort(np.random.default_rng(0).choice(pool, AMONG, replace=False))
    images = images[text.described[images]]
    (vectors, _, ids), (others, _, other_ids) = (text.take(part) for part in (images, pool))
    cosines = unit(vectors.numpy()) @ unit(others.numpy()).T
    cosines[ids.numpy()[:, None] == other_ids.numpy()] = -np.inf
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    return {
        image: [(int(pool[place]), float(row[place])) for place in places if np.isfinite(row[place])]
        for image, places, row in zip(images.tolist(), best, cosines, strict=True)
    }


def write_doubts(
    path: Path,
    image_set: ImageSet,
    rows: NDArray[np.int64],
    given: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    *,
    tables: Sequence[Manifest],
    true: bool = False,
    comparison: str = "",
) -> None:
    """Write the pictures whose label the text doubts, the first DOUBTS that can be decoded.

    Args:
        path: file to write.
        image_set: N images.
        rows: (n,) positions of the images, the most doubtful first.
        given: (n,) their labels.
        probabilities: (n, K) of the classes, by their texts.
        tables: what the texts were read off, as of ``read_descriptions``.
        true: whether the set knows the true labels, since a comparison has spoilt the given ones itself.
        comparison: whose labels these are, where a report has several.
    """
    classes, found = image_set.classes, []
    texts = read_descriptions(tables, [image_set.digests[row] for row in rows[: 2 * DOUBTS]])
    pictures = Thumbnails(image_set)
    for row, label, said in zip(rows.tolist(), given.tolist(), probabilities, strict=True):
        if len(found) == DOUBTS:
            break
        if picture := pictures.of(row):
            found.append(
                {
                    "key": image_set.keys[row],
                    "picture": picture,
                    "comparison": comparison,
                    "given": classes[label],
                    "text": classes[int(said.argmax())],
                    "probability": round(float(said.max()), 4),
                    "description": next(iter(texts.get(image_set.digests[row], [])), ""),
                    "truth": classes[image_set.labels[row]] if true else None,
                }
            )
    write_json(path, found)


def read_predictions(run_dir: Path) -> dict[str, tuple[int, float]]:
    """Return class and confidence by key, from the test predictions of a run."""
    names = ["key", "prediction", "confidence"]
    table = read_parquet(run_dir / "predictions-test.parquet", columns=names)
    columns = (table[name].to_pylist() for name in names)
    return {key: (prediction, confidence) for key, prediction, confidence in zip(*columns, strict=True)}


def read_descriptions(tables: Sequence[Manifest], digests: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts of a few images that embedding tables were made from: those that answer their prompts.

    A store may hold more, such as texts of a describer that was told the class. One that is gone gives none.

    Args:
        tables: what the tables say of themselves.
        digests: of the images.
    """
    from gpt4image.artifacts.store import DescriptionStore

    found: dict[str, list[str]] = {}
    for table in tables:
        if not Path(table.store).is_file():
            continue
        with DescriptionStore(Path(table.store)) as opened:
            for description in opened.descriptions(digests=digests):
                known = found.setdefault(description.digest, [])
                if description.prompt in table.prompts and description.text and description.text not in known:
                    known.append(description.text)
    return found
