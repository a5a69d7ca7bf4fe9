"""How runs are set up: what an arm reads tells its runs from others, and what it does not read does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4image.base.errors import ConfigError, ModelError, TableError
from gpt4image.base.files import read_json, write_json
from gpt4image.comparing.planning import Setup, set_up
from gpt4image.config import TrainConfig, TrainOptions
from gpt4image.config.arms import ARMS
from gpt4image.config.learning import OF_ALIGNMENT, OF_TEXT_LABELS
from gpt4image.data import load_image_set
from gpt4image.encoding import class_names
from gpt4image.training.prepare import Prepared, prepare
from tables import make_table

READ_BY_NONE = ("baseline", "self-training", "fixmatch", "oracle")


def table_of(folder: Path, path: Path, encoder: str = "given") -> Path:
    digests = load_image_set(f"folder:{folder}").digests
    make_table(path, {digest: np.random.default_rng(i).normal(size=(1, 8)) for i, digest in enumerate(digests)})
    if encoder != "given":
        manifest = {**read_json(path / "manifest.json"), "encoder": encoder, "revision": ""}
        write_json(path / "manifest.json", manifest)
    return path


@pytest.fixture
def ready(colour_folder: Path, tmp_path: Path) -> Prepared:
    table = table_of(colour_folder, tmp_path / "table", "bag-of-words:8")
    return prepare(TrainConfig(data=f"folder:{colour_folder}", out=tmp_path, image_size=16, embeddings=table))


def given(ready: Prepared, options: Mapping[str, Any], arm: str) -> Setup:
    return set_up(ARMS[arm], ready, options)


OTHER: dict[str, Any] = {
    "align_loss": "siglip", "align_weight": 3.0, "temperature": 0.1, "tune_text": "lora", "paper_compat": True,
    "head": "mlp", "label_trust": 0.3,
}  # fmt: skip


def test_every_option_of_texts_is_one_of_alignment_or_of_text_labels() -> None:
    assert OTHER.keys() == OF_ALIGNMENT | OF_TEXT_LABELS
    assert {name for name in OTHER if name.startswith("label_")} == OF_TEXT_LABELS


@pytest.mark.parametrize("name", sorted(OTHER))
def test_options_that_an_arm_does_not_read_do_not_tell_its_runs_apart(name: str, ready: Prepared) -> None:
    value = OTHER[name]
    reads = {arm: ARMS[arm].aligns if name in OF_ALIGNMENT else ARMS[arm].text_labels for arm in ARMS}
    assert not any(reads[arm] for arm in READ_BY_NONE) and any(reads.values())
    for arm, read in reads.items():
        plain, other = (given(ready, options, arm) for options in ({}, {name: value}))
        assert (plain.key != other.key) == read, arm
        assert getattr(other.ready.config, name) == (value if read else TrainOptions.model_fields[name].default), arm
    comparison = prepare(ready.config.model_copy(update={name: value}))
    assert {given(comparison, {}, arm).key for arm in ("baseline", "oracle")} == {given(ready, {}, "baseline").key}


def test_options_of_all_arms_tell_runs_apart(ready: Prepared) -> None:
    for options in ({"lr": 0.5}, {"label_smoothing": 0.0}, {"labelled_share": 0.3}):
        assert all(given(ready, {}, arm).key != given(ready, options, arm).key for arm in ARMS)
    assert given(ready, {}, "fixmatch").key != given(ready, {}, "baseline").key, "it has options of its own"


def test_runs_of_other_teachers_are_other_runs(ready: Prepared) -> None:
    keys = {set_up(ARMS["self-training"], ready, {}, taught_by).key for taught_by in ("a", "b", "a")}
    assert len(keys) == 2


def test_runs_that_read_class_names_are_made_anew_with_others(
    ready: Prepared, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> dict[str, str]:
        class_names.embed_by.cache_clear()
        return {arm: given(ready, {}, arm).key for arm in ARMS}

    def told_apart(others: dict[str, str]) -> set[str]:
        return {arm for arm in ARMS if first[arm] != others[arm]}

    first = keys()
    reading = {arm for arm in ARMS if ARMS[arm].text and (ARMS[arm].text_labels or ARMS[arm].names)}
    assert {"text-labels", "zero-shot", "class-name"} <= reading
    monkeypatch.setattr("gpt4image.encoding.text_encoders.bag_of_words.fingerprint", lambda _: "later")
    assert told_apart(keys()) == reading, "the same table, read by another encoder"
    monkeypatch.undo()
    assert keys() == first

    def gone(*_: Any, **__: Any) -> None:
        raise ModelError("the encoder is not here any more")

    monkeypatch.setattr("gpt4image.encoding.text_encoders.registry.load_known_encoder", gone)
    assert told_apart(keys()) == reading
    assert given(ready, {}, "text-labels").class_names.missing == "the encoder is not here any more"


def test_tables_of_other_images_and_none_are_refused(ready: Prepared, tmp_path: Path) -> None:
    make_table(tmp_path / "foreign", {"0" * 64: np.ones((1, 8))})
    with pytest.raises(TableError, match=r"None of the 36 training images of .* has an embedding in .*foreign"):
        given(ready, {"embeddings": tmp_path / "foreign"}, "aligned")
    with pytest.raises(ConfigError, match="embeddings null would leave the texts of the comparison in place"):
        given(ready, {"embeddings": None}, "aligned")
