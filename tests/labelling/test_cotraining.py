from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt4image import runs
from gpt4image.config import LabelConfig
from gpt4image.data import load_with_splits
from gpt4image.files import read_json, write_json
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
    write_json(tmp_path / "run" / runs.CONFIG, {**options, "memory_limit_gb": float(in_memory), "workers": 1})
    broken = sorted((tmp_path / "pictures").rglob("*.png"))[3]
    broken.write_bytes(broken.read_bytes()[:200])
    images = load_with_splits(f"folder:{tmp_path / 'pictures'}", val_fraction=0.1, test_fraction=0.2)
    asked = LabelConfig(data=images.spec, embeddings=(tmp_path / "none",), out=tmp_path / "out.parquet")
    said, set_aside = ask_run(tmp_path / "run", asked, images)
    assert [Path(item.name).name for item in set_aside] == [broken.name]
    assert [Path(images.keys[row]).name for row in np.flatnonzero(~said.any(axis=1))] == [broken.name]
