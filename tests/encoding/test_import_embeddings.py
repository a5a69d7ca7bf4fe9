"""embeddings import: a matrix in file order becomes a table, row by row with the right image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import gpt4image.encoding.import_embeddings
from gpt4image.artifacts.table import MANIFEST, EmbeddingTable
from gpt4image.base.errors import DataError, ModelError, TableError
from gpt4image.base.files import write_json
from gpt4image.config import ImportEmbeddingsConfig
from gpt4image.data import load_image_set
from gpt4image.encoding.class_names import embed_class_names, find_class_names
from gpt4image.encoding.import_embeddings import import_embeddings
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.training.text_targets import TextTargets
from gpt4image.training.text_tower import TextSource


def matrix_of(count: int, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def bring(colours: Path, tmp_path: Path, matrix: torch.Tensor, **options: Any) -> Any:
    torch.save(matrix, tmp_path / "emb.pth")
    given: dict[str, Any] = {"expect": 48, "data": f"folder:{colours}", "out": tmp_path / "table", **options}
    return import_embeddings(ImportEmbeddingsConfig(file=tmp_path / "emb.pth", **given))


def unit(matrix: torch.Tensor) -> NDArray[np.float32]:
    return (matrix.float() / matrix.float().norm(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "parameter", "big-endian"])
def test_each_image_gets_its_own_row_in_the_order_of_the_official_code(
    kind: str, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import ImageFolder

    monkeypatch.setattr(gpt4image.encoding.import_embeddings, "ROWS_AT_ONCE", 7)  # chunks that do not divide the rows
    matrix = matrix_of(48)
    if kind == "big-endian":
        np.save(tmp_path / "emb.npy", matrix.numpy().astype(">f4"))
        given: dict[str, Any] = {"data": f"folder:{colour_folder}", "out": tmp_path / "table", "expect": 48}
        outcome = import_embeddings(ImportEmbeddingsConfig(file=tmp_path / "emb.npy", **given))
    else:
        matrix = matrix.requires_grad_() if kind == "parameter" else matrix.to(getattr(torch, kind))
        outcome = bring(colour_folder, tmp_path, matrix, encoder="open_clip:RN50/openai", prompt="class-conditioned")
        assert outcome.summary == {
            "rows": 48,
            "images": 48,
            "width": 6,
            "encoder": "open_clip:RN50/openai",
            "class_conditioned": True,
        }
    table = EmbeddingTable.open(tmp_path / "table")
    images = load_image_set(f"folder:{colour_folder}")
    digest_of = dict(zip(images.keys, images.digests, strict=True))
    samples = ImageFolder(str(colour_folder)).samples
    digests = [digest_of[Path(path).relative_to(colour_folder).as_posix()] for path, _ in samples]
    vectors, described = table.vectors(digests)
    assert described.all()
    np.testing.assert_allclose(vectors, unit(matrix.detach()), atol=1e-3)
    assert len(np.unique(table.texts, axis=0)) == 48


def test_copies_of_an_image_share_their_rows(colour_folder: Path, tmp_path: Path) -> None:
    first = (colour_folder / "blue" / "00.png").read_bytes()
    (colour_folder / "blue" / "01.png").write_bytes(first)
    matrix = matrix_of(48)
    assert bring(colour_folder, tmp_path, matrix).summary["images"] == 47
    images = load_image_set(f"folder:{colour_folder}")
    mean = unit(torch.from_numpy(unit(matrix)[:2].mean(axis=0, keepdims=True)))
    vectors = EmbeddingTable.open(tmp_path / "table").vectors(images.digests[:2])[0]
    np.testing.assert_allclose(vectors, np.repeat(mean, 2, axis=0), atol=2e-3)


def test_rows_without_a_direction_are_set_aside(colour_folder: Path, tmp_path: Path) -> None:
    matrix = matrix_of(48)
    matrix[3] = 0.0
    matrix[20, 2] = float("nan")
    matrix[47, 0] = float("inf")
    outcome = bring(colour_folder, tmp_path, matrix)
    assert [item.name for item in outcome.skipped] == ["blue/03.png", "green/04.png", "red/15.png"]
    images = load_image_set(f"folder:{colour_folder}")
    _, described = EmbeddingTable.open(tmp_path / "table").vectors(images.digests)
    assert np.flatnonzero(~described).tolist() == [3, 20, 47]
    with pytest.raises(DataError, match="all 48 rows are zero"):
        bring(colour_folder, tmp_path, torch.zeros(48, 6), out=tmp_path / "other")


def test_counts_must_be_equal(colour_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--expect 48: .*emb.pth has 47 rows and folder:.* has 48 images"):
        bring(colour_folder, tmp_path, matrix_of(47))
    with pytest.raises(DataError, match=r"--expect 50: .*emb.pth has 48 rows"):
        bring(colour_folder, tmp_path, matrix_of(48), expect=50)
    root = tmp_path / "split"
    (root).mkdir()
    colour_folder.rename(root / "train")
    for name in ("blue", "green", "red"):
        (root / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), name).save(root / "val" / name / "0.png")
    with pytest.raises(DataError, match=r"has 51 images.*Its split 'train' has 48: give a SPEC of only this split"):
        bring(root, tmp_path, matrix_of(48))
    assert not (tmp_path / "table" / "manifest.json").exists()


def test_a_table_that_is_there_stays(colour_folder: Path, tmp_path: Path) -> None:
    bring(colour_folder, tmp_path, matrix_of(48))
    before = (tmp_path / "table" / "embeddings.npy").stat().st_mtime_ns
    bring(colour_folder, tmp_path, matrix_of(48))
    assert (tmp_path / "table" / "embeddings.npy").stat().st_mtime_ns == before
    with pytest.raises(TableError, match="another embedding table"):
        bring(colour_folder, tmp_path, matrix_of(48) + 1)


def test_equal_rows_are_one_text(colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt4image.encoding.import_embeddings, "ROWS_AT_ONCE", 7)
    matrix = matrix_of(48)
    matrix[[5, 30, 47]] = 3 * matrix[40]
    matrix[2] = 0.0
    bring(colour_folder, tmp_path, matrix)
    table = EmbeddingTable.open(tmp_path / "table")
    images = load_image_set(f"folder:{colour_folder}")
    assert (table.manifest.texts, len(table.texts), len(table.embeddings)) == (44, 44, 44)
    vectors, described = table.vectors(images.digests)
    assert np.flatnonzero(~described).tolist() == [2]
    np.testing.assert_allclose(vectors[described], unit(matrix[torch.from_numpy(described)]), atol=1e-3)
    identity = TextTargets.of(table, images.digests).take(np.array([5, 30, 40, 47, 41]))[2].tolist()
    assert len(set(identity[:4])) == 1 and identity[4] != identity[0]


def test_the_encoder_of_a_table_is_used_as_far_as_its_vectors_may_be_of_it(colour_folder: Path, tmp_path: Path) -> None:
    bring(colour_folder, tmp_path, matrix_of(48), encoder="bag-of-words:6")
    manifest = EmbeddingTable.open(tmp_path / "table").manifest
    encoder = load_text_encoder("bag-of-words:6", "cpu")
    assert manifest.revision == "", "which weights it had is not known"
    names = embed_class_names(tmp_path / "table", "cpu", ("red_ball", "blue"))
    np.testing.assert_array_equal(names.vectors, encoder.encode(["a photo of a red ball", "a photo of a blue"]))
    bring(colour_folder, tmp_path, matrix_of(48), encoder="bag-of-words:7", out=tmp_path / "wider")
    with pytest.raises(ModelError, match=r"bag-of-words:7, so it says, but has vectors of 6 numbers"):
        embed_class_names(tmp_path / "wider", "cpu", ("red",))
    assert "has vectors of 6 numbers" in find_class_names(tmp_path / "wider", "cpu", ("red",)).missing
    changed = replace(manifest, revision="0" * 64)
    write_json(tmp_path / "table" / MANIFEST, changed.to_json())
    with pytest.raises(ModelError, match=r"bag-of-words:6 \(revision 000000000000\), but that is"):
        embed_class_names(tmp_path / "table", "cpu", ("red",))
    with pytest.raises(TableError, match="was imported as numbers"):
        TextSource.of(EmbeddingTable.open(tmp_path / "table"))
