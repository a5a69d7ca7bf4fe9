"""What a comparison will run, what is taken away, how its runs are told apart, and what it refuses before."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comparing.cases import Small, options
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.base.files import read_json, write_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.planning import Member, Regime, Setup, jobs_at_once, make_plan, members_of, set_up
from gpt4image.config import CompareConfig, TrainConfig, TrainOptions
from gpt4image.config.arms import ARMS
from gpt4image.config.learning import OF_ALIGNMENT, OF_TEXT_LABELS
from gpt4image.data import NO_LABEL, load_dataset
from gpt4image.data.pixels import available_cores
from gpt4image.encoding import class_names
from gpt4image.encoding.class_names import ClassNames
from gpt4image.parallel import devices
from gpt4image.parallel.devices import cpu_threads
from gpt4image.training.prepare import Prepared, prepare
from tables import make_table, write_store


def test_what_follows_from_options_of_a_variant_is_chosen_anew(small: Small) -> None:
    config = small(lr=None, arms="baseline", variants={
        "adam": {"arm": "baseline", "optimizer": "adamw"},
        "own-rate": {"arm": "baseline", "optimizer": "adamw", "lr": 0.5},
    })  # fmt: skip
    jobs = {job.name: job for job in make_plan(config).jobs}
    found = {name: (job.config.optimizer, job.config.lr, job.config.weight_decay) for name, job in jobs.items()}
    assert found == {"baseline": ("muon", 0.02, 0.3), "adam": ("adamw", 1e-3, 0.05), "own-rate": ("adamw", 0.5, 0.05)}
    assert jobs["adam"].chosen["lr"] == 1e-3 and "optimizer" not in jobs["adam"].chosen
    assert all(job.shared == jobs["baseline"].shared for job in jobs.values())


def test_class_conditioned_descriptions_are_refused_where_labels_are_scarce(small: Small, table: Path) -> None:
    manifest = read_json(table / "manifest.json")
    manifest["prompts"][0]["class_conditioned"] = True
    (table / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TableError, match="told the class"):
        compare(small(labels_per_class=2, arms="text-labels"))
    plan = make_plan(small(arms="aligned"))  # with all labels they do no harm
    assert "aligned" in plan.members


@pytest.mark.parametrize(("device", "gpus", "expected"), [("cuda", 3, 3), ("cuda:1", 3, 1), ("mps", 0, 1)])
def test_one_run_a_gpu(device: str, gpus: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(devices, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    config = options(tmp_path, None, tmp_path / "cmp", device=device, jobs=None)
    assert jobs_at_once(config) == expected
    for number in range(5):
        devices.use_gpu(device, number)
    assert used == ([0, 1, 2, 0, 1] if device == "cuda" else [])


def test_text_labels_need_described_labels_of_two_classes_in_the_table_of_the_arm(small: Small, tmp_path: Path) -> None:
    data = make_plan(small(arms="baseline")).prepared.data
    one = tmp_path / "one"
    make_table(one, {data.image_set.digests[data.indices("train")[0]]: np.eye(8)[:1]})
    with pytest.raises(TableError, match="labels of at least 2 classes"):
        make_plan(small(embeddings=one, arms="text-labels"))
    variants = {"x": {"arm": "text-labels", "embeddings": one}}
    with pytest.raises(TableError, match=r"variant 'x': .* labels of at least 2 classes"):
        make_plan(small(arms="baseline", variants=variants))


def test_what_could_not_be_measured_or_trained_is_refused_in_the_plan(
    small: Small, colour_folder: Path, answers: Path
) -> None:
    with pytest.raises(DataError, match=r"no image of the test split has a label: raise --test-fraction 0\.0"):
        make_plan(small(arms="baseline", test_fraction=0.0))
    rows = ["path,label,split"]
    for path in sorted(colour_folder.rglob("*.png")):
        split = "test" if int(path.stem) > 14 else "train"
        rows.append(f"{path.relative_to(colour_folder)},{path.parent.name if split == 'test' else ''},{split}")
    (colour_folder / "few.csv").write_text("\n".join(rows))
    unlabelled = {"data": f"manifest:{colour_folder / 'few.csv'}"}
    with pytest.raises(DataError, match=r"No training image of .* has a label; .*--labels-per-class 0"):
        make_plan(small(arms="zero-shot", **unlabelled))
    plan = make_plan(small(embeddings=None, labels_per_class=0, answers=answers, **unlabelled))
    assert "asked" in plan.members and "oracle" not in plan.members and "baseline" not in plan.members
    asked = {"labels_per_class": 0, "answers": answers, "arms": "asked,oracle", **unlabelled}
    with pytest.raises(ConfigError, match="oracle needs labels; possible now"):
        make_plan(small(embeddings=None, **asked))


def test_texts_that_an_arm_does_not_read_are_no_targets(
    small: Small, colour_folder: Path, answers: Path, tmp_path: Path
) -> None:
    """Consistency trains on images without a target: those without an answer, though all are described."""
    images = load_dataset(f"folder:{colour_folder}")
    with DescriptionStore(answers) as store:
        half = [row for row in store.answers() if row.digest in images.digests[::2]]
    rows = ({"digest": row.digest, "answer": row.answer} for row in half)
    own = small(labels_per_class=0, answers=write_store(tmp_path / "part.db", rows, prompt=half[0].prompt))
    assert list(make_plan(own.model_copy(update={"arms": "asked", "consistency": 1.0})).members) == ["asked"]
    with pytest.raises(ConfigError, match="--consistency"):
        make_plan(own.model_copy(update={"arms": "fused", "consistency": 1.0}))


def test_runs_share_the_cores_and_take_no_more_threads_than_torch_would(small: Small) -> None:
    def planned(**changes: Any) -> tuple[int | None, int | None]:
        config = small(embeddings=None, arms="baseline", seeds=1, **changes)
        (job,) = make_plan(config).jobs
        return job.config.threads, job.shared.workers

    cores = available_cores()
    with cpu_threads(cores):
        assert planned(jobs=1) == (cores, cores) and planned(jobs=2 * cores) == (1, 1)
        assert planned(jobs=2, threads=3, workers=5) == (3, 5), "what is asked for"
    with cpu_threads(1):
        assert planned(jobs=1) == (1, cores)


def members(config: CompareConfig) -> tuple[dict[str, Member], list[str]]:
    data = prepare(config).data
    return members_of(config, data, Regime.of(config).apply(data, 0), class_conditioned=False)


@pytest.mark.parametrize(
    ("options", "left_out"), [({}, ["class-name"]), ({"labels_per_class": 2}, ["zero-shot", "class-name"])]
)
def test_arms_that_lack_class_names_are_left_out_with_a_note_unless_they_are_asked_for(
    options: dict[str, Any], left_out: list[str], small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, (note,) = members(small(**options))
    assert "aligned" in found and not set(left_out) & set(found)
    assert note.startswith(f"Left out: {', '.join(left_out)}: it needs the names of the classes in the space of ")
    assert "Unknown text encoder: 'given'" in note
    asked, notes = members(small(arms=",".join(left_out), **options))
    assert set(left_out) < set(asked) and notes == []
    named = ClassNames(vectors=np.eye(3, 8, dtype=np.float32), missing="")
    monkeypatch.setattr("gpt4image.comparing.planning.find_class_names", lambda *_: named)
    found, notes = members(small(**options))
    assert set(left_out) < set(found) and notes == []


READ_BY_NONE = ("baseline", "fixmatch", "oracle")


@pytest.fixture
def ready(colour_folder: Path, table: Path, tmp_path: Path) -> Prepared:
    """Data with texts of an encoder that also embeds the names of classes."""
    manifest = {**read_json(table / "manifest.json"), "encoder": "bag-of-words:8", "revision": ""}
    write_json(table / "manifest.json", manifest)
    return prepare(TrainConfig(data=f"folder:{colour_folder}", out=tmp_path, image_size=16, embeddings=table))


def given(ready: Prepared, options: Mapping[str, Any], arm: str) -> Setup:
    return set_up(ARMS[arm], ready, options)


OTHER: dict[str, Any] = {
    "align_loss": "siglip", "align_weight": 3.0, "temperature": 0.1, "paper_compat": True,
    "head": "mlp", "label_trust": 0.3,
}  # fmt: skip


def test_every_option_of_texts_is_one_of_alignment_or_of_text_labels() -> None:
    assert OTHER.keys() == OF_ALIGNMENT | OF_TEXT_LABELS
    assert {name for name in OTHER if name.startswith("label_")} == OF_TEXT_LABELS


@pytest.mark.parametrize("name", sorted(OTHER))
def test_options_that_an_arm_does_not_read_do_not_tell_its_runs_apart(name: str, ready: Prepared) -> None:
    value = OTHER[name]
    reads = {arm: ARMS[arm].aligns if name in OF_ALIGNMENT else ARMS[arm].predicts_targets for arm in ARMS}
    assert not any(reads[arm] for arm in READ_BY_NONE) and any(reads.values())
    for arm, read in reads.items():
        plain, other = (given(ready, options, arm) for options in ({}, {name: value}))
        assert (plain.key != other.key) == read, arm
        assert getattr(other.ready.config, name) == (value if read else TrainOptions.model_fields[name].default), arm
    comparison = prepare(ready.config.model_copy(update={name: value}))
    assert {given(comparison, {}, arm).key for arm in ("baseline", "oracle")} == {given(ready, {}, "baseline").key}


def test_runs_that_read_class_names_are_made_anew_with_others(
    ready: Prepared, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> dict[str, str]:
        class_names.embed_by.cache_clear()
        return {arm: given(ready, {}, arm).key for arm in ARMS}

    first = keys()
    reading = {arm for arm in ARMS if ARMS[arm].text and (ARMS[arm].predicts_targets or ARMS[arm].names)}
    assert {"text-labels", "zero-shot", "class-name"} <= reading
    monkeypatch.setattr("gpt4image.encoding.text_encoders.bag_of_words.fingerprint", lambda _: "later")
    assert {arm for arm in ARMS if first[arm] != keys()[arm]} == reading, "the same table, read by another encoder"


def test_labels_left_touch_train_alone_and_noise_of_classes_takes_each_for_one_other(ready: Prepared) -> None:
    data, train = ready.data, ready.data.indices("train")
    kept = Regime(labels_per_class=2).apply(data, seed=0).labels
    assert np.bincount(kept[train][kept[train] != NO_LABEL]).tolist() == [2, 2, 2]
    wrong = Regime(label_noise=0.25).apply(data, seed=0).labels
    assert (wrong[train] != data.labels[train]).sum() == round(0.25 * len(train))
    for labels in (kept, wrong):
        others = np.setdiff1d(np.arange(len(data.labels)), train)
        assert np.array_equal(labels[others], data.labels[others])
    assert not np.array_equal(Regime(labels_per_class=2).apply(data, seed=1).labels, kept)
    both = Regime(labels_per_class=4, label_noise=0.5).apply(data, seed=0).labels[train]
    assert (both != NO_LABEL).sum() == 12
    assert (both != data.labels[train])[both != NO_LABEL].sum() == 6
    labels = Regime(label_noise=0.5, noise_kind="class-dependent").apply(data, seed=0).labels[train]
    wrong = labels != data.labels[train]
    assert wrong.sum() == round(0.5 * len(train))
    pairs = set(zip(data.labels[train][wrong].tolist(), labels[wrong].tolist(), strict=True))
    assert len(pairs) == len({true for true, _ in pairs}) == len({taken for _, taken in pairs}) == 3


def test_labels_are_drawn_from_described_images(ready: Prepared) -> None:
    data, train = ready.data, ready.data.indices("train")
    assert data.text is not None
    few = np.concatenate([train[data.labels[train] == label][:4] for label in range(3)])
    sparse = replace(data, text=data.text.of_others(few, few))
    kept = Regime(labels_per_class=3).apply(sparse, seed=0).labels
    assert np.isin(train[kept[train] != NO_LABEL], few).all()
