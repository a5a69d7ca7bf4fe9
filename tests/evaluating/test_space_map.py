"""The map of pictures among texts: of a real run, its numbers recomputed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.files import read_json
from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.evaluating.measures import held_out_described
from gpt4image.evaluating.run_model import load_run_model
from gpt4image.evaluating.space_map import Before, linear_map, untrained, write_map
from gpt4image.reporting.extras import SpaceMap
from gpt4image.training.train import train
from gpt4image.training.training_data import TrainingData, prepare
from tables import make_table


@pytest.fixture
def run(colour_folder: Path, tmp_path: Path) -> tuple[Path, TrainingData]:
    """A run that learned to put colours beside their texts."""
    images, rng = load_image_set(f"folder:{colour_folder}"), np.random.default_rng(0)
    vectors = np.eye(8)[images.labels] + rng.normal(0, 0.05, (len(images), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    make_table(tmp_path / "table", {digest: [vectors[i]] for i, digest in enumerate(images.digests)})
    config = TrainConfig(
        data=f"folder:{colour_folder}", embeddings=tmp_path / "table", out=tmp_path / "run", model="resnet10t",
        model_args={"channels": [8, 8, 8, 8], "stem_width": 8}, image_size=16, batch_size=8, epochs=8, lr=0.01,
        align_weight=1.0, precision="fp32", memory_format="contiguous",
    )  # fmt: skip
    train(config)
    return tmp_path / "run", prepare(config).data


def test_a_map_shows_what_pictures_find_before_and_after(run: tuple[Path, TrainingData], tmp_path: Path) -> None:
    folder, data = run
    after = load_run_model(folder, 3)
    before = Before(name="before training", model=untrained(after.config, 3))
    write_map(tmp_path / "map.json", data, "test", after=after, name="aligned", before=before)
    found = SpaceMap.model_validate(read_json(tmp_path / "map.json"))
    images = data.indices("test")
    assert [point.key for point in found.points] == [data.image_set.keys[i] for i in images]
    assert [point.label for point in found.points] == [data.classes[data.image_set.labels[i]] for i in images]
    assert found.split == "test" and found.fitted_on == len(data.indices("train"))
    places = np.array([[point.text, point.before, point.after] for point in found.points])
    assert places.min() >= 0 and places.max() <= 1
    assert places[:, 0].min(axis=0) == pytest.approx([0, 0]) and places[:, 0].max(axis=0) == pytest.approx([1, 1])
    assert data.text is not None
    texts = data.text.take(images)[0].numpy()
    embedded = after.embed(after.read(data.pixels, images).features)
    labels = data.image_set.labels[images]
    nearest = np.argsort(-embedded @ texts.T, axis=1)
    assert found.after.own_class == pytest.approx((labels[nearest[:, 0]] == labels).mean())
    assert found.before is not None and found.before.own_class is not None
    assert places[:, 2] == pytest.approx(places[nearest[:, :3], 0].mean(axis=1), abs=2e-4)


def test_a_map_is_made_of_held_out_pictures_with_texts_that_have_a_place_among_them(
    run: tuple[Path, TrainingData], tmp_path: Path
) -> None:
    folder, data = run
    model, path = load_run_model(folder, 3), tmp_path / "map.json"
    for after, these in (
        (replace(model, foreign_texts="the encoder learned"), data),
        (model, replace(data, text=None)),
    ):
        assert write_map(path, these, "test", after=after, name="aligned", before=None) is None
    assert not path.exists()
    assert data.text is not None
    assert held_out_described(data, "test").tolist() == data.indices("test").tolist()
    told = data.image_set.splits == "val"
    assert held_out_described(replace(data, text=data.text.only(told)), "test").tolist() == data.indices("val").tolist()
    assert not len(held_out_described(replace(data, text=data.text.only(told & ~told)), "test"))


def test_the_linear_map_finds_a_linear_relation_between_features_and_texts() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 12)).astype(np.float32)
    goal = (features @ rng.normal(size=(12, 6)) * 0.05 + rng.normal(size=6)).astype(np.float32)
    mapped = linear_map(features[:200], goal[:200], features[200:])
    wanted = goal[200:] - goal[:200].mean(axis=0)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", mapped, wanted).min() > 0.99
    noise = linear_map(rng.normal(size=(200, 12)).astype(np.float32), goal[:200], features[200:])
    assert abs(np.einsum("ij,ij->i", noise, wanted).mean()) < 0.5
