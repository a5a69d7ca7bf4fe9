"""The text space of a run: later texts are put where the targets of training were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import ModelError, RunError, TableError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.encoding.class_names import ClassNames
from gpt4image.evaluating.measures import measure_more
from gpt4image.evaluating.retrieval import recalls, zero_shot_accuracy
from gpt4image.training.prepare import prepare
from gpt4image.training.run_model import load_run_model
from gpt4image.training.text_space import RECORD, TextSpace, read_text_space
from gpt4image.training.train import train
from small_training import options, same
from tables import make_table


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> Path:
    """A table whose texts share most of their direction, two for some images."""
    images = load_image_set(f"folder:{colour_folder}")
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[images.labels] + 2.0 + rng.normal(0, 0.1, (len(images), 8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {digest: [unit[i], unit[(i + 1) % len(unit)]][: 1 + i % 2] for i, digest in enumerate(images.digests)}
    make_table(tmp_path / "table", rows)
    return tmp_path / "table"


def configured(folder: Path, table: Path, run: Path, centre: str) -> TrainConfig:
    return options(folder, run, embeddings=table, centre=centre, epochs=2)


@pytest.mark.parametrize("centre", ["none", "all"])
def test_a_later_text_is_placed_as_the_targets_were(
    centre: str, colour_folder: Path, described: Path, tmp_path: Path
) -> None:
    config = configured(colour_folder, described, tmp_path / "run", centre)
    train(config)
    space = read_text_space(tmp_path / "run", config)
    assert (space.encoder, space.revision) == ("given", "0")
    data = prepare(config).data
    assert data.text is not None
    held_out = data.indices("test")
    expected = data.text.centred(data.indices("train")).take(held_out)[0].numpy()
    plain = data.text.take(held_out)[0].numpy()
    if centre == "none":
        expected = torch.nn.functional.normalize(torch.from_numpy(plain), dim=1).numpy()
    np.testing.assert_allclose(space.place(plain), expected, atol=1e-5)
    assert (space.centre is None) == (centre == "none")


def test_class_names_and_held_out_texts_are_centred_before_they_are_compared(
    colour_folder: Path, described: Path, tmp_path: Path
) -> None:
    config = configured(colour_folder, described, tmp_path / "run", "all")
    train(config)
    model, data = load_run_model(tmp_path / "run", None, "abc"), prepare(config).data
    assert data.text is not None and model.text_space is not None and model.text_space.centre is not None
    test = data.indices("test")
    said = model.read(data.pixels, test)
    names = (np.eye(8)[:3] + 2.0).astype(np.float32)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    found = measure_more(model, data, "test", said, ClassNames(vectors=names, missing="")).metrics
    centre = model.text_space.centre
    embedded, labels = model.embed(said.features), data.image_set.labels[test]
    moved = (names - centre) / np.linalg.norm(names - centre, axis=1, keepdims=True)
    assert found["zero_shot"] == zero_shot_accuracy(embedded, moved, labels)
    texts, _, ids = data.text.take(test)
    texts = texts.numpy() - centre
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    assert found.items() >= recalls(embedded, texts, ids.numpy()).items()
    uncentred = replace(model, text_space=TextSpace(encoder="given", revision="0"))
    other = measure_more(uncentred, data, "test", said, ClassNames(vectors=names, missing="")).metrics
    assert other != found, "it makes a difference"


def test_descriptions_of_test_pictures_have_no_part_in_training(colour_folder: Path, tmp_path: Path) -> None:
    images = prepare(options(colour_folder, tmp_path)).data.image_set
    vectors = np.random.default_rng(0).standard_normal((len(images), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    described = {"all": images.digests, "train": [images.digests[i] for i in images.indices("train")]}
    for name, digests in described.items():
        rows = {digest: [vectors[images.digests.index(digest)]] for digest in digests}
        make_table(tmp_path / name / "table", rows)
        train(configured(colour_folder, tmp_path / name / "table", tmp_path / name / "run", "all"))
    assert len(described["train"]) < len(images) and same(tmp_path / "all" / "run", tmp_path / "train" / "run")


def test_a_run_that_cannot_say_where_its_texts_are_is_told_from_one_that_can(
    colour_folder: Path, described: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = configured(colour_folder, described, run, "all")
    train(config)
    (run / RECORD).unlink()  # as runs of older versions
    with pytest.raises(RunError, match=r"what was subtracted .*Train it again"):
        read_text_space(run, config)
    assert "what was subtracted" in load_run_model(run, None, "abc").foreign_texts
    plain = config.model_copy(update={"centre": "none"})
    assert read_text_space(run, plain).encoder == "given"
    with pytest.raises(TableError, match="no embedding table"):
        read_text_space(run, plain.model_copy(update={"embeddings": tmp_path / "gone"}))


def test_an_encoder_that_changed_is_refused() -> None:
    space = TextSpace(encoder="bag-of-words:16", revision="0" * 64)
    with pytest.raises(ModelError, match="bring back the files of the encoder"):
        space.load_encoder("cpu")
    assert TextSpace(encoder="bag-of-words:16", revision="").load_encoder("cpu").spec == "bag-of-words:16"


def test_runs_without_texts_keep_no_text_space(colour_folder: Path, tmp_path: Path) -> None:
    train(options(colour_folder, tmp_path / "run", epochs=1))
    assert not (tmp_path / "run" / RECORD).exists() and not (tmp_path / "run" / runs.HEAD).exists()
    assert load_run_model(tmp_path / "run", None, "abc").text_space is None


def test_the_record_is_plain_json(colour_folder: Path, described: Path, tmp_path: Path) -> None:
    train(configured(colour_folder, described, tmp_path / "run", "all"))
    record = read_json(tmp_path / "run" / RECORD)
    assert record.keys() == {"encoder", "revision", "width", "centre"} and len(record["centre"]) == 8
    assert EmbeddingTable.open(described).manifest.encoder == record["encoder"]
    write_json(tmp_path / "run" / RECORD, {})
    with pytest.raises(RunError, match=rf"{RECORD} is damaged"):
        read_text_space(tmp_path / "run", configured(colour_folder, described, tmp_path / "run", "all"))
