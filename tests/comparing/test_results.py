"""The record of a comparison: its notes, and scores by image of runs of any version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gpt4image.base.errors import DamagedError
from gpt4image.base.files import write_parquet
from gpt4image.comparing.planning import Member
from gpt4image.comparing.results import method, pair, recorded, scores_of, silent_texts, small_classes
from gpt4image.comparing.statistics import bootstrapped, crossed
from gpt4image.config import CompareConfig
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.multilabel import MultiLabel


@pytest.mark.parametrize("resampled", [False, True])
def test_other_images_never_make_a_difference_surer_than_the_seeds_alone(resampled: bool) -> None:
    rng, surer = np.random.default_rng(0), 0
    for _ in range(50):
        scores = {arm: rng.random((3, 40)) < rng.random((3, 1)) * 0.2 + 0.4 for arm in "ab"}
        values = {arm: hits.mean(axis=1).tolist() for arm, hits in scores.items()}
        times = rng.multinomial(40, np.full(40, 1 / 40), size=200).T / 40
        by_resamples = {arm: hits @ times for arm, hits in scores.items()} if resampled else {}
        found = pair("a", "b", values, scores, by_resamples)
        (low, high), (widest, highest) = found["ci95"], found["other_images"]["ci95"]
        assert widest <= low and high <= highest and found["other_images"]["p"] >= found["p"]
        alone = bootstrapped(**by_resamples) if resampled else crossed(**scores)
        surer += (alone.p or 0.0) < found["p"]
    assert surer, "the second test alone is surer at times, or this test says nothing"


@pytest.mark.parametrize(
    ("select", "kept"),
    [
        (None, "steps. Kept are the weights of the last step. The"),
        ("last", "steps. Kept are the weights of the last step. The"),
        ("best", "steps. Kept are the weights of the last step ('x': the best weights on validation). The"),
    ],
)
def test_variants_that_keep_other_weights_are_named(colour_folder: Path, select: str | None, kept: str) -> None:
    config = CompareConfig(data=f"folder:{colour_folder}", out=colour_folder / "cmp")
    options = {"head": "mlp"} if select is None else {"select": select}
    members = {"baseline": Member(arm="baseline", options={}), "x": Member(arm="aligned", options=options)}
    assert kept in method(config, members, Classification())[0]
    plain = " ".join(method(config, members, Classification()))
    assert "They need a score per image: whether the class is right." in plain
    assert "found by 1,000 bootstrap samples" in " ".join(method(config, members, MultiLabel()))


def test_classes_too_small_for_the_labels_asked_for_are_named() -> None:
    labels, classes = np.array([0] * 5 + [1] * 2 + [-1] * 9), ("bird", "cat", "not in train")
    assert small_classes(Classification(), labels, classes, 3) == [
        "Classes with fewer than 3 labels in train keep all that they have: 'cat'."
    ]
    assert all(small_classes(Classification(), labels, classes, k) == [] for k in (2, None))


def test_options_of_a_variant_are_recorded_as_text() -> None:
    options = {"embeddings": Path("a.emb"), "model_args": {"depth": 2}, "lr": 0.1}
    assert recorded(options) == {"embeddings": "a.emb", "model_args": {"depth": 2}, "lr": 0.1}


def test_scores_by_image_are_read_or_made_of_what_older_versions_kept(tmp_path: Path) -> None:
    path = tmp_path / "predictions-test.parquet"
    old = {"label": [0, 1, -1, 2], "prediction": [0, 2, -1, 2]}
    write_parquet(path, pa.table(old))
    assert scores_of(tmp_path, {}).tolist() == [1.0, 0.0, 1.0]
    write_parquet(path, pa.table({**old, "score": [0.5, np.nan, np.nan, 1.0]}))
    assert scores_of(tmp_path, {}).tolist() == [0.5, 1.0]
    path.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DamagedError, match="predictions-test"):
        scores_of(tmp_path, {})


def test_arms_that_left_their_texts_out_are_named_with_the_seeds() -> None:
    members = {name: Member(arm=name, options={}) for name in ("baseline", "text-labels", "fused")}

    def record(with_target: int | None, labelled: int = 10) -> dict[str, dict[str, int]]:
        known = {} if with_target is None else {"with_target": with_target}
        return {"data": {"train": 40, "labelled": labelled, **known}}

    facts = {
        "baseline": [record(10)] * 3,
        "text-labels": [record(10), record(40), record(10)],
        "fused": [record(40)] * 3,
    }
    (note,) = silent_texts(members, facts, range(5, 8))
    assert note.startswith("text-labels: no text or answer gave") and "with seed 5, 7;" in note
    (note,) = silent_texts(members, facts | {"text-labels": [record(10)] * 3}, range(3))
    assert "with any seed;" in note
    for told in (record(None), record(40, labelled=40)):
        assert silent_texts(members, facts | {"text-labels": [told] * 3}, range(3)) == []
