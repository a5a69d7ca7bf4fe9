"""Suspected label errors in words, for one label per image and for several."""

from __future__ import annotations

import numpy as np

from gpt4image.artifacts.table import Manifest
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.labelling.label_page import Shown, in_words
from gpt4image.labelling.suggest import Suggestion

TABLE = Manifest.__new__(Manifest)  # which texts are behind it is not asked


def shown(labels: list[int] | list[list[int]], probabilities: list[list[float]], suspected: list[list[int]]) -> Shown:
    images = ImageSet(
        spec="memory", classes=("cat", "dog"), keys=("a.png", "b.png"), labels=np.array(labels),
        splits=np.full(2, "train"), source=MemorySource([b"a", b"b"]), rows=np.arange(2),
    )  # fmt: skip
    suggestions = [Suggestion(row=1, action="label", doubt=0.9, why="unsure")]
    return Shown(
        images=images,
        probabilities=np.array(probabilities, np.float32),
        table=TABLE,
        suspected=np.array(suspected, np.int64).reshape(-1, 2),
        suggestions=suggestions,
    )


def test_one_label_is_doubted_as_far_as_its_probability_is_from_one() -> None:
    found = shown([0, 1], [[0.25, 0.75], [0.0, 0.0]], [[0, 0]])
    assert found.suspect(0, 0) == {"given": "cat", "guess": "dog", "probability": 0.75, "doubt": 0.75}
    assert found.guess(1) == "", "nothing is known of an image without a text"


def test_one_of_several_labels_is_doubted_as_present_or_as_absent() -> None:
    found = shown([[1, 0], [0, 1]], [[0.25, 0.875], [0.0, 1.0]], [[0, 0], [0, 1]])
    names = {0: ("cat: present", "cat: absent"), 1: ("dog: absent", "dog: present")}
    for label, doubt in ((0, 0.75), (1, 0.875)):
        given, guess = names[label]
        assert found.suspect(0, label) == {"given": given, "guess": guess, "probability": doubt, "doubt": doubt}


def test_the_terminal_shows_as_many_as_asked_for_and_the_suggestions() -> None:
    found = shown([0, 1], [[0.25, 0.75], [0.75, 0.25]], [[0, 0], [1, 1]])
    text = in_words(found, most=1)
    assert "a.png" in text.split("Worth a label next")[0] and "b.png" not in text.split("Worth a label next")[0]
    assert "b.png" in text.split("Worth a label next")[1] and "unsure" in text and "Worth a description" not in text
    assert "2 suspected label errors; none shown, as asked." in in_words(found, most=0)
    assert "No suspected label errors." in in_words(shown([0, 1], [[1.0, 0.0], [0.0, 1.0]], []), most=5)
