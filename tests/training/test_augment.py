"""Augmentation of whole batches, and which images make one up."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gpt4image.base.errors import ConfigError
from gpt4image.parallel import processes
from gpt4image.training.augment import (
    STRONG,
    Augmentation,
    BatchRng,
    CpuAugmentation,
    Policy,
    erased,
    eval_batch,
    mix,
    normalised,
    random_geometry,
    recoloured,
)
from gpt4image.training.batches import Stream, make_batches


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rng(count: int, seed: int = 0) -> BatchRng:
    return BatchRng(generator=generator(seed), total=count, rows=torch.arange(count))


def pictures(count: int = 64, side: int = 12) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator(7))


def how(**changes: object) -> Augmentation:
    plain = {"size": 12, "flip": True, "shift": 0.125, "min_scale": 1.0, "colour": 0.0, "erase": 0.0}
    normal = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}
    return Augmentation(**(plain | normal | changes))  # type: ignore[arg-type]


def cropped(images: Tensor, **changes: object) -> Tensor:
    return random_geometry(images.shape[-1], how(**changes), rng(len(images))).pixels(images)


def augmented(images: Tensor, **changes: object) -> Tensor:
    own, numbers = how(**changes), rng(len(images))
    return recoloured(random_geometry(images.shape[-1], own, numbers).pixels(images), own, numbers)


def test_a_shift_moves_the_picture_and_mirrors_its_border() -> None:
    images = pictures(200)
    moved = cropped(images, shift=2 / 12, flip=False)
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").byte()
    windows = {
        (y, x): (padded[:, :, y : y + 12, x : x + 12] == moved).flatten(1).all(1) for y in range(5) for x in range(5)
    }
    assert torch.stack(list(windows.values())).any(0).all()
    assert all(found.any() for found in windows.values()), "every shift of up to two pixels occurs among 200"


def test_the_input_is_cut_from_the_centre_of_a_larger_stored_picture() -> None:
    images = pictures(side=16)
    assert torch.equal(cropped(images, shift=0, flip=False), images[:, :, 2:14, 2:14])
    expected = normalised(images[:, :, 2:14, 2:14].float() / 255, how())
    assert torch.equal(eval_batch(images, how()), expected)


def test_a_resized_crop_shows_a_part_of_the_picture_but_of_rows_not_to_be_cut_the_whole() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(300, 3, 32, 32).contiguous()
    crops = cropped(ramp, size=16, min_scale=0.25, flip=False)
    width = (crops[:, 0, 8, -1] - crops[:, 0, 8, 0]) / (8 * 32) * 16 / 15
    assert crops.min() >= 0 and crops.max() <= 248
    assert 0.4 < float(width.min()) < 0.6 and float(width.max()) <= 1.01, "sides between sqrt(0.25 * 3/4) and 1"
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(6, 3, 32, 32).contiguous()
    uncut = torch.tensor([False, True, False, False, True, False])
    geometry = random_geometry(32, how(size=16, min_scale=0.25, flip=False), rng(6), uncut)
    whole = geometry.window == torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert torch.equal(whole.all(dim=1), uncut)
    assert geometry.pixels(ramp)[uncut, 0, 8, 0].lt(8).all()


def test_erasing_sets_a_rectangle_of_some_pictures_to_zero() -> None:
    ones = torch.ones(400, 3, 20, 20)
    result = erased(ones, 0.25, rng(400))
    hit = (result == 0).flatten(1).any(1)
    assert 60 < int(hit.sum()) < 140
    area = (result[hit][:, 0] == 0).float().mean((1, 2))
    assert float(area.max()) < 0.45
    assert torch.equal(result[:, 0], result[:, 2]), "all channels of a pixel go together"


@pytest.mark.parametrize("changes", [{}, {"min_scale": 0.4}, {"colour": 0.4, "erase": 1.0}])
def test_all_frames_of_a_clip_are_changed_as_the_first_one_is(changes: dict[str, float]) -> None:
    images = pictures(8)
    clips = images.repeat(1, 3, 1, 1)
    alone, together = (augmented(pictures, **changes) for pictures in (images, clips))
    assert together.shape == (8, 9, 12, 12)
    for frame in together.split(3, dim=1):
        assert torch.allclose(frame, alone, atol=1e-5)
    assert torch.allclose(eval_batch(clips, how())[:, 6:], eval_batch(images, how()))


def test_some_pictures_lose_their_colours() -> None:
    images = pictures()
    plain, some = (recoloured(images, how(grey=share), rng(len(images), 1)) for share in (0.0, 0.5))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (how().mean, how().std))
    before, after = plain * std + mean, some * std + mean
    lost = (plain != some).flatten(1).any(dim=1)
    assert 20 < lost.sum() < 44
    torch.testing.assert_close(after[lost], before[lost].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("rows", [[1, 2, 4, 7], [1, 2, 4, 6, 7], [3], []])
def test_only_the_rows_asked_for_are_mixed_and_of_an_odd_number_the_last_is_not(rows: list[int]) -> None:
    np.random.seed(1)
    images = torch.rand(8, 3, 6, 6)
    mixed = images.clone()
    matrix = mix(mixed, torch.tensor(rows, dtype=torch.int64), 0.8, 0.0)
    asked = rows[: len(rows) // 2 * 2]
    others = [row for row in range(8) if row not in asked]
    assert torch.equal(mixed[others], images[others])
    assert torch.equal(matrix[others], torch.eye(8)[others])
    assert torch.allclose(mixed, torch.einsum("ij,jchw->ichw", matrix, images), atol=1e-5)
    assert all(not torch.equal(mixed[row], images[row]) for row in asked)
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 10, 10).clone()
    matrix = mix(images, torch.tensor(rows, dtype=torch.int64), 0.0, 1.0)
    own = torch.stack([(images[i, 0] == i).float().mean() for i in range(8)])
    assert torch.allclose(own, matrix.diagonal(), atol=1e-5), "shares of pixels"


HOW = how()
SECOND = np.arange(20) % 3 == 0
IMAGES = np.array([4, 6, 8, 9, 13, 15])


def views(**changes: Any) -> CpuAugmentation:
    usual = {"how": HOW, "policy": None, "strong": Policy(STRONG, HOW.mean), "second": SECOND, "seed": 0}
    return CpuAugmentation(**{**usual, "total": 6, "rows": torch.arange(6), **changes})


@pytest.mark.parametrize("rows", [[0, 5], [1, 2, 3, 4], [3]])
def test_a_process_makes_of_its_rows_what_one_process_makes_of_them(rows: list[int]) -> None:
    how = {"how": HOW, "policy": Policy("rand-m9-mstd0.5-inc1", HOW.mean)}
    whole = views(**how)(pictures(6), IMAGES, 3)
    part = views(**how, rows=torch.tensor(rows))(pictures(6)[rows], IMAGES[rows], 3)
    assert torch.equal(part[: len(rows)], whole[rows])
    seconds = [6 + np.flatnonzero(SECOND[IMAGES]).tolist().index(row) for row in rows if SECOND[IMAGES[row]]]
    assert torch.equal(part[len(rows) :], whole[seconds])


@pytest.mark.parametrize("name", [STRONG, "rand-m9-mstd0.5-inc1", "augmix-m3-w3", "original", "v0", "3a"])
def test_an_image_is_changed_as_its_seed_says_whatever_its_place_and_company(name: str) -> None:
    policy, images, seeds = Policy(name, HOW.mean), pictures(12, 16), torch.arange(12) * 2**58
    whole = policy(images, seeds)
    assert whole.shape == images.shape and whole.dtype == torch.uint8
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))[:7]
    assert torch.equal(policy(images[order], seeds[order]), whole[order])
    assert not torch.equal(policy(images, seeds + 1), whole)
    frames = policy(images.repeat(1, 3, 1, 1), seeds).split(3, dim=1)
    assert all(torch.equal(frame, whole) for frame in frames), "all frames of a clip are changed alike"


def test_random_states_of_others_are_left_alone_and_strongest_magnitudes_never_fail() -> None:
    def numbers_after(change: Callable[[], Any]) -> tuple[float, float, float]:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(5)
        change()
        return random.random(), np.random.rand(), torch.rand(1).item()

    policy = Policy(STRONG, HOW.mean)
    assert numbers_after(lambda: policy(pictures(12, 16), torch.arange(12))) == numbers_after(lambda: None)
    Policy("rand-m10-n15-p1-inc1", HOW.mean)(pictures(1, 16).expand(40, -1, -1, -1), torch.arange(40))


@pytest.mark.parametrize("name", ["randaugment", "rand-x9", "v7", "rand-m9-mmax30"])
def test_an_unknown_policy_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--auto-augment {name}"):
        Policy(name, HOW.mean)


@given(count=st.integers(1, 30), repeats=st.integers(1, 4), start=st.integers(0, 100), length=st.integers(1, 80))
def test_a_stream_read_in_any_pieces_is_the_same_sequence(count: int, repeats: int, start: int, length: int) -> None:
    images = np.arange(100, 100 + count)
    whole = Stream(images=images, seed=(5,)).take(0, start + length)
    piece = Stream(images=images, seed=(5,), repeats=repeats).take(start, length)
    assert piece.tolist() == np.repeat(whole, repeats)[start : start + length].tolist()


@pytest.mark.parametrize("others", [1, 20, 60])
def test_few_images_without_a_target_are_drawn_as_often_as_the_others(others: int) -> None:
    images, few = np.arange(60), np.arange(100, 100 + others)
    batches = make_batches(images, few, size=4, labelled_share=0.5, seed=0)
    passes = np.concatenate([batches.batch(number) for number in range(60 + others)])  # four
    assert set(np.unique_counts(passes).counts.tolist()) == {4}
    assert make_batches(images, few, size=4, labelled_share=0.5, seed=0, placing="apart").others_per_batch == 2
    for share, own in ((0.5, 8), (0.25, 4), (0.01, 1), (0.99, 15)):
        batches = make_batches(np.arange(10), np.arange(100, 2000), size=16, labelled_share=share, seed=0)
        found = [batches.batch(number) for number in range(20)]
        assert {(len(batch), int((batch < 100).sum())) for batch in found} == {(16, own)}


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


def test_a_batch_that_processes_cannot_share_kind_by_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="of --batch-size 10, 5 have a target, which must be a multiple of 2"):
        make_batches(np.arange(10), np.arange(100, 200), size=10, labelled_share=0.5, seed=0, placing="apart")
