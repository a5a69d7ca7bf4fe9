"""Cells of label columns, of one class and of several."""

from __future__ import annotations

import numpy as np
import pytest

from gpt4image.base.errors import DataError
from gpt4image.data.labels import encode_labels, encode_several, presence


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["b", "a", None, "", " ", "-1"], ("a", "b"), [1, 0, -1, -1, -1, -1]),
        ([2, 0, -1, None], ("0", "1", "2"), [2, 0, -1, -1]),
        ([1.0, float("nan"), 0.0], ("0", "1"), [1, -1, 0]),  # what pandas makes of integers with gaps
        (["1", "0", ""], ("0", "1"), [1, 0, -1]),
        (["1.0", "0.0", "nan", ""], ("0", "1"), [1, 0, -1, -1]),  # and as text
        (["1.0", "1.5"], ("1.0", "1.5"), [0, 1]),
        (["Cafe\u0301", "Caf\u00e9", "b"], ("Caf\u00e9", "b"), [0, 0, 1]),  # one word, stored in two ways
        (["01", "1"], ("01", "1"), [0, 1]),  # as numbers they would be one class
        (["3", "cat"], ("3", "cat"), [0, 1]),
        ([True, False], ("False", "True"), [1, 0]),
        ([0.5, 1.5], ("0.5", "1.5"), [0, 1]),
        (["²", "x"], ("x", "²"), [1, 0]),
        ([None, None], (), [-1, -1]),
    ],
)
def test_cells(cells: list[object], classes: tuple[str, ...], labels: list[int]) -> None:
    found_classes, found_labels = encode_labels(cells, "test")
    assert found_classes == classes
    assert found_labels.tolist() == labels


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["red|round", "round", "", "|", None], ("red", "round"), [[1, 1], [0, 1], [-1, -1], [0, 0], [-1, -1]]),
        ([" red | round |", "-1"], ("red", "round"), [[1, 1], [-1, -1]]),
        (["2|0", "1"], ("0", "1", "2"), [[1, 0, 1], [0, 1, 0]]),
        ([["a, b"], ["c|d"], [], None], ("a, b", "c|d"), [[1, 0], [0, 1], [0, 0], [-1, -1]]),
        ([[2, 0], 1, float("nan")], ("0", "1", "2"), [[1, 0, 1], [0, 1, 0], [-1, -1, -1]]),
        ([None], (), [[]]),
    ],
)
def test_cells_of_several_classes(cells: list[object], classes: tuple[str, ...], labels: list[list[int]]) -> None:
    found_classes, found = encode_several(cells, "test")
    assert (found_classes, found.tolist(), found.dtype) == (classes, labels, np.int8)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a", "b;c"], r"row 2, 'b;c': classes of one image are separated by '\|', not by ';'\."),
        (["a, b"], "row 1, 'a, b': .* not by ','"),
        ([["a"], ["b", None]], r"row 2, \"\['b', None\]\", has a class without a name"),
        (["0", "0|-2"], "label -2 of row 2 is out of range"),
        ([[0, 1], [0, 1, 0]], r"row 2, '\[0, 1, 0\]', has a class twice; .* not a vector of 0 and 1"),
        ([None, [["a"]]], "of row 2 is a list"),
        (["a", "b|" + "c" * 1001], "of row 2 is a str of length 1001"),
        ([[str(number) + "x" for number in range(20_001)]], "20,001 classes, .* up to 20,000"),
    ],
)
def test_mistakes_in_cells_of_several_classes_are_named(cells: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_several(cells, "test")


def test_a_column_of_one_class() -> None:
    found = presence([1, 0, "1.0", " TRUE", "False", "", None, float("nan"), True, 0.0])
    assert found is not None and found.tolist() == [1, 0, 1, 1, 0, -1, -1, -1, 1, 0]
    assert presence(["1", "-1"]) is None and presence([1, [1]]) is None and presence(["2"]) is None
