from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts import runs
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import LabelConfig
from gpt4image.data import ImageSet, load_with_splits
from gpt4image.labelling.cotraining import ask_run, combine


def test_views_are_multiplied_and_count_alone_where_the_other_is_silent():
    text = np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 0.0], [0.7, 0.3], [0.0, 0.0]])
    vision = np.array([[0.1, 0.9], [0.1, 0.9], [0.2, 0.8], [0.0, 0.0], [0.0, 0.0]])
    both = combine(text, vision, np.array([False, True, False, True, False]))
    assert both[0] == pytest.approx(np.array([0.06, 0.36]) / 0.42, abs=1e-6)
    halved = np.array([0.6 * 0.1**0.5, 0.4 * 0.9**0.5])
    assert both[1] == pytest.approx(halved / halved.sum(), abs=1e-6)
    assert both[2] == pytest.approx([0.2, 0.8])
    assert both[3] == pytest.approx([0.7, 0.3])
    assert not both[4].any()


def test_agreement_makes_surer_and_disagreement_less_sure():
    text = np.array([[0.8, 0.2], [0.8, 0.2]])
    both = combine(text, np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([True, True]))
    assert both[0].max() > 0.8 > both[1].max() > 0.5


def test_a_class_that_one_view_does_not_know_is_not_ruled_out_for_good():
    both = combine(np.array([[0.5, 0.5, 0.0]]), np.array([[0.0, 0.0, 1.0]]), np.array([False]))
    assert np.isfinite(both).all()
    assert both.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_run_says_nothing_of_pictures_that_cannot_be_decoded(small_run: Path, tmp_path: Path, in_memory: bool):
    shutil.copytree(small_run, tmp_path / "run")
    shutil.copytree(small_run.parent / "pictures", tmp_path / "pictures")
    options = read_json(tmp_path / "run" / runs.CONFIG)
    here = {"data": f"folder:{tmp_path / 'pictures'}", "memory_limit_gb": float(in_memory), "workers": 1}
    write_json(tmp_path / "run" / runs.CONFIG, {**options, **here})
    broken = sorted((tmp_path / "pictures").rglob("*.png"))[3]
    broken.write_bytes(broken.read_bytes()[:200])
    images = load_with_splits(f"folder:{tmp_path / 'pictures'}", val_fraction=0.1, test_fraction=0.2)
    asked = LabelConfig(data=images.spec, embeddings=(tmp_path / "none",), out=tmp_path / "out.parquet")
    said = ask_run(tmp_path / "run", asked, images)
    assert [Path(item.name).name for item in said.set_aside] == [broken.name]
    assert [Path(images.keys[row]).name for row in np.flatnonzero(~said.probabilities.any(axis=1))] == [broken.name]


def asked_of(folder: Path, **options: Any) -> tuple[LabelConfig, ImageSet]:
    config = LabelConfig(data=f"folder:{folder}", embeddings=(folder / "none",), out=folder / "out.parquet", **options)
    fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    return config, load_with_splits(config.data, **fractions)


def test_what_a_run_learned_of_another_set_is_known(small_run: Path, tmp_path: Path) -> None:
    learned = load_with_splits(f"folder:{small_run.parent / 'pictures'}", val_fraction=0.1, test_fraction=0.2)
    pictures = tmp_path / "pictures"
    shutil.copytree(small_run.parent / "pictures", pictures)
    new = sorted(pictures.glob("food/*.png"))[0]
    with Image.open(new) as image:
        image.rotate(90).save(new)
    said = ask_run(small_run, *asked_of(pictures, val_fraction=0.0, test_fraction=0.0))
    config, images = asked_of(pictures, val_fraction=0.0, test_fraction=0.0)
    trained = {learned.digests[i] for i in learned.indices("train")}
    assert said.learned.tolist() == [digest in trained for digest in images.digests]
    assert 0 < said.learned.sum() < len(images) - 1
    with pytest.raises(RunError, match=r"has learned \d+ of the \d+ labels .* give a run that was trained on folder:"):
        ask_run(small_run, *asked_of(pictures, test_fraction=0.5))
    options = read_json(small_run / runs.CONFIG)
    shutil.copytree(small_run, tmp_path / "run")
    write_json(tmp_path / "run" / runs.CONFIG, {**options, "data": f"folder:{tmp_path / 'gone'}"})
    with pytest.raises(RunError, match="gone, which cannot be read any more"):
        ask_run(tmp_path / "run", *asked_of(pictures))
    assert ask_run(tmp_path / "run", config, images).learned.all(), "nothing is held out: as though it had learned all"


@pytest.mark.parametrize(
    ("arm", "labels_alone"),
    [("train", True), ("baseline", True), ("aligned", True), ("fixmatch", True)]
    + [(arm, False) for arm in ("text-labels", "text-labels-cotrained", "self-training", "zero-shot")],
)
def test_what_a_run_of_a_comparison_learned_follows_from_its_arm(
    arm: str, labels_alone: bool, small_run: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(small_run.parent / "pictures", pictures)
    (pictures / "unlabelled").mkdir()
    for path in sorted(pictures.glob("food/*.png"))[::2]:
        path.rename(pictures / "unlabelled" / path.name)
    shutil.copytree(small_run, tmp_path / "run")
    config = read_json(small_run / runs.CONFIG)
    write_json(tmp_path / "run" / runs.CONFIG, {**config, "data": f"folder:{pictures}", "arm": arm})
    asked, images = asked_of(pictures)
    train, labelled = images.splits == "train", images.labels >= 0
    assert (train & ~labelled).any()
    said = ask_run(tmp_path / "run", asked, images)
    assert said.learned.tolist() == (train & labelled if labels_alone else train).tolist()


def test_a_run_may_be_asked_about_fewer_images_than_its_batch(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    options = read_json(small_run / runs.CONFIG)
    write_json(tmp_path / "run" / runs.CONFIG, {**options, "batch_size": 1000, "select": "best"})
    pictures = small_run.parent / "pictures"
    said = ask_run(tmp_path / "run", *asked_of(pictures, val_fraction=0.0, test_fraction=0.0))
    assert said.probabilities.any(axis=1).all()
