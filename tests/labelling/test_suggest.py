from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.labelling.suggest import doubt_of, spread, to_describe, to_label, write_suggestions


def groups(*sizes: int):
    """Points around one corner each."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    return centres + rng.normal(0, 0.02, centres.shape), np.repeat(np.arange(len(sizes)), sizes)


def test_doubt_is_large_where_two_classes_are_near():
    doubt = doubt_of(np.array([[1.0, 0.0, 0.0], [0.4, 0.4, 0.2], [0.7, 0.2, 0.1]]))
    assert doubt == pytest.approx([0.0, 1.0, 0.5])


def test_chosen_images_are_unlike_each_other_and_the_doubt_they_stand_for_orders_them():
    points, group = groups(10, 30, 20)
    chosen = spread(points, np.full(60, 0.5), 3, 0)
    assert group[chosen].tolist() == [1, 2, 0]
    nearest = [
        np.flatnonzero(group == g)[((points[group == g] - points[group == g].mean(0)) ** 2).sum(1).argmin()]
        for g in (1, 2, 0)
    ]
    assert chosen.tolist() == nearest
    sure = np.where(group == 1, 0.0, 1.0)
    assert set(group[spread(points, sure, 2, 0)]) == {0, 2}, "images that are sure are passed over"
    assert len(spread(np.ones((20, 3)), np.ones(20), 4, 0)) == 1, "equal texts are suggested once"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_suggestions_are_distinct_as_many_as_asked_for_and_repeat(n: int, count: int, seed: int):
    rng = np.random.default_rng(seed)
    points, doubt = rng.standard_normal((n, 3)), rng.random(n)
    chosen = spread(points, doubt, count, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(n, count)
    assert np.array_equal(chosen, spread(points, doubt, count, seed))


def test_only_candidates_are_to_be_labelled():
    points, _ = groups(10, 10)
    probabilities = np.full((20, 2), 0.5)
    found = to_label(points, probabilities, np.arange(5, 15), 4, 0)
    assert {item.row for item in found} <= set(range(5, 15))
    assert {(item.action, item.doubt) for item in found} == {("label", 1.0)}


def test_descriptions_go_first_to_classes_that_have_few():
    labels = np.array([0, 0, 0, 1, 1, 2, -1, 0])
    described = np.array([True, True, False, True, False, False, False, False])
    candidates = np.flatnonzero(~described)
    found = to_describe(described, labels, candidates, 10)
    assert [item.row for item in found] == [5, 4, 2, 7, 6]
    assert [item.doubt for item in found] == [None] * 5
    assert len(to_describe(described, labels, candidates, 2)) == 2


def test_the_file_is_ranked_by_action(tmp_path: Path):
    found = to_label(np.eye(3), np.eye(3), np.arange(3), 2, 0)
    found += to_describe(np.zeros(3, bool), np.full(3, -1), np.arange(3), 1)
    write_suggestions(tmp_path / "next.csv", found, ["a,b", "=c", "d"], ["cat", "-dog", ""])
    with (tmp_path / "next.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["action"], row["key"]) for row in rows] == [
        ("1", "label", "a,b"),
        ("2", "label", "'=c"),
        ("1", "describe", "d"),
    ]
    assert [row["guess"] for row in rows] == ["cat", "'-dog", ""]
    assert rows[2]["doubt"] == ""
