"""Texts by key, for data sets of one's own: encoded once, joined to any data set."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from gpt4image.base.errors import DataError, TableError
from gpt4image.data.digests import file_digests
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.own_loop.pairs import WithTexts
from gpt4image.own_loop.texts import NO_TEXT, Texts
from tables import make_table

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


def test_equal_texts_share_an_identity_and_an_unknown_key_has_none(texts):
    assert texts["dog/1.jpg"].text_id == texts["dog/2.jpg"].text_id
    assert len({texts[key].text_id for key in CAPTIONS}) == 3
    nothing = texts["cat/3.jpg"]
    assert (nothing.described, nothing.text_id, nothing.text.count_nonzero()) == (False, NO_TEXT, 0)
    assert nothing.text.shape == (texts.width,)


def test_encoding_is_done_once_and_new_texts_cost_only_themselves(tmp_path, monkeypatch):
    encoded: list[str] = []
    encoder = load_text_encoder(ENCODER, "cpu")
    real = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda self, batch: encoded.extend(batch) or real(self, batch))

    def again(pairs: dict[str, str]) -> Texts:
        encoded.clear()
        return Texts.encoded(pairs.items(), tmp_path / "table", encoder=ENCODER)

    again(CAPTIONS)
    assert sorted(encoded) == sorted(set(CAPTIONS.values()))
    before = again(CAPTIONS)["cat/1.jpg"].text
    assert encoded == []
    more = again({**CAPTIONS, "cat/2.jpg": "A black cat on a roof.", "fox/1.jpg": "A fox in snow."})
    assert sorted(encoded) == ["A black cat on a roof.", "A fox in snow."]
    assert more["fox/1.jpg"].described
    torch.testing.assert_close(more["cat/1.jpg"].text, before, rtol=0, atol=0)
    assert not again({"fox/1.jpg": "A fox in snow."})["cat/1.jpg"].described


def test_rows_that_cannot_be_used_are_named_and_cost_no_other(tmp_path):
    rows = ["a.jpg,A red ball.", ",No owner.", "b.jpg,", "c.jpg,A cat, sitting."]
    file = write_csv(tmp_path / "captions.csv", rows)
    with pytest.warns(UserWarning, match=r"3 rows are left out: .*row 2: no file.*row 3: .*empty.*row 4: more cells"):
        texts = Texts.from_csv(file, key="file", text="caption", encoder=ENCODER, table=tmp_path / "table")
    assert texts["a.jpg"].described
    assert texts.table.manifest.images == 1


def test_what_is_no_text_is_left_out(tmp_path):
    pairs = [("a.jpg", "A red ball."), ("b.jpg", float("nan")), ("c.jpg", "  "), ("d.jpg", None)]
    with pytest.warns(UserWarning, match=r"3 keys have no text and are left out: 'b.jpg', 'c.jpg', 'd.jpg'"):
        texts = Texts.encoded(pairs, tmp_path / "table", encoder=ENCODER)
    assert texts.table.manifest.images == 1 and not texts["c.jpg"].described
    with pytest.raises(DataError, match="no texts to encode"):
        Texts.encoded([("a.jpg", "")], tmp_path / "other", encoder=ENCODER)


def test_mistakes_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no such file; give a CSV file with the columns 'key' and 'description'"):
        Texts.from_csv(tmp_path / "captions.csv")
    file = write_csv(tmp_path / "captions.csv", ["a.jpg,A red ball."])
    with pytest.raises(DataError, match=r"no column 'text', only file, caption"):
        Texts.from_csv(file, key="file", text="text")
    with pytest.raises(DataError, match=r"no column 'name', only file, caption"):
        Texts.from_csv(file, key="name", text="caption")
    empty = write_csv(tmp_path / "empty.csv", [",A red ball."])
    with pytest.raises(DataError, match=r"no row has both a 'file' and a 'caption'"):
        Texts.from_csv(empty, key="file", text="caption")
    (tmp_path / "latin.csv").write_bytes("file,caption\na.jpg,Cliché\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        Texts.from_csv(tmp_path / "latin.csv", key="file", text="caption")
    with pytest.raises(DataError, match="no texts to encode"):
        Texts.encoded([], tmp_path / "table")
    with pytest.raises(DataError, match="123 is of type int; give str"):
        Texts.encoded({123: "A red ball."}.items(), tmp_path / "table")
    with pytest.raises(TableError, match="no embedding table"):
        Texts(tmp_path / "nowhere")


def test_a_table_of_images_is_found_by_the_digests_of_files(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"the bytes of a picture")
    (digest,) = file_digests([str(file)])
    texts = Texts(make_table(tmp_path / "table", {digest: [np.eye(4)[0]]}))
    assert texts[digest].described
    assert texts[digest.upper()].text.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert not texts[str(file)].described


class Numbers(Dataset):
    """A user's data set of the most plain kind."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 8, 8), float(index)), index % 2


def test_keys_that_do_not_fit_are_refused(texts):
    with pytest.raises(DataError, match=r"3 keys for 4 images"):
        WithTexts(Numbers(), texts, ["a", "b", "c"])
    with pytest.raises(TableError, match=r"None of the 4 images has a text .*keys such as '1.jpg', '2.jpg'"):
        WithTexts(Numbers(), texts, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])


def test_worker_processes_open_the_memory_map_again(texts):
    again = pickle.loads(pickle.dumps(texts))  # noqa: S301  (our own bytes)
    assert len(pickle.dumps(texts)) < 1000
    assert isinstance(again.table.embeddings, np.memmap)
    torch.testing.assert_close(again["cat/1.jpg"].text, texts["cat/1.jpg"].text, rtol=0, atol=0)
