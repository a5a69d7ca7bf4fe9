"""What a comparison will run, and what it refuses before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comparing_cases import options
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.base.files import read_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.planning import jobs_at_once, make_plan
from gpt4image.parallel import devices
from tables import make_table


def test_what_follows_from_options_of_a_variant_is_chosen_anew(
    colour_folder: Path, table: Path, tmp_path: Path
) -> None:
    config = options(colour_folder, table, tmp_path / "cmp", lr=None, arms="baseline", variants={
        "adam": {"arm": "baseline", "optimizer": "adamw"},
        "own-rate": {"arm": "baseline", "optimizer": "adamw", "lr": 0.5},
    })  # fmt: skip
    jobs = {job.name: job for job in make_plan(config).jobs}
    found = {name: (job.config.optimizer, job.config.lr, job.config.weight_decay) for name, job in jobs.items()}
    assert found == {"baseline": ("muon", 0.02, 0.3), "adam": ("adamw", 1e-3, 0.05), "own-rate": ("adamw", 0.5, 0.05)}
    assert jobs["adam"].chosen["lr"] == 1e-3 and "optimizer" not in jobs["adam"].chosen
    assert all(job.shared == jobs["baseline"].shared for job in jobs.values())


def test_class_conditioned_descriptions_are_refused_where_labels_are_scarce(
    colour_folder: Path, table: Path, tmp_path: Path
) -> None:
    manifest = read_json(table / "manifest.json")
    manifest["prompts"][0]["class_conditioned"] = True
    (table / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TableError, match="told the class"):
        compare(options(colour_folder, table, tmp_path / "cmp", labels_per_class=2, arms="text-labels"))
    plan = make_plan(options(colour_folder, table, tmp_path / "cmp", arms="aligned"))  # with all labels they do no harm
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


def test_text_labels_need_described_labels_of_two_classes_in_the_table_of_the_arm(
    colour_folder: Path, table: Path, tmp_path: Path
) -> None:
    data = make_plan(options(colour_folder, table, tmp_path / "cmp", arms="baseline")).prepared.data
    one = tmp_path / "one"
    make_table(one, {data.image_set.digests[data.indices("train")[0]]: np.eye(8)[:1]})
    with pytest.raises(TableError, match="labels of at least 2 classes"):
        make_plan(options(colour_folder, one, tmp_path / "cmp", arms="text-labels"))
    variants = {"x": {"arm": "text-labels", "embeddings": table}}
    make_plan(options(colour_folder, one, tmp_path / "cmp", arms="baseline", variants=variants))
    variants = {"x": {"arm": "text-labels", "embeddings": one}}
    with pytest.raises(TableError, match=r"variant 'x': .* labels of at least 2 classes"):
        make_plan(options(colour_folder, table, tmp_path / "cmp", arms="baseline", variants=variants))


def test_what_could_not_be_measured_or_trained_is_refused_in_the_plan(
    colour_folder: Path, table: Path, answers: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no image of the test split has a label.*--test-fraction than 0\.0"):
        make_plan(options(colour_folder, table, tmp_path / "cmp", arms="baseline", test_fraction=0.0))
    rows = ["path,label,split"]
    for path in sorted(colour_folder.rglob("*.png")):
        split = "test" if int(path.stem) > 14 else "train"
        rows.append(f"{path.relative_to(colour_folder)},{path.parent.name if split == 'test' else ''},{split}")
    (colour_folder / "few.csv").write_text("\n".join(rows))
    unlabelled = {"data": f"manifest:{colour_folder / 'few.csv'}"}
    with pytest.raises(DataError, match=r"No training image of .* has a label; .*--labels-per-class 0"):
        make_plan(options(colour_folder, table, tmp_path / "cmp", arms="zero-shot", **unlabelled))
    plan = make_plan(options(colour_folder, None, tmp_path / "cmp", labels_per_class=0, answers=answers, **unlabelled))
    assert "asked" in plan.members and "oracle" not in plan.members and "baseline" not in plan.members
    asked = {"labels_per_class": 0, "answers": answers, "arms": "asked,oracle", **unlabelled}
    with pytest.raises(ConfigError, match="oracle needs labels; possible now"):
        make_plan(options(colour_folder, None, tmp_path / "cmp", **asked))


def test_what_was_chosen_for_other_images_is_chosen_anew(colour_folder: Path, table: Path, tmp_path: Path) -> None:
    config = options(colour_folder, table, tmp_path / "cmp", epochs=None, batch_size=None, arms="baseline")
    first = make_plan(config)
    assert make_plan(config).prepared.chosen == first.prepared.chosen
    for path in sorted(colour_folder.glob("*/*.png")):
        for copy in range(40):
            picture = Image.open(path)
            picture.putpixel((0, 0), (copy, 0, 0))
            picture.save(path.with_name(f"{path.stem}-{copy}.png"))
    grown = make_plan(config)
    assert grown.prepared.chosen["batch_size"] > first.prepared.chosen["batch_size"]
    assert make_plan(config).prepared.chosen == grown.prepared.chosen
    for path in sorted(colour_folder.glob("*/*.png")):
        if int(path.stem.split("-")[0]) > 4 or "-" in path.stem:
            path.unlink()
    shrunk = make_plan(config)
    assert shrunk.prepared.chosen["batch_size"] < first.prepared.chosen["batch_size"]
    plan = read_json(tmp_path / "cmp" / "plan.json")
    ((key, chosen),) = plan.items()
    of_older_versions = {name: value for name, value in chosen.items() if name != "data_fingerprint"}
    (tmp_path / "cmp" / "plan.json").write_text(json.dumps({key: of_older_versions}))
    assert make_plan(config).prepared.chosen == shrunk.prepared.chosen
    assert read_json(tmp_path / "cmp" / "plan.json") == plan
