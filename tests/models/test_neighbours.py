"""Nearest training images: the share of good images that is refused, and what strangers are."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import ModelError
from gpt4image.models.neighbours import NEAREST, Neighbours
from gpt4image.models.weights import save_tensors

NOBODY = torch.zeros(0, 8)


def images(count: int, seed: int, *around: int, width: int = 8, spread: float = 0.5) -> torch.Tensor:
    """Return features of images around unit vectors."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.eye(width)[torch.tensor(around)[torch.randint(len(around), (count,), generator=rng)]]
    return centres + spread * torch.randn(count, width, generator=rng)


@given(st.integers(0, 2**31), st.sampled_from([50, 400, 1000]), st.sampled_from([0, 5, 60]))
def test_new_good_images_are_refused_as_rarely_as_was_promised(seed: int, kept: int, strangers: int) -> None:
    found = Neighbours.of(images(1000, seed, 0, 1), images(strangers, seed + 1, 2), kept)
    known = found(images(4000, seed + 2, 0, 1))
    for share in (0.02, 0.1, 0.5):  # six standard deviations of 1,000 and of 4,000 images: many draws are tried
        assert (known < share).float().mean() == pytest.approx(share, abs=6 * (share * (1 - share) / 800) ** 0.5)


def test_an_image_of_the_kept_ones_is_no_neighbour_of_itself() -> None:
    odd, others = torch.eye(8)[7:], images(100, 0, 0, spread=0.1)
    found = Neighbours.of(torch.cat([odd, others]), NOBODY, 50)
    alike = torch.nn.functional.cosine_similarity(others[:49], odd).topk(NEAREST).values.mean()
    assert found.ladders.max().item() == pytest.approx(-alike.item(), abs=1e-3)
    assert len(found.kept) == 50 and found.kept.dtype == torch.float16


@given(st.integers(0, 2**31))
def test_what_lies_between_the_classes_is_seen_only_by_strangers_of_its_kind(seed: int) -> None:
    good, near = images(600, seed, 0, 1, spread=0.2), images(300, seed + 1, 2, spread=0.2) + torch.eye(8)[0]
    without, among = Neighbours.of(good, NOBODY, 500), Neighbours.of(good, near[:30], 500)
    assert (among(near[30:]) < 0.02).float().mean() > (without(near[30:]) < 0.02).float().mean() + 0.1
    far = images(50, seed + 2, 7, spread=0.2)
    for found in (among, without):  # strangers of one kind do not hide those of another
        assert (found(far) < 0.02).float().mean() > 0.9


@pytest.mark.parametrize("unseen", [400, 100])
def test_images_that_no_step_learned_from_correct_what_learned_ones_promise(unseen: int) -> None:
    learned, new = images(1000, 0, 0, 1, spread=0.4), images(4000, 1, 0, 1)
    shares = [
        (Neighbours.of(learned, NOBODY, 800, few)(new) < 0.02).float().mean().item()
        for few in (None, images(unseen, 2, 0, 1))
    ]
    assert shares[0] > 0.06 and abs(shares[1] - 0.02) < 0.4 * abs(shares[0] - 0.02)
    right = Neighbours.of(images(1000, 3, 0, 1), NOBODY, 800, images(unseen, 2, 0, 1))
    assert right.power.item() == pytest.approx(1, abs=0.15), "nothing to correct"


def test_the_file_holds_it_whole_and_another_one_is_refused(tmp_path: Path) -> None:
    found, path = Neighbours.of(images(90, 0, 0, 1), images(4, 1, 2), 50), tmp_path / "known.safetensors"
    found.save(path)
    new = images(20, 3, 0, 2)
    assert torch.equal(Neighbours.load(path)(new), found(new)) and NEAREST < 50
    save_tensors(path, {"weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="bring back"):
        Neighbours.load(path)
