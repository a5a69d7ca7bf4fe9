"""What a run reads: targets joined by content, whatever the order, and refused where they belong to other images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.errors import DataError, TableError
from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.training.prepare import prepare, with_table
from tables import make_table


def table_for(folder: Path, out: Path, *, every: int = 1, width: int = 4) -> Path:
    images = load_image_set(f"folder:{folder}")
    rng = np.random.default_rng(0)
    make_table(out, {digest: rng.normal(size=(1, width)) for digest in images.digests[::every]})
    return out


def options(folder: Path, **changes: object) -> TrainConfig:
    return TrainConfig(data=f"folder:{folder}", out=folder / "run", image_size=16, batch_size=4, **changes)  # type: ignore[arg-type]


def test_images_without_a_text_take_part_in_the_task_alone_and_the_pools_do_not_overlap(
    colour_folder: Path, tmp_path: Path
) -> None:
    (colour_folder / "unlabelled").mkdir()
    for path in sorted((colour_folder / "red").iterdir())[:6]:
        path.rename(colour_folder / "unlabelled" / path.name)
    table = table_for(colour_folder, tmp_path / "table", every=2)
    data = prepare(options(colour_folder, embeddings=table)).data
    targeted, others = data.pools()
    assert (data.labels[targeted] >= 0).all() and (data.labels[others] == -1).all()
    assert not data.targets(others).any()
    assert 0 < len(others) <= 6


def test_only_described_drops_the_others_from_train_and_takes_validation_from_them(
    colour_folder: Path, tmp_path: Path
) -> None:
    table = table_for(colour_folder, tmp_path / "table", every=3)
    data = prepare(options(colour_folder, embeddings=table, only_described=True)).data
    train, val = data.indices("train"), data.indices("val")
    assert data.text is not None
    assert data.text.described[train].all() and len(val) > 0
    assert not data.text.described[val].any(), "there were enough undescribed images"


def test_a_table_of_other_images_is_refused(colour_folder: Path, tmp_path: Path) -> None:
    make_table(tmp_path / "table", {"0" * 64: np.ones((1, 4))})
    with pytest.raises(TableError, match="made from descriptions of other images"):
        prepare(options(colour_folder, embeddings=tmp_path / "table"))
    with pytest.raises(TableError, match="None of the 36 training images of folder:"):
        with_table(prepare(options(colour_folder)), tmp_path / "table")


def test_another_table_gives_another_fingerprint(colour_folder: Path, tmp_path: Path) -> None:
    first = table_for(colour_folder, tmp_path / "a")
    second = table_for(colour_folder, tmp_path / "b", every=2)
    prints = {prepare(options(colour_folder, embeddings=path)).fingerprint for path in (first, second, None, first)}
    assert len(prints) == 3


def test_a_finished_run_may_be_asked_about_any_images(colour_folder: Path, tmp_path: Path) -> None:
    rows = [f"{path.parent.name}/{path.name},{path.parent.name},test" for path in sorted(colour_folder.rglob("*.png"))]
    (colour_folder / "all.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    asked = options(colour_folder).model_copy(
        update={"data": f"manifest:{colour_folder / 'all.csv'}", "select": "best"}
    )
    with pytest.raises(DataError, match=r"no image is in train \(train 0, val 0, test 48\), so there is nothing to"):
        prepare(asked)
    assert len(prepare(asked, ("test",), to_train=False).data.indices("test")) == 48
    small = asked.model_copy(update={"data": f"folder:{colour_folder}", "batch_size": 40, "val_fraction": 0.0})
    with pytest.raises(DataError, match="--batch-size 40 is larger"):
        prepare(small)
    assert len(prepare(small, to_train=False).data.labels) == 48
