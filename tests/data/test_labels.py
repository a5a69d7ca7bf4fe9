"""Cells of labels: names, several, what is no label and what is refused."""

import math

import numpy as np
import pytest

from gpt4image.base.errors import DataError
from gpt4image.data.labels import encode, note_other_classes, presence


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["b", "a", None, "", " ", "-1"], ("a", "b"), [1, 0, -1, -1, -1, -1]),
        ([10, 2, -1, None], ("2", "10"), [1, 0, -1, -1]),
        ([2019.0, math.nan, 2020.0], ("2019", "2020"), [0, -1, 1]),  # what pandas makes of integers with gaps
        (["01", "1", "nan"], ("1", "01"), [1, 0, -1]),  # as numbers they would be one class
        (["Cafe\u0301", "Caf\u00e9", "b"], ("Caf\u00e9", "b"), [0, 0, 1]),  # one word, stored in two ways
        (["3", "cat"], ("3", "cat"), [0, 1]),
        ([True, False], ("False", "True"), [1, 0]),
        ([0.5, 1.5], ("0.5", "1.5"), [0, 1]),
        ([None, None], (), [-1, -1]),
    ],
)
def test_a_label_is_a_name(cells: list[object], classes: tuple[str, ...], labels: list[int]) -> None:
    found_classes, found_labels = encode(cells, "test")
    assert (found_classes, found_labels.tolist()) == (classes, labels)


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["red|round", "round", "", "|", None], ("red", "round"), [[1, 1], [0, 1], [-1, -1], [0, 0], [-1, -1]]),
        ([" red | round |", "-1"], ("red", "round"), [[1, 1], [-1, -1]]),
        ([["a, b"], ["c|d"], [], None], ("a, b", "c|d"), [[1, 0], [0, 1], [0, 0], [-1, -1]]),
        ([[2, 0], 1, float("nan")], ("0", "1", "2"), [[1, 0, 1], [0, 1, 0], [-1, -1, -1]]),
        ([None], (), [[]]),
    ],
)
def test_cells_of_several_classes(cells: list[object], classes: tuple[str, ...], labels: list[list[int]]) -> None:
    found_classes, found = encode(cells, "test", several=True)
    assert (found_classes, found.tolist(), found.dtype) == (classes, labels, np.int8)


@pytest.mark.parametrize(
    ("cells", "several", "message"),
    [
        ([["a"], ["b", None]], True, "row 2, .* has a class without a name, or a class twice"),
        ([[0, 1], [0, 1, 0]], True, "row 2, .* has a class without a name, or a class twice"),
        ([None, [["a"]]], True, "row 2, .* is a list; give one class"),
        (["a", ["b"]], False, "row 2, .* several in a column of lists, labels=COLUMN"),
        (["a", "c" * 1001], False, "row 2, .* text of up to 1000 letters"),
        ([[f"{number}x" for number in range(20_001)]], True, "20,001 classes, .* up to 20,000"),
    ],
)
def test_mistakes_in_cells_are_named(cells: list[object], several: bool, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(cells, "test", several=several)


def test_a_column_of_one_class() -> None:
    found = presence([1, 0, "1.0", " TRUE", "False", "", None, float("nan"), True, 0.0])
    assert found.tolist() == [1, 0, 1, 1, 0, -1, -1, -1, 1, 0]
    with pytest.raises(ValueError, match="has '-1' in row 2; give 1 for a class that is present"):
        presence(["1", "-1"])


def test_a_name_that_both_lists_have_is_not_taken_for_a_slip(capsys: pytest.CaptureFixture[str]) -> None:
    note_other_classes("--classes", ["shoes", "shorts"], ["shoes"], "set")
    note_other_classes("--classes", ["hat", "shorts"], ["hat", "short"], "set")
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("meant to be") == 1 and "Is 'shorts' meant to be 'short'" in told
