"""Features of pictures beside answers: whose they may be, what is kept, and what is read once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.data import load_dataset
from gpt4image.labelling.pictures import read_pictures
from gpt4image.models.backbones import pretrained_weights
from gpt4image.training.run_model import RunModel

MODEL = "tf_efficientnet_lite0"


def test_only_new_pictures_are_read_and_a_broken_one_is_named(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pretrained_weights(MODEL) != "here":
        pytest.skip(f"the weights of {MODEL} are not installed")
    broken = colour_folder / "red" / "broken.png"
    broken.write_bytes((colour_folder / "red" / "00.png").read_bytes()[:60])
    folder, spec = tmp_path / "t.features", f"folder:{colour_folder}"
    images = load_dataset(spec)
    pictures, skipped = read_pictures(images, np.ones(len(images), bool), "auto", folder)
    assert pictures is not None and pictures.seen.sum() == 48 and [item.name for item in skipped] == ["red/broken.png"]
    assert np.linalg.norm(pictures.vectors[pictures.seen].astype(float), axis=1) == pytest.approx(1, abs=1e-2)

    read: list[int] = []
    whole = RunModel.read

    def counted(self: RunModel, pixels, indices, **options):
        read.append(len(indices))
        return whole(self, pixels, indices, **options)

    monkeypatch.setattr(RunModel, "read", counted)
    broken.unlink()
    (colour_folder / "red" / "00.png").rename(colour_folder / "red" / "moved.png")
    wanted = np.arange(48) < 40
    again, _ = read_pictures(load_dataset(spec), wanted, MODEL, folder)
    assert again is not None and sum(read) == 0, "features belong to bytes, not to names"
    assert np.array_equal(again.seen, wanted)


def test_features_must_not_have_learned_the_labels(small_run: Path, tmp_path: Path) -> None:
    images = load_dataset(str(runs.read_config(small_run)["data"]))
    with pytest.raises(ConfigError, match=r"has learned the labels of these images.* --task pretrain"):
        read_pictures(images, np.ones(len(images), bool), str(small_run), tmp_path / "f")
    other = replace(images.select(np.arange(4)), spec="folder:others")
    pictures, _ = read_pictures(other, np.ones(4, bool), str(small_run), tmp_path / "f")
    assert pictures is not None and pictures.seen.all()


@pytest.mark.parametrize(
    ("features", "message"), [("nonsense", "nonsense"), ("resnet10t.c3_in1k", "its weights are not on this machine")]
)
def test_a_model_that_is_not_here_is_refused(features: str, message: str, colour_folder: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{colour_folder}")
    with pytest.raises((ConfigError, ModelError), match=message):
        read_pictures(images, np.ones(48, bool), features, tmp_path / "f")
    assert read_pictures(images, np.ones(48, bool), "none", tmp_path / "f") == (None, ())
