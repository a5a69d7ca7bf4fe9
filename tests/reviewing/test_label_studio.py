from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gpt4image.base.errors import DataError
from gpt4image.config import ReviewConfig
from gpt4image.data import load_dataset
from gpt4image.reviewing.label_studio import read_tasks, write_tasks
from gpt4image.reviewing.review import review
from gpt4image.reviewing.session import Card


def card(key: str, label: str = "", proposal: str = "") -> Card:
    return Card(
        id=f"digest of {key}", key=key, label=label, note="", proposal=proposal, share=0.9, reason="", likely=()
    )


SIGNS = ("a&b.png", "c#1.png", "50%20off.png", "1+1.png", "d?e=f;g.png", "a[1].png")
KEYS = ("cat/1.png", "dog/1.png", "dog/2.png", "a b/ü.png", "3.png", "b/3.png", *SIGNS)
DIGESTS = {key: f"digest of {key}" for key in KEYS} | {"dog/copy of 2.png": "digest of dog/2.png"}


def choice(*names: Any, kind: str = "choices") -> dict[str, Any]:
    return {"from_name": "label", "to_name": "image", "type": kind, "value": {"choices": list(names)}}


def task(image: str, *annotations: Any, **data: Any) -> dict[str, Any]:
    return {"data": {"image": image, **data}, "annotations": list(annotations)}


def read(folder: Path, tasks: Any) -> tuple[dict[str, str], list[str]]:
    path = folder / "tasks.json"
    path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks), encoding="utf-8")
    found, skipped = read_tasks(path, DIGESTS)
    assert {note for _, note in found.values()} <= {"checked"}
    return {digest.removeprefix("digest of "): name for digest, (name, _) in found.items()}, [
        item.reason for item in skipped
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    cards = [card("cat/1.png", label="cat"), card("dog/1.png", proposal="dog"), card("dog/2.png", "=1", "dog")]
    assert write_tasks(tmp_path / "out.json", [(each, f"photos/{each.key}") for each in cards]) == 3
    first, second, _ = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert first["data"]["image"] == "/data/local-files/?d=photos/cat/1.png"
    assert first["annotations"][0]["result"] == [choice("cat")]
    assert (second["predictions"][0]["score"], second["predictions"][0]["result"]) == (0.9, [choice("dog")])
    found, skipped = read_tasks(tmp_path / "out.json", DIGESTS)
    assert (skipped, found) == (
        [], {"digest of cat/1.png": ("cat", "checked"), "digest of dog/2.png": ("=1", "checked")}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("image", "key"),
    [
        ("/data/local-files/?d=photos/dog/1.png", "dog/1.png"),
        ("/data/local-files/?d=photos%2Fa%20b%2F%C3%BC.png", "a b/ü.png"),
        ("/data/upload/7/0123abcd-2.png", "dog/2.png"),
        ("https://host/bucket/dog/1.png?signature=x", "dog/1.png"),
        ("s3://bucket/photos/cat/1.png", "cat/1.png"),
        ("2.png", "dog/2.png"),
        ("photos/dog/copy of 2.png", "dog/2.png"),
        ("/data/local-files/?d=photos/b/3.png", "b/3.png"),
        ("/data/local-files/?d=photos/c/3.png", "3.png"),
        *((f"/data/local-files/?d={name}", name) for name in SIGNS),
        *((f"/data/local-files/?d={quote(name)}", name) for name in SIGNS),
    ],
)
def test_images_are_found_by_the_end_of_their_path(tmp_path: Path, image: str, key: str) -> None:
    assert read(tmp_path, [task(image, {"result": [choice("owl")]})]) == ({key: "owl"}, [])
    assert read(tmp_path, [{"id": 3, "image": image, "label": "owl", "annotator": 1}]) == ({key: "owl"}, [])


def test_classes_under_another_name_are_refused_with_the_names_there_are(tmp_path: Path) -> None:
    tasks = [{"id": 1, "image": "2.png", "mood": "owl"}, {"id": 2, "image": "cat/1.png", "mood": "hen"}]
    with pytest.raises(DataError, match=r"no task has a field 'label' or 'choice'; there are 'id', 'image', 'mood'\."):
        read(tmp_path, tasks)
    tasks[0]["label"] = "owl"
    assert read(tmp_path, tasks) == ({"dog/2.png": "owl"}, [])


def test_the_last_annotation_counts_that_was_not_cancelled(tmp_path: Path) -> None:
    annotations = [{"result": [choice(name)], "was_cancelled": name == "owl"} for name in ("cat", "dog", "owl")]
    assert read(tmp_path, [task("2.png", *annotations), task("cat/1.png")]) == ({"dog/2.png": "dog"}, [])


def test_a_task_of_a_picture_that_was_changed_labels_no_other(tmp_path: Path) -> None:
    old, new, done = "a" * 64, "b" * 64, {"result": [choice("cat")]}
    tasks = [task("cat/1.png", done, digest=old, key="cat/1.png"), task("cat/1.png", done, digest=new)]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    found, skipped = read_tasks(tmp_path / "tasks.json", {"cat/1.png": new})
    assert found == {new: ("cat", "checked")}
    [refused] = skipped
    assert refused.name == "cat/1.png" and "no picture with its digest" in refused.reason
    found, skipped = read_tasks(tmp_path / "tasks.json", {"cat/1.png": "c" * 64})
    assert found == {} and len(skipped) == 2


def test_bad_tasks_are_skipped_with_a_reason(tmp_path: Path) -> None:
    tasks = [
        task("1.png", {"result": [choice("cat")]}),
        task("../../etc/passwd", {"result": [choice("cat")]}),
        task("/data/local-files/?d=photos/owl/2.png", {"result": [choice("owl")]}),
        task("dog/2.png", {"result": [choice("cat", "dog")]}),
        task("dog/2.png", {"result": [choice(7)]}),
        task("dog/2.png", {"result": [choice("cat", kind="rectanglelabels")]}),
        task("dog/2.png", {"result": {"a": 1}}),
        task("dog/2.png", "x"),
        "x",
        {"data": [], "annotations": [{"result": [choice("cat")]}]},
        task("http://[", {"result": [choice("cat")]}, key=[1], digest={"a": 1}),
    ]
    found, reasons = read(tmp_path, tasks)
    assert (found, len(reasons)) == ({}, len(tasks))
    assert sum("no image of the dataset" in reason for reason in reasons) == 5
    assert sum("one choice" in reason for reason in reasons) == 3


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, "[NaN]", "\0", '{"data": {}}', "7"])
def test_what_is_no_list_of_tasks_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"tasks\.json is no (JSON|list of tasks)"):
        read(tmp_path, text)


def test_a_folder_stays_a_folder_beside_its_labels(pictures: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": str(pictures), "labels": pictures / "labels.csv"}
    task = {"data": {"image": "unlabelled/5.png"}, "annotations": [{"result": [choice("dog")]}]}
    (tmp_path / "in.json").write_text(json.dumps([task]), encoding="utf-8")
    assert review(ReviewConfig(**options, import_tasks=tmp_path / "in.json")).checked == 1
    assert review(ReviewConfig(**options, export_tasks=tmp_path / "out.json")).checked == 1
    assert load_dataset(str(pictures)).spec == f"manifest:{pictures / 'labels.csv'}", "other stages read the labels"


def test_a_copy_of_another_file_is_found_by_its_own_path(pictures: Path, tmp_path: Path) -> None:
    (pictures / "unlabelled" / "zz.png").write_bytes((pictures / "unlabelled" / "5.png").read_bytes())
    task = {"data": {"image": "photos/unlabelled/zz.png"}, "annotations": [{"result": [choice("dog")]}]}
    (tmp_path / "in.json").write_text(json.dumps([task]), encoding="utf-8")
    options: dict[str, Any] = {"data": f"folder:{pictures}", "labels": tmp_path / "labels.csv"}
    outcome = review(ReviewConfig(**options, import_tasks=tmp_path / "in.json"))
    assert (outcome.skipped, outcome.checked) == ((), 1)
    read = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert read.label_names(read.keys.index("unlabelled/5.png")) == ("dog",)
