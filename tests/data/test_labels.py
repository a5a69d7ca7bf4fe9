"""Cells of label columns."""

from __future__ import annotations

import pytest

from gpt4image.data.labels import encode_labels


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["b", "a", None, "", " ", "-1"], ("a", "b"), [1, 0, -1, -1, -1, -1]),
        ([2, 0, -1, None], ("0", "1", "2"), [2, 0, -1, -1]),
        ([1.0, float("nan"), 0.0], ("0", "1"), [1, -1, 0]),  # what pandas makes of integers with gaps
        (["1", "0", ""], ("0", "1"), [1, 0, -1]),
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
