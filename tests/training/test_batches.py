"""Batches: a pure function of seed and number, every image once per pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import ConfigError
from gpt4image.parallel import processes
from gpt4image.training.batches import Stream, make_batches


@given(count=st.integers(1, 30), start=st.integers(0, 100), length=st.integers(1, 80), seed=st.integers(0, 5))
def test_a_stream_read_in_any_pieces_is_the_same_sequence(count: int, start: int, length: int, seed: int) -> None:
    images = np.arange(100, 100 + count)
    whole = Stream(images=images, seed=(seed,)).take(0, start + length)
    piece = Stream(images=images, seed=(seed,)).take(start, length)
    assert piece.tolist() == whole[start:].tolist()


@given(count=st.integers(1, 12), repeats=st.integers(1, 4), start=st.integers(0, 40), length=st.integers(1, 60))
def test_repeats_give_the_same_order_with_each_image_several_times(
    count: int, repeats: int, start: int, length: int
) -> None:
    images = np.arange(count)
    once = Stream(images=images, seed=(5,)).take(0, start + length)
    piece = Stream(images=images, seed=(5,), repeats=repeats).take(start, length)
    assert piece.tolist() == np.repeat(once, repeats)[start : start + length].tolist()


@pytest.mark.parametrize(("share", "own"), [(0.5, 8), (0.25, 4), (0.01, 1), (0.99, 15)])
def test_batches_hold_the_asked_share_of_images_with_a_target(share: float, own: int) -> None:
    batches = make_batches(np.arange(10), np.arange(100, 2000), size=16, labelled_share=share, seed=0)
    for number in range(20):
        batch = batches.batch(number)
        assert len(batch) == 16
        assert (batch < 100).sum() == own


@pytest.mark.parametrize("others", [1, 20, 60])
def test_few_images_without_a_target_are_drawn_as_often_as_the_others(others: int) -> None:
    images, few = np.arange(60), np.arange(100, 100 + others)
    batches = make_batches(images, few, size=4, labelled_share=0.5, seed=0)
    passes = np.concatenate([batches.batch(number) for number in range(60 + others)])  # four
    assert set(np.unique_counts(passes).counts.tolist()) == {4}
    assert make_batches(images, few, size=4, labelled_share=0.5, seed=0, placing="apart").others_per_batch == 2
    assert make_batches(images, few, size=4, labelled_share=0.999, seed=0).others_per_batch == 1


@pytest.mark.parametrize(("share", "more"), [(0.5, 8), (0.25, 24), (0.75, 3), (0.999, 1)])
def test_others_on_top_take_no_place_of_images_with_a_target(share: float, more: int) -> None:
    few, many = np.arange(10), np.arange(100, 2000)
    batches, alone = (
        make_batches(few, others, size=8, labelled_share=share, seed=0, placing="on-top") for others in (many, many[:0])
    )
    for number in range(20):
        batch = batches.batch(number)
        assert batch[:8].tolist() == alone.batch(number).tolist()
        assert len(batch) == batches.size == 8 + more and (batch[8:] >= 100).all()


@pytest.mark.parametrize(("processes_", "others", "more"), [(1, 1, 1), (1, 5, 2), (2, 5, 2), (4, 5, 4), (1, 30, 8)])
def test_few_others_on_top_are_drawn_about_as_often_as_images_with_a_target(
    processes_: int, others: int, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "count", lambda: processes_)
    monkeypatch.setattr(processes, "rank", lambda: 0)
    few = np.arange(100, 100 + others)
    batches = make_batches(np.arange(20), few, size=8, labelled_share=0.5, seed=0, placing="on-top")
    assert (batches.size, batches.others_per_batch) == (8 + more, more)
    assert len(batches.rows) * processes_ == batches.size
    alone = make_batches(np.arange(20), few, size=processes_, labelled_share=0.5, seed=0, placing="on-top")
    assert (alone.batch(0) >= 100).any(), "also where one image fills a batch"


def test_processes_that_see_the_others_twice_get_equal_shares_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, second = [], []
    monkeypatch.setattr(processes, "count", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        batches = make_batches(
            np.arange(10), np.arange(100, 200), size=16, labelled_share=0.25, seed=0, mixing=True, placing="apart"
        )
        batch = batches.batch(1)
        assert (batch < 100).sum() == 2 and (batch >= 100).sum() == 6
        total, rows = batches.rows_with_second_views()
        assert total == 28 and len(rows) == 14
        assert (rows[8:] - 16 == batches.rows[batch >= 100] - 4).all()
        parts += batch.tolist()
        second += rows.tolist()
    monkeypatch.undo()
    whole = make_batches(np.arange(10), np.arange(100, 200), size=16, labelled_share=0.25, seed=0, placing="apart")
    assert sorted(parts) == sorted(whole.batch(1).tolist())
    assert sorted(second) == list(range(28))


def test_a_batch_that_processes_cannot_share_kind_by_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="5 of --batch-size 10 have a target, which must be a multiple of 2, and 5"):
        make_batches(np.arange(10), np.arange(100, 200), size=10, labelled_share=0.5, seed=0, placing="apart")
