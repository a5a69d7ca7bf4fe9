"""Images joined to embeddings, as a user's own loop reads them."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.data import Dataset
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.own_loop.pairs import IGNORED_LABEL, NO_TEXT, DescribedImages, Texts, WithTexts
from tables import make_table
from worlds import encoded, in_memory

WIDTH = 8
TO_TENSOR = v2.Compose([v2.Resize((16, 16)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def picture(shade: int) -> bytes:
    return encoded(Image.new("RGB", (16, 16), (shade, 0, 255 - shade)))


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(WIDTH)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def image_set() -> Dataset:
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


def test_items_hold_image_label_and_text_and_coverage_counts_missing_and_unused(image_set, table):
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
    coverage = DescribedImages(image_set, table).coverage
    assert coverage == (6, 4, ("image-2", "image-4")) and str(coverage) == "4 of 6 images described"
    assert DescribedImages(image_set, table, split="test").coverage == (2, 1, ("image-7",))
    assert DescribedImages(image_set, table, split=None).coverage.images == 8


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


def test_batches_of_a_data_loader(image_set, table):
    pairs = DescribedImages(image_set.select([0, 1, 2, 4, 5]), table, transform=TO_TENSOR)
    (batch,) = DataLoader(pairs, batch_size=5)
    assert batch.image.shape == (5, 3, 16, 16)
    assert batch.label.tolist() == [0, 1, 0, 0, IGNORED_LABEL]
    assert batch.label.dtype == torch.int64
    assert (batch.text.shape, batch.text.dtype) == ((5, WIDTH), torch.float32)
    assert batch.described.dtype == torch.bool
    assert batch.described.tolist() == [True, True, False, False, True]


def test_what_cannot_be_joined_is_refused(image_set, table, tmp_path):
    foreign = make_table(tmp_path / "foreign", {"cd" * 32: [unit(0)]})
    with pytest.raises(TableError, match="None of the 6 images has a text"):
        DescribedImages(image_set, foreign)
    assert len(DescribedImages(image_set, foreign, split="test")) == 2  # testing needs no texts
    with pytest.raises(TableError, match="no finished embedding table"):
        DescribedImages(image_set, tmp_path / "nowhere")
    with pytest.raises(DataError, match="'val' is not one of: test, train"):
        DescribedImages(image_set, table, split="val")
    with pytest.raises(ConfigError, match="'nothing:here'"):
        DescribedImages("nothing:here", table)


ENCODER = "bag-of-words:16"
CAPTIONS = {
    "cat/1.jpg": "A grey cat sleeps on a red sofa, its paws under its chin.",
    "cat/2.jpg": "A black cat looks out of a window.",
    "dog/1.jpg": "A brown dog runs over wet sand.",
    "dog/2.jpg": "A brown dog runs over wet sand.",
}


def write_csv(path: Path, rows: Sequence[str], header: str = "file,caption") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def captions(tmp_path_factory) -> Path:
    rows = [f'{key},"{text}"' for key, text in CAPTIONS.items()]
    return write_csv(tmp_path_factory.mktemp("captions") / "captions.csv", rows)


@pytest.fixture(scope="module")
def texts(captions) -> Texts:
    return Texts.from_csv(captions, key="file", text="caption", encoder=ENCODER)


def test_descriptions_in_a_csv_become_vectors_of_the_encoder(texts, captions):
    assert texts.table.path == captions.with_suffix(".emb")
    expected = load_text_encoder(ENCODER, "cpu").encode(list(CAPTIONS.values()))
    for key, vector in zip(CAPTIONS, expected, strict=True):
        assert texts[key].described is True
        np.testing.assert_allclose(texts[key].text.numpy(), vector, atol=2e-3)


def test_rows_that_cannot_be_used_are_named_and_cost_no_other(tmp_path):
    rows = ["a.jpg,A red ball.", ",No owner.", "b.jpg,", "c.jpg,A cat, sitting."]
    file = write_csv(tmp_path / "captions.csv", rows)
    with pytest.warns(UserWarning, match="3 keys have no text and are left out: 'row 2', 'b.jpg', 'c.jpg'"):
        texts = Texts.from_csv(file, key="file", text="caption", encoder=ENCODER, table=tmp_path / "table")
    assert texts["a.jpg"].described
    assert texts.table.manifest.images == 1


def test_mistakes_say_what_to_do(tmp_path):
    file = write_csv(tmp_path / "captions.csv", ["a.jpg,A red ball."])
    empty = write_csv(tmp_path / "empty.csv", [",A red ball."])
    for act, words in (
        (lambda: Texts.from_csv(tmp_path / "none.csv"), r"is no CSV file with the columns 'key' and 'description'"),
        (lambda: Texts.from_csv(file, key="file", text="text"), "no column 'text', only file, caption"),
        (lambda: Texts.from_csv(empty, key="file", text="caption"), "no texts to encode"),
        (lambda: Texts.encoded({123: "A red ball."}.items(), tmp_path / "table"), "123 is of type int; give str"),
    ):
        with pytest.raises(DataError, match=words):
            act()
    with pytest.raises(TableError, match="no finished embedding table"):
        Texts(tmp_path / "nowhere")


class Numbers(torch.utils.data.Dataset):
    """A user's data set of the most plain kind."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 8, 8), float(index)), index % 2


def test_keys_that_do_not_fit_are_refused(texts):
    with pytest.raises(DataError, match=r"3 keys for 4 images"):
        WithTexts(Numbers(), texts, ["a", "b", "c"])
    with pytest.raises(TableError, match=r"None of the 4 images has a text .*keys are '1.jpg', '2.jpg'"):
        WithTexts(Numbers(), texts, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])


def test_worker_processes_open_the_memory_map_again(texts):
    again = pickle.loads(pickle.dumps(texts))  # noqa: S301  (our own bytes)
    assert len(pickle.dumps(texts)) < 1000
    assert isinstance(again.table.embeddings, np.memmap)
    torch.testing.assert_close(again["cat/1.jpg"].text, texts["cat/1.jpg"].text, rtol=0, atol=0)
