"""What a run reads: targets joined by content, whatever the order, and refused where they belong to other images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.errors import TableError
from gpt4image.training_data import TextTargets, prepare
from tables import make_table


def table_for(folder: Path, out: Path, *, every: int = 1, width: int = 4) -> Path:
    images = load_image_set(f"folder:{folder}")
    rng = np.random.default_rng(0)
    make_table(out, {digest: rng.normal(size=(1, width)) for digest in images.digests[::every]})
    return out


def options(folder: Path, **changes: object) -> TrainConfig:
    return TrainConfig(data=f"folder:{folder}", out=folder / "run", image_size=16, batch_size=4, **changes)  # type: ignore[arg-type]


@given(counts=hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, 3)), seed=st.integers(0, 5))
def test_targets_are_the_mean_of_an_images_own_texts(counts: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(10, 3)).astype(np.float16)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = rng.integers(0, 10, offsets[-1])
    targets = TextTargets(matrix=matrix, offsets=offsets, rows=rows)
    batch = rng.integers(0, len(counts), 12)
    vectors, described, identity = targets.take(batch)
    for position, image in enumerate(batch):
        own = rows[offsets[image] : offsets[image + 1]]
        assert bool(described[position]) == (len(own) > 0)
        expected = matrix[own].astype(np.float32).mean(0) if len(own) else np.zeros(3)
        assert np.allclose(vectors[position], expected, atol=1e-6)
        assert int(identity[position]) == (own[0] if len(own) else -1)


def test_one_each_gives_an_image_its_row() -> None:
    targets = TextTargets.one_each(np.eye(3, dtype=np.float32), np.array([2, -1, 0]))
    assert targets.take(np.array([0, 1, 2]))[0].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert targets.described.tolist() == [True, False, True]


def test_renaming_files_changes_no_pairing(colour_folder: Path, tmp_path: Path) -> None:
    table = table_for(colour_folder, tmp_path / "table")
    before = prepare(options(colour_folder, embeddings=table))
    pairs = pairing(before)
    for number, path in enumerate(sorted(colour_folder.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed-{number}.png"))
    after = prepare(options(colour_folder, embeddings=table))
    assert pairing(after) == pairs
    assert set(before.data.image_set.keys).isdisjoint(after.data.image_set.keys)


def pairing(ready: object) -> dict[str, tuple[float, ...]]:
    data = ready.data  # type: ignore[attr-defined]
    vectors = data.text.take(np.arange(len(data.labels)))[0]
    splits = data.image_set.splits.tolist()
    rows = zip(data.image_set.digests, splits, vectors.tolist(), strict=True)
    return {digest: (split, *vector) for digest, split, vector in rows}


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
    assert not data.class_targets(others).any()
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


def test_another_table_gives_another_fingerprint(colour_folder: Path, tmp_path: Path) -> None:
    first = table_for(colour_folder, tmp_path / "a")
    second = table_for(colour_folder, tmp_path / "b", every=2)
    prints = {prepare(options(colour_folder, embeddings=path)).fingerprint for path in (first, second, None, first)}
    assert len(prints) == 3
