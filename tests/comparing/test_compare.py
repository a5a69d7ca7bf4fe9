"""Comparisons: every arm and seed once, shared and finished runs not made again, the record as promised."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from comparing.cases import BARE, Small, options
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, ModelError, TableError
from gpt4image.base.files import read_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.planning import make_plan
from gpt4image.comparing.results import crossed
from gpt4image.data import load_dataset
from gpt4image.models.weights import save_tensors
from gpt4image.training.trainer import make_backbone
from small_training import StoppedError, stop_after
from tables import make_table


def finished(out: Path) -> dict[str, int]:
    return {str(path.parent.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob(runs.RUN)}


def right(run: Path) -> NDArray[np.bool_]:
    rows = pq.read_table(run / "predictions-test.parquet").to_pylist()
    return np.array([row["label"] == row["prediction"] for row in rows])


@pytest.mark.slow
def test_two_comparisons_share_runs_keep_the_promised_form_and_are_not_made_again(small: Small, tmp_path: Path) -> None:
    out = tmp_path / "cmp"
    few = small(labels_per_class=2, arms="aligned,text-labels,oracle")
    all_labels = small(arms="baseline,shuffled")
    outcome = compare(few, all_labels, names=("few", "all"))
    record = read_json(out / "comparison.json")
    assert outcome.path == out and (out / "report.html").is_file()
    assert record["metric"] == "top1" and set(record["comparisons"]) == {"few", "all"}
    assert list(record["arms"]) == ["baseline", "aligned", "text-labels", "oracle"]
    for arm in record["arms"].values():
        assert arm["seeds"] == [0, 1] and len(arm["test"]) == 2 and len(arm["ci95"]) == 2 and arm["seconds"] > 0
        assert arm["mean"] == pytest.approx(np.mean(arm["test"]))
        for folder, top1 in zip(arm["runs"], arm["test"], strict=True):
            assert read_json(out / folder / "evaluation-test.json")["top1"] == top1
    pair = record["pairs"][0]
    assert (pair["arm"], pair["against"]) == ("aligned", "baseline") and 0 <= pair["p"] <= 1 and len(pair["ci95"]) == 2
    hits = {
        arm: np.stack([right(out / folder) for folder in record["arms"][arm]["runs"]])
        for arm in ("aligned", "baseline")
    }
    wider = crossed(hits["aligned"], hits["baseline"])
    assert wider.difference == pytest.approx(pair["difference"], abs=1e-6)
    assert pair["other_images"]["p"] == max(pair["p"], wider.p or 0.0)
    assert record["arms"]["oracle"]["runs"] == record["comparisons"]["all"]["arms"]["baseline"]["runs"]
    made = finished(out)
    assert len(made) == 2 * 5, "the oracle of one is the baseline of the other"
    assert {read_json(out / folder / runs.CONFIG)["seed"] for folder in made} == {0, 1}
    compare(few, all_labels, names=("few", "all"))
    assert finished(out) == made
    third = compare(small(labels_per_class=2, arms="aligned", seeds=1, first_seed=2)).content
    assert third["arms"]["aligned"]["seeds"] == [2] and third["arms"]["aligned"]["runs"][0].endswith("seed-2")
    assert len(finished(out)) == 12, "a third seed adds its own two runs"


@pytest.mark.slow
def test_variants_run_beside_their_arm_on_the_same_seeds_and_are_shared(
    small: Small, colour_folder: Path, tmp_path: Path
) -> None:
    images = load_dataset(f"folder:{colour_folder}")
    make_table(tmp_path / "other", {digest: [np.eye(8)[5]] for digest in images.digests})
    out = tmp_path / "cmp"
    variants = {
        "heavy": {"arm": "aligned", "align-weight": 2.0, "head": "mlp"},
        "heavy-shuffled": {"arm": "shuffled", "align_weight": 2.0, "head": "mlp"},
        "other-texts": {"arm": "aligned", "embeddings": str(tmp_path / "other")},
        "smooth": {"arm": "baseline", "label_smoothing": 0.0},
    }
    common: dict[str, Any] = {"epochs": 1, "seeds": 1, "arms": "aligned,shuffled"}
    record = compare(small(variants=variants, **common)).content
    assert list(record["arms"]) == ["baseline", "aligned", "shuffled", *variants]
    heavy = record["arms"]["heavy"]
    assert heavy["arm"] == "aligned" and heavy["options"] == {"align_weight": 2.0, "head": "mlp"}
    pairs = {(pair["arm"], pair["against"]) for pair in record["pairs"]}
    assert {("heavy", "baseline"), ("heavy", "aligned"), ("heavy", "heavy-shuffled"), ("aligned", "shuffled")} <= pairs
    assert ("aligned", "heavy-shuffled") in pairs, "a control may have settings that suit it better"
    assert ("heavy", "shuffled") not in pairs and ("smooth", "baseline") in pairs
    assert ("aligned", "smooth") in pairs and ("heavy", "smooth") not in pairs, "so may the baseline"
    configs = {name: runs.read_run(out / arm["runs"][0])["config"] for name, arm in record["arms"].items()}
    assert configs["heavy"]["align_weight"] == 2.0 != configs["aligned"]["align_weight"]
    assert configs["heavy"]["data_fingerprint"] == configs["baseline"]["data_fingerprint"]
    assert configs["other-texts"]["data_fingerprint"] != configs["baseline"]["data_fingerprint"]
    assert configs["smooth"]["label_smoothing"] == 0.0
    made = finished(out)
    plain = compare(small(align_weight=2.0, head="mlp", **common)).content
    assert plain["arms"]["aligned"]["runs"] == heavy["runs"]
    assert finished(out).items() >= made.items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "pretrain"}, "makes no predictions to compare"),
        ({"seed": 5}, "seed is of one run"),
        ({"targets": "x.parquet"}, "targets may have learned from labels that an arm must not see"),
        ({"consistency": 1.0}, "give a variant"),
        ({"noise_kind": "class-dependent"}, "noise_kind needs --label-noise"),
        ({"label_trust": 0.3}, "^label_trust is of descriptions: give --embeddings"),
        *(
            ({"variants": {name: table}}, message)
            for name, table, message in (
                ("aligned", {"arm": "aligned"}, "cannot name a variant"),
                ("../x", {"arm": "aligned"}, "cannot name a variant"),
                ("x", 3, "needs an arm"),
                ("x", {"arm": "aligned", "epochs": 9}, "epochs, which all arms have in common"),
                ("x", {"arm": "aligned", "min_scale": 0.5}, "min_scale, which all arms have in common"),
                ("x", {"arm": "aligned", "temprature": 1.0}, "Did you mean 'temperature'"),
                ("x", {"arm": "aligned", "temperature": -1.0}, "variant 'x': temperature = -1.0"),
            )
        ),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, None, tmp_path / "cmp", **changes)


@pytest.mark.slow
def test_a_comparison_that_was_stopped_in_a_run_goes_on_with_it(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that a killed parent leaves are those of parallel/test_local.py."""
    config = small(seeds=1, epochs=2, arms="baseline,shuffled")
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_after(patch, steps=12)  # in the second run
        compare(config)
    kept = finished(config.out)
    compare(config)
    now = finished(config.out)
    assert (len(kept), len(now)) == (1, 2) and kept.items() <= now.items()


LABELS = "needs? --labels-per-class or --label-noise"
MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"arms": "oracle,aligned", "embeddings": None}, ConfigError, "oracle needs --label.*; aligned needs --emb"),
    ({"variants": {"x": {"arm": "oracle"}}}, ConfigError, LABELS),
    ({"arms": "asked,fused"}, ConfigError, "asked needs --answers"),
    ({"arms": "baseline,text-labels", "labels_per_class": 0}, ConfigError, "baseline needs labels; text-labels needs"),
    ({"labels_per_class": 0, "label_noise": 0.2}, ConfigError, "label_noise needs a label to flip"),
    ({"arms": "fixmatch", "label_noise": 0.2}, ConfigError, "fixmatch needs training images without a label"),
    ({"arms": "baseline", "label_noise": 0.01}, DataError, "--label-noise 0.01 of 36 labels flips none"),
    ({"arms": "zero-shot,class-name", "labels_per_class": 2}, ConfigError,
     r"^--arms zero-shot: it needs the names .* in the space of .*table: .*'given'.*gpt4image encode"),
    ({"arms": "baseline", "val_fraction": 0.0, "variants": {"x": {"arm": "baseline", "select": "best"}}}, ConfigError,
     "^variant 'x': --select best needs labelled validation images"),
    ({"arms": "baseline", "paper_compat": True, "variants": {"x": {"arm": "aligned", "align_loss": "siglip"}}},
     ConfigError, "variant 'x': paper_compat goes only with"),
    *(({"arms": "baseline", "variants": {"x": {"arm": arm} | mistake}}, kind, f"^variant 'x': .*{message}")
      for arm, mistake, kind, message in (
        ("baseline", {"optimizer": "admw"}, ConfigError, "--optimizer admw"),
        ("baseline", {"init": "nothing.safetensors"}, ModelError, "nothing.safetensors"),
        ("text-labels", {"consistency": 1.0}, ConfigError, "all 36 have one"),
        ("aligned", {"embeddings": "/no"}, TableError, "no finished embedding table"),
        ("aligned", {"embeddings": None}, ConfigError, "embeddings null would leave the texts"),
        ("aligned", {"align_weight": 1.0}, ConfigError, "with align_weight 1.0 it is aligned once more"),
        ("baseline", {"align_weight": 3.0}, ConfigError, "it is baseline once more, which .* does not read"),
        ("class-name", {"head": "mlp"}, ConfigError, "class-name: it needs the names of the classes"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "message"), MISTAKES)
def test_mistakes_are_refused_before_any_run(
    changes: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path, small: Small
) -> None:
    with pytest.raises(kind, match=message):
        compare(small(**changes))
    assert not (tmp_path / "cmp" / "runs").exists()


@pytest.mark.slow
def test_without_any_label_arms_that_read_answers_train_and_the_first_is_the_reference(
    small: Small, answers: Path, small_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cmp"
    config = small(seeds=1, answers=answers, labels_per_class=0, arms="asked,fused,oracle")
    outcome = compare(config)
    record = read_json(out / "comparison.json")
    assert list(record["arms"]) == ["asked", "fused", "oracle"]
    assert {pair["against"] for pair in record["pairs"]} == {"asked", "oracle"}
    assert outcome.text is not None and "With no label, answers and descriptions changed" in outcome.text
    assert "there is no embedding table" not in outcome.text
    before = finished(out)
    compare(config.model_copy(update={"labels_per_class": 3, "arms": "asked"}))
    assert before.items() <= finished(out).items(), "runs with other labels are other runs"
    compare(config.model_copy(update={"features": str(small_run)}))
    names = [place.parents[1].name.split("-")[0] for place in out.glob("runs/*/seed-0/run.json")]
    assert (names.count("fused"), names.count("asked")) == (2, 2), "answers alone read no pictures"
    assert (out / "pictures.features").is_dir()


def test_runs_are_made_anew_when_the_weights_that_they_start_from_change(small: Small, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    config = small(arms="aligned")
    weights = make_backbone(config.model_copy(update=BARE), 3).module.state_dict()
    save_tensors(start, weights)

    def folders() -> set[Path]:
        plan = make_plan(config.model_copy(update={"init": str(start)}))
        return {folder for member in plan.members.values() for folder in member.folders}

    before = folders()
    assert folders() == before
    save_tensors(start, {name: 2 * value for name, value in weights.items()})
    assert not folders() & before


@pytest.mark.slow
def test_wrong_labels_are_found_by_the_texts(small: Small, tmp_path: Path) -> None:
    asked = small(label_noise=0.3, seeds=1, arms="text-labels")
    record = compare(asked).content
    assert list(record["arms"]) == ["baseline", "text-labels"]
    assert record["data"]["described"] > 0, "texts that only give labels count too"
    (named,) = record["doubtful"]
    assert named["flipped"] > 3 and named["recall"] > 0.5 and named["seed"] == 0
    assert "Wrong labels found by the descriptions" in (tmp_path / "cmp" / "report.html").read_text(encoding="utf-8")
