"""Is the new model better than the deployed one? Both on the same test images, old and new apart, paired."""

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.base.errors import TableError
from gpt4image.base.intervals import paired
from gpt4image.data import Dataset
from gpt4image.improving.line import Compared
from gpt4image.improving.look import load_deployed
from gpt4image.labelling.evidence import read_answers
from gpt4image.pages.numbers import points, points_interval

OLD, NEW = "old", "new"
FEWEST = 20
"""Test images from which on a difference counts against a model: of fewer, a single one moves it too far."""


def compare_models(
    deployed: Path, trained: Path, images: Dataset, new: Collection[str], answers: Path
) -> dict[str, Compared]:
    """Return how two runs do on the test images: those ``new`` to the first, by digest, and the old ones.

    The class of an image is what a person said, or else what was answered; images with neither are left out.
    """
    test = images.indices("test")
    by_people = images.labelled[test]
    truth = [images.label_names(row)[0] if known else "" for row, known in zip(test, by_people, strict=True)]
    if not by_people.all():
        with contextlib.suppress(TableError):  # there is no answer about any of them
            classes = runs.class_names(trained)
            said = read_answers(answers, [images.digests[row] for row in test], classes).answers.first
            truth = [name or (classes[k] if k >= 0 else "") for name, k in zip(truth, said, strict=True)]
    known = np.array([bool(name) for name in truth], bool)
    rows, by_people = test[known], by_people[known]
    if not len(rows):
        return {}
    right = []
    for run in (deployed, trained):
        model = load_deployed(run)
        probabilities, _, readable = model.predict(images, rows)
        best = [model.classes[k] for k in probabilities.argmax(axis=1)]
        same = np.array([name == true for name, true in zip(best, filter(None, truth), strict=True)])
        right.append(np.where(readable, same, False))
    found = dict[str, Compared]()
    is_new = np.array([images.digests[row] in new for row in rows])
    for name, own in ((OLD, ~is_new), (NEW, is_new)):
        if own.any():
            before, after = (one[own].astype(np.float64) for one in right)
            difference, interval = paired(after - before)
            found[name] = Compared(
                images=int(own.sum()),
                by_people=int(by_people[own].sum()),
                before=float(before.mean()),
                after=float(after.mean()),
                difference=difference,
                ci95=interval,
            )
    return found


def against(compared: Mapping[str, Compared], margin: float) -> str:
    """Return what speaks against taking the new model over: it is worse by more than the margin; empty if nothing."""
    worse = [
        f"it is {points(-one.difference).lstrip('+')} points worse on {one.images:,} {name} test images"
        for name, one in compared.items()
        if one.images >= FEWEST and one.difference < -margin
    ]
    return " and ".join(worse)


def in_words(compared: Mapping[str, Compared]) -> list[str]:
    """Return the comparison in sentences."""
    said = list[str]()
    for name, one in compared.items():
        low, high = one.ci95
        verdict = "better" if low > 0 else "worse" if high < 0 else "inconclusive"
        whose = (
            "" if one.by_people == one.images else f", {one.images - one.by_people:,} of them by the describer's word"
        )
        said.append(
            f"On {one.images:,} {name} test images{whose}: {100 * one.before:.1f} % right before, "
            f"{100 * one.after:.1f} % after; {points(one.difference)} points "
            f"(95 % interval {points_interval(one.ci95)}): {verdict}."
        )
    for name in (OLD, NEW):
        if name not in compared:
            said.append(f"No {name} test image has a known class, so the models are not compared there.")
    return said
