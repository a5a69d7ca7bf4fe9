"""Masks in files: each is read once, compared with its picture, and gives the classes that it shows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gpt4image.base.errors import DataError
from gpt4image.data import MemorySource
from gpt4image.data.box_checks import Faults
from gpt4image.data.mask_files import MaskFiles, masks_of
from region_cases import mask_bytes


def turned_jpeg() -> bytes:
    """A picture of 20 x 10 pixels in the file that its EXIF orientation shows as 10 x 20."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.new("RGB", (20, 10)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_masks_fit_the_upright_picture() -> None:
    upright = mask_bytes(np.ones((20, 10), np.uint8))
    sideways = mask_bytes(np.ones((10, 20), np.uint8))
    files = MaskFiles(MemorySource([upright, sideways]), np.array([0, 1]))
    faults, pictures = Faults(), MemorySource([turned_jpeg(), b"no picture"])
    rows = np.array([0, 1, 1, -1])
    found, classes = masks_of(files, rows, pictures, np.array([0, 0, 1, 0]), list("abcd"), ("x", "y"), faults, "set")
    assert classes == ("x", "y")
    assert found.rows.tolist() == [0, -1, 1, -1]  # a picture that cannot be read says nothing about its mask
    assert found.presence(2).tolist() == [[0, 1], [-1, -1], [0, 1], [-1, -1]]
    assert [item.reason for item in faults.skipped("set")] == ["the mask has another size than its picture: 'b'"]
    assert files.digest(0) != files.digest(1)


def test_no_mask_that_can_be_used_is_an_error() -> None:
    files = MaskFiles(MemorySource([b"nothing"]), np.array([0]))
    with pytest.raises(DataError, match=r"set: no image has a mask that can be used.*not an image"):
        masks_of(files, np.array([0]), MemorySource([b""]), np.array([0]), ["a"], None, Faults(), "set")
