"""Images joined to embeddings, as a user's own loop reads them."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from gpt4image.artifacts.table import digests_to_bytes, write_table
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.data import ImageSet
from gpt4image.own_loop.pairs import IGNORED_LABEL, DescribedImages
from gpt4image.own_loop.texts import NO_TEXT
from loaded_sets import in_memory
from tables import make_table

WIDTH = 8
TO_TENSOR = v2.Compose([v2.Resize((16, 16)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(WIDTH)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def image_set() -> ImageSet:
    """Six training images and two test images; number 5 has no label, number 3 is damaged."""
    images = [picture(10 * i) for i in range(8)]
    images[3] = images[3][:60]
    keys, splits = tuple(f"image-{i}" for i in range(8)), np.array(["train"] * 6 + ["test"] * 2)
    return in_memory(images, [0, 1, 0, 1, 0, -1, 1, 0], spec="memory:", keys=keys, splits=splits)


@pytest.fixture
def table(image_set, tmp_path):
    """Texts of images 0, 1 (two of them), 3, 5 and 6, and of one image that is not in the set."""
    digests = image_set.digests
    vectors = {digests[i]: [unit(i)] for i in (0, 3, 5, 6)}
    return make_table(tmp_path / "table", {**vectors, digests[1]: [unit(1), unit(11)], "ab" * 32: [unit(99)]})


def test_items_hold_image_label_text_and_whether_it_is_described(image_set, table):
    pairs = DescribedImages(image_set, table)
    assert len(pairs) == 6
    assert pairs.text_width == WIDTH
    assert pairs.classes == ("cat", "dog")
    image, label, text, described, text_id = pairs[0]
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (0, 0, 255)
    assert (label, described) == (0, True)
    np.testing.assert_allclose(text.numpy(), unit(0), atol=1e-3)
    assert pairs[2].described is False
    assert pairs[2].text.count_nonzero() == 0
    assert text_id >= 0 > pairs[2].text_id


def test_coverage_counts_missing_and_unused(image_set, table):
    coverage = DescribedImages(image_set, table).coverage
    assert (coverage.images, coverage.described, coverage.unused) == (6, 4, 1)
    assert coverage.missing == ("image-2", "image-4")
    assert str(coverage) == "4 of 6 images described; 1 other images in the table"
    test = DescribedImages(image_set, table, split="test").coverage
    assert (test.images, test.described, test.missing, test.unused) == (2, 1, ("image-7",), 1)
    assert DescribedImages(image_set, table, split=None).coverage.images == 8


def test_images_of_equal_text_share_its_identity(image_set, tmp_path):
    digests = image_set.digests
    table = make_table(tmp_path / "table", {digests[0]: [unit(0)], digests[1]: [unit(1)]})
    same = write_table(
        tmp_path / "same",
        embeddings=table.embeddings[:1],
        texts=table.texts[:1],
        digests=digests_to_bytes(digests[:2]),
        rows=np.zeros(2, np.int64),
        manifest=replace(table.manifest, texts=1),
    )
    apart, together = DescribedImages(image_set, table), DescribedImages(image_set, same)
    assert apart[0].text_id != apart[1].text_id
    assert together[0].text_id == together[1].text_id


def test_the_join_does_not_depend_on_order_or_names(image_set, table):
    order = [6, 2, 5, 0, 1, 4, 3, 7]
    shuffled = DescribedImages(image_set.select(order), table, split=None)
    straight = DescribedImages(image_set, table, split=None)
    for position, original in enumerate(order):
        if original != 3:  # damaged
            torch.testing.assert_close(shuffled[position].text, straight[original].text)


def test_a_damaged_image_is_named_and_takes_part_in_no_loss(image_set, table):
    pairs = DescribedImages(image_set, table, transform=TO_TENSOR)
    with pytest.warns(UserWarning, match=r"image-3: .* left out of the losses"):
        image, label, text, described, text_id = pairs[3]
    assert image.min() == 1.0
    assert text_id == NO_TEXT
    assert label == IGNORED_LABEL
    assert not described
    assert text.count_nonzero() == 0


@pytest.mark.parametrize("start", [None, "fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_batches_of_a_data_loader(image_set, table, start):
    usable = image_set.select([0, 1, 2, 4, 5])
    workers = 0 if start is None else 2
    pairs = DescribedImages(usable, table, transform=TO_TENSOR)
    loader = DataLoader(pairs, batch_size=5, num_workers=workers, multiprocessing_context=start)
    (batch,) = list(loader)
    assert batch.image.shape == (5, 3, 16, 16)
    assert batch.label.tolist() == [0, 1, 0, 0, IGNORED_LABEL]
    assert batch.label.dtype == torch.int64
    assert (batch.text.shape, batch.text.dtype) == ((5, WIDTH), torch.float32)
    assert batch.described.dtype == torch.bool
    assert batch.described.tolist() == [True, True, False, False, True]


def test_what_cannot_be_joined_is_refused(image_set, table, tmp_path):
    foreign = make_table(tmp_path / "foreign", {"cd" * 32: [unit(0)]})
    with pytest.raises(TableError, match="None of the 6 images of memory: has an embedding"):
        DescribedImages(image_set, foreign)
    assert len(DescribedImages(image_set, foreign, split="test")) == 2  # testing needs no texts
    with pytest.raises(TableError, match="no embedding table"):
        DescribedImages(image_set, tmp_path / "nowhere")
    with pytest.raises(DataError, match="'val' is not one of: test, train"):
        DescribedImages(image_set, table, split="val")
    with pytest.raises(ConfigError, match="'nothing:here'"):
        DescribedImages("nothing:here", table)
