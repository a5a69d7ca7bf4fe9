"""From a folder to a model: labelled or not, paid for or refused, stopped and gone on with."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpt4image
import worlds
from distilling_cases import CLASSES, PER_COLOUR, TINY, WORDS, Paid, Photos, colour_of, good
from gpt4image import cli
from gpt4image.artifacts.stage_records import RECORD
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.base.errors import ConfigError, DataError, DescriberError, Gpt4ImageError, ModelError, RunError
from gpt4image.base.files import read_json
from gpt4image.base.outcome import Outcome
from gpt4image.config import DistillConfig, ExportConfig
from gpt4image.config.results import ExportResult
from gpt4image.data import load_dataset
from gpt4image.distilling import distill
from gpt4image.distilling.distill import STAGES, worth_of_labels
from gpt4image.models.weights import load_tensors
from gpt4image.selecting.order import at_random
from openai_stub import Call, Handler, Reply, answer, failure, serve
from worlds import COLOURS, NAMES, boxes_answered, in_memory, write_dots, write_squares

BOTH = "description,class"


def test_a_labelled_folder_becomes_a_measured_model_and_the_same_command_makes_nothing_again(
    photos: Callable[[int], Photos], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = photos(PER_COLOUR), tmp_path / "out"
    words = ["distill", str(given.folder), "--describer", given.replay, "--out", str(out), *WORDS]
    words += ["--ask", BOTH]
    assert cli.main(words) == 0
    shown, told = capsys.readouterr()
    assert [f"{n}/7 {name}" in told for n, name in enumerate(STAGES, 1)] == [True] * 7
    assert "27 answers" in told and "images with a human label" in told, "only about training images"
    assert f"wrote: {out / 'model'}, {out / 'report.html'}" in shown
    assert f"next: gpt4image predict {out / 'model'}" in shown
    assert all((out / name).exists() for name in ("answers.db", "embeddings", "targets.parquet", "run", "model"))
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != RECORD}
    assert cli.main([*words, "--json"]) == 0
    shown, told = capsys.readouterr()
    facts = json.loads(shown)
    assert told.count("as before") == 7, told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (facts["human_labels"], facts["answered"]) == (36, 27) and 0 <= facts["scores"]["accuracy"] <= 1
    assert set(facts["stages"]) == {*STAGES} and facts["skipped"] == []
    weights = load_tensors(out / "run" / "model.safetensors")[0]
    for file in [*out.glob("run/*"), *out.glob("embeddings/*")]:  # as a power failure leaves folders
        file.unlink()
    assert cli.main(words) == 0, capsys.readouterr().err
    again = load_tensors(out / "run" / "model.safetensors")[0]
    assert all(bool((tensor == again[name]).all()) for name, tensor in weights.items())


def test_a_bare_folder_becomes_a_model_of_the_classes_that_are_given(bare: Photos, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"No image of .* has a label.*--classes"):
        gpt4image.distill(data=bare.folder, describer=bare.replay, out=out, **TINY)
    own = TINY | {"features": "auto"}
    made = gpt4image.distill(data=bare.folder, describer=bare.replay, classes=CLASSES, out=out, **own)
    assert not (out / "embeddings").exists(), "descriptions are asked for by --ask"
    assert (made.images, made.human_labels, made.answered, made.accuracy) == (36, 0, 36, None)
    assert made.path == out and made.skipped == () and "gpt4image audit" in made.text
    found = Targets.load(out / "targets.parquet")
    assert found.classes == ("blue", "green", "red") and (found.labels == -1).all()
    assert {key[0] for key in found.keys} == {"b", "g", "r"}
    named = [found.classes[k][0] for k in found.probabilities.argmax(axis=1)]
    assert named == [key[0] for key in found.keys]
    predicted = gpt4image.predict(model=out / "model", images=bare.folder, out=tmp_path / "predictions.csv")
    assert predicted.predicted == 36
    rows = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert {name for row in rows[1:] for name in COLOURS if name in row} <= {*COLOURS}


def test_looks_take_the_place_of_labels(bare: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(sessions: Any, *_: Any) -> None:
        session = sessions["audit"]
        for card in session.cards("label", 96):
            session.mark({card.id: (next(name for name in COLOURS if name[0] == card.key[0]), "checked")})

    asked: dict[str, Any] = {"describer": bare.replay, "classes": CLASSES, "out": tmp_path / "out", **TINY}
    made = gpt4image.distill(data=bare.folder, **asked)
    words = re.search(r"\n  (gpt4image audit .*)", made.text)
    assert words and "--labels" in words[1]
    monkeypatch.setattr("gpt4image.reviewing.review.serve", look)
    assert cli.main(shlex.split(words[1])[1:]) == 0
    again = gpt4image.distill(data=bare.folder, **asked)
    assert "Accuracy of the targets, by 36 audited images of 36: 100.0% (100.0% to 100.0%)." in again.text
    assert "gpt4image audit --data NEW --split train --model" in again.text


def test_few_labels_are_measured_on_and_classes_without_one_are_learned_too(
    photos: Callable[[int], Photos], tmp_path: Path
) -> None:
    given, out = photos(3), tmp_path / "out"
    (given.folder / "red").rename(given.folder / "unlabelled" / "red")  # no red picture has a label
    lines = [json.loads(line) for line in given.answers.read_text(encoding="utf-8").splitlines()]
    moved = [line | {"key": line["key"].replace("red/", "unlabelled/red/")} for line in lines]
    given.answers.write_text("\n".join(map(json.dumps, moved)), encoding="utf-8")
    made = gpt4image.distill(data=given.folder, describer=given.replay, classes=CLASSES, out=out, align=True, **TINY)
    assert made.human_labels == 6 and made.measured_on == "2 test images"
    record = read_json(out / "run" / "run.json")
    assert record["classes"] == ["blue", "green", "red"]
    assert (out / "run" / "head.safetensors").is_file(), "features were aligned to the descriptions"


@pytest.mark.slow
def test_other_options_and_later_labels_make_again_what_depends_on_them_and_lose_no_model(
    bare: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked: dict[str, Any] = {"describer": bare.replay, "classes": CLASSES, "out": out, "ask": BOTH, **TINY}
    made = gpt4image.distill(data=bare.folder, **asked)
    assert made.next.startswith("gpt4image review ") and f"--labels {bare.folder / 'labels.csv'}" in made.next
    weights = (out / "run" / "model.safetensors").read_bytes()
    capsys.readouterr()
    gpt4image.distill(data=bare.folder, **asked | {"seed": 1})
    told = capsys.readouterr().err
    assert [f"{n}/7 {name:9} as before" in told for n, name in enumerate(STAGES, 1)] == [True, True, *[False] * 5]
    assert (out / "earlier-1" / "run" / "model.safetensors").read_bytes() == weights
    assert (out / "earlier-1" / "model").is_dir() and (out / "run" / "model.safetensors").read_bytes() != weights
    with pytest.raises(RunError, match=r"other questions: --classes was different"):
        gpt4image.distill(data=bare.folder, **asked | {"classes": [*CLASSES[:2], "red", "yellow"]})
    with pytest.raises(RunError, match=r"with 'green', which the classes now lack"):
        gpt4image.distill(data=bare.folder, **asked | {"classes": [CLASSES[0], "leaf", CLASSES[2]]})
    with pytest.raises(RunError, match="--system was different"):
        gpt4image.distill(data=bare.folder, **asked, system="Look.")
    names = {name[0]: name for name in COLOURS}
    keys = sorted(path.name for path in bare.folder.iterdir())
    cells = [names[key[0]] if int(key[1:3]) < 4 else "" for key in keys]
    table = "\n".join(["path,label", *(f"{key},{cell}" for key, cell in zip(keys, cells, strict=True))])
    (bare.folder / "labels.csv").write_text(table, encoding="utf-8")
    measured = gpt4image.distill(data=bare.folder, **asked)
    assert measured.human_labels == 12 and measured.measured_on == "3 test images"
    assert measured.text.startswith("How many of the targets of 30 training images are right is not known")
    assert "30 answers, 0 of them new" in capsys.readouterr().err, "six images are held out now"
    assert (out / "earlier-2" / "model").is_dir()


def test_what_distill_did_not_make_is_not_replaced(bare: Photos, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "run").mkdir(parents=True)
    (out / "run" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="run is there, and distill did not make it"):
        gpt4image.distill(data=bare.folder, describer=bare.replay, classes=CLASSES, out=out, ask="class", **TINY)
    assert (out / "run" / "thesis.txt").read_text(encoding="utf-8") == "mine"
    (out / RECORD).write_text('{"options": 3}', encoding="utf-8")
    with pytest.raises(RunError, match="is damaged"):
        gpt4image.distill(data=bare.folder, describer=bare.replay, classes=CLASSES, out=out, ask="class", **TINY)


def test_answers_without_what_was_asked_for_are_told(bare: Photos, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in bare.answers.read_text(encoding="utf-8").splitlines()]
    rows = [{name: line[name] for name in ("key", "class")} for line in lines]
    bare.answers.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = {"ask": BOTH, "classes": CLASSES, "out": tmp_path / "out", **TINY}
    with pytest.raises(ConfigError, match=r"no row has description; leave it out: --ask class"):
        gpt4image.distill(data=bare.folder, describer=bare.replay, **options)
    bare.answers.write_text("\n".join(map(json.dumps, [{"key": rows[0]["key"], "description": "One."}, *rows[1:]])))
    with pytest.raises(DescriberError, match=r"answered nothing that can be used.*--ask class"):
        gpt4image.distill(data=bare.folder, describer=bare.replay, **options)


def test_a_first_try_that_brought_no_answer_does_not_bind_the_next(bare: Photos, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"key": "elsewhere.jpg", "description": "x", "class": "red"}')
    options = {"classes": CLASSES, "out": tmp_path / "out", **TINY}
    with pytest.raises(ConfigError, match="belongs to an image"):
        gpt4image.distill(data=bare.folder, describer=f"replay:{tmp_path / 'other.jsonl'}", **options)
    assert gpt4image.distill(data=bare.folder, describer=bare.replay, **options).images == 36


@pytest.mark.usefixtures("openai_settings")
def test_answers_that_are_cut_or_hostile_are_skipped_by_name_and_the_others_teach(
    paid: Paid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bad: dict[bytes, Handler] = {}
    kinds: list[Handler] = [
        lambda call: answer('{"description": "A bl', finish="length"),
        lambda call: answer('{"description": "x", "class": "<script>alert(1)</script>", "confidence": 7}'),
        lambda call: failure(400, "no"),
    ]

    def handler(call: Call) -> Reply:
        if call.image not in bad and len(bad) < len(kinds) and colour_of(call) == "red":
            bad[call.image] = kinds[len(bad)]
        return bad.get(call.image, good)(call)

    with serve(handler) as stub:
        assert cli.main([*paid(stub), "--out", str(out), "--yes", "--json"]) == cli.ITEMS_SKIPPED
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["skipped"]) == 2 and all(item["name"].startswith("r") for item in facts["skipped"])
    assert facts["stages"]["describe"]["details"]["class_outside_list"] == 1, "what it says of the picture is kept"
    assert facts["without_answer"] == 2 and (out / "model").is_dir()
    assert "<script>alert" not in (out / "report.html").read_text(encoding="utf-8")


def replayed_boxes(spec: str, file: Path) -> str:
    """Return the describer that replays descriptions and boxes of the pictures of a set."""
    keys = load_dataset(spec).keys
    rows = [{"key": key, "description": f"Two squares, {key}.", "boxes": boxes_answered(key)} for key in keys]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"replay:{file}"


@pytest.mark.slow
def test_a_set_with_boxes_becomes_an_aligned_detector_as_onnx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(config: ExportConfig) -> ExportResult:  # writing ONNX takes seconds: see test_chains.py
        config.out.write_bytes(b"a detector")
        facts = dict.fromkeys(("format", "model", "checked_on", "largest_difference"), "")
        return ExportResult(path=config.out, card=config.out, classes=3, **facts)

    monkeypatch.setattr(distill, "export", export)
    spec, out = write_squares(tmp_path / "set"), tmp_path / "out"
    replay = replayed_boxes(spec, tmp_path / "boxes.jsonl")
    words = ["distill", spec, "--describer", replay, "--out", str(out), *WORDS, "--image-size", "32", "--epochs", "1"]
    assert cli.main([*words, "--compare", "1"]) == 0, capsys.readouterr().err
    shown, told = capsys.readouterr()
    assert f"ask       {replay} for description and boxes" in told and "mAP" in told
    assert f"wrote: {out / 'model'}" in shown
    assert f"next: gpt4image predict {out / 'model'}" in shown
    assert Facts.of(out / "targets.parquet").task == "detection"
    options = read_json(out / "run" / "config.json")
    assert options["task"] == "detection" and options["embeddings"] == str(out / "embeddings")
    assert read_json(out / "comparison" / "comparison.json")["arms"].keys() == {"baseline", "fused-aligned"}
    assert cli.main([*words, "--compare", "1"]) == 0
    assert capsys.readouterr().err.count("as before") == 8


def test_photographs_without_any_annotation_become_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "export", lambda config: Outcome(path=config.out))  # ONNX takes seconds
    write_squares(tmp_path / "set")
    spec, out = f"folder:{tmp_path / 'set' / 'images'}", tmp_path / "out"
    replay = replayed_boxes(spec, tmp_path / "boxes.jsonl")
    options = {**TINY, "epochs": 1, "image_size": 32, "task": "detection", "classes": ",".join(NAMES)}
    made = gpt4image.distill(data=spec, describer=replay, out=out, **options)
    assert made.model == out / "model" and made.human_labels == 0
    assert read_json(out / "run" / "config.json")["task"] == "detection"


def shapes(root: Path) -> str:
    return worlds.write_shapes(root, train=12, tagged=0)


def clips(root: Path) -> str:
    return f"clips:{write_dots(root, train=6, test=2)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "asked", "task"), [(shapes, "description,tags", "segmentation"), (clips, "description,class", "video")]
)
def test_masks_and_clips_become_models_of_theirs_as_onnx(
    draw: Callable[[Path], str], asked: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "export", lambda config: Outcome(path=config.out))
    spec, out, rows = draw(tmp_path / "set"), tmp_path / "out", list[dict[str, Any]]()
    images = load_dataset(spec)
    for row, key in enumerate(images.keys):
        names = [name for name in images.label_names(row) if name != "background"]
        rows.append({"key": key, "description": f"{names}, {row}", "class": names[0] if names else None, "tags": names})
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made = gpt4image.distill(
        data=spec, describer=f"replay:{tmp_path / 'said.jsonl'}", out=out, **{**TINY, "epochs": 1, "image_size": 32}
    )
    assert made.model == out / "model"
    options = read_json(out / RECORD)["options"]
    assert (options["ask"] or asked) == asked and options["align"] is False
    assert options["prompt"] == (["motion"] if task == "video" else ["short"])
    assert read_json(out / "run" / "config.json")["task"] == task


def several_labels(root: Path) -> str:
    folder = clips(root)
    keys = load_dataset(folder).keys
    lines = [f"{key},{'left|fast' if 'left' in key else 'right|slow'}" for key in keys]
    (root / "several.csv").write_text("\n".join(["path,labels", *lines]))
    return f"{folder}/several.csv"


def pictures(root: Path) -> str:
    worlds.write_shapes(root, train=4)
    return f"folder:{root / 'images' / 'train'}"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"align_weight": 0.5}, ConfigError, "align_weight is of the alignment; give --align too"),
        ({"ask": "boxes"}, ConfigError, "--ask boxes"),
        ({"ask": "class", "align": True}, ConfigError, "ask = class lacks the description"),
        ({"task": "multilabel"}, ConfigError, "--task multilabel needs a dataset that says so"),
        ({"epochs": 0}, ConfigError, "epochs = 0: must be greater than or equal to 1"),
        ({"model": "resnet19"}, ModelError, "resnet"),
        ({"init": "none.safetensors"}, Gpt4ImageError, "none.s"),
        ({"ask": BOTH, "encoder": "minlm"}, ConfigError, "minlm"),
        ({"data": clips, "task": "classification"}, DataError, "which --task classification does not read"),
        ({"data": several_labels}, DataError, "has several labels per clip"),
        ({"data": pictures, "task": "video", "classes": "a, b"}, DataError,
         "holds images, and --task video reads clips"),
        ({"data": pictures, "classes": "a"}, DataError, "has one class, 'a'"),
        ({"data": write_squares, "format": "timm"}, ConfigError, "timm has no models for detection"),
        ({"data": write_squares, "task": "segmentation"}, DataError, "has no masks"),
        ({"data": shapes, "task": "detection"}, DataError, "has no boxes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_asked(
    bare: Photos, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {"data": bare.folder, "classes": CLASSES, **TINY} | options
    if callable(draw := options["data"]):
        options = {"classes": None} | {name: value for name, value in options.items() if value is not CLASSES}
        options["data"] = draw(tmp_path / "set")
    with pytest.raises(error, match=message):
        gpt4image.distill(data=options.pop("data"), describer=bare.replay, out=tmp_path / "out", **options)
    assert not (tmp_path / "out" / "answers.db").exists()


N = 400


def some_targets(labelled: int, *, right: float = 0.9, several: bool = False) -> Targets:
    """Most images are surely of the first class, a tenth is doubtful; of the labels a share says the same."""
    sure = np.where(np.arange(N) % 10 == 0, 0.6, 0.95).astype(np.float32)
    labels = np.where(np.arange(N) < labelled, np.arange(N) >= right * labelled, -1)
    return Targets(
        keys=tuple(map(str, range(N))),
        digests=tuple(f"{row:064x}" for row in range(N)),
        splits=np.full(N, "train"),
        labels=np.stack([labels] * 2, axis=1) if several else labels,
        probabilities=np.stack([sure, 1 - sure], axis=1),
        out_of_fold=np.zeros((N, 2), bool) if several else labels >= 0,
        facts=Facts(classes=("a", "b"), noise=0.0, agreement=None, c=None, folds=0, seed=0, encoders=()),
    )


def worth(folder: Path, *, looks: int, right: float = 0.9, accuracy: float | None = None) -> str:
    """What is told of N targets after looks of which a share is right."""
    targets = some_targets(100, right=right)
    rows = at_random(targets.digests)[:looks]
    cells = [f"{row},{'a' if place < right * looks else 'b'},checked,{row:064x}" for place, row in enumerate(rows)]
    (folder / "audit.csv").write_text("\n".join(["path,label,review,digest", *cells]), encoding="utf-8")
    return worth_of_labels(targets, folder / "audit.csv", accuracy, "gpt4image review", "gpt4image audit")


@pytest.mark.parametrize(
    ("looks", "accuracy", "said"),
    [
        (
            0,
            None,
            "400 training images are right is not known without an audit. `audit` measures it:\n  gpt4image audit",
        ),
        (0, None, "Review the first 46 images, which by the targets hold half of the wrong ones:\n  gpt4image review"),
        (100, None, "90.4% (83.1% to 93.9%) are right, by 100 audited images. By a rule of thumb, true labels for all"),
        (100, None, "add about 1.1 points of accuracy (0 to 12.7)"),
        (100, 0.99, "add about 1.0 points of accuracy (0 to 1.0)"),
    ],
)
def test_what_labels_would_add(looks: int, accuracy: float | None, said: str, tmp_path: Path) -> None:
    assert said in worth(tmp_path, looks=looks, accuracy=accuracy)


@pytest.mark.parametrize(
    ("right", "accuracy", "held_back"), [(0.6, 0.59, True), (0.6, 0.5, False), (0.95, 0.96, False)]
)
def test_a_model_no_better_than_targets_that_are_often_wrong_is_held_back_by_them(
    right: float, accuracy: float, held_back: bool, tmp_path: Path
) -> None:
    found = worth(tmp_path, looks=100, right=right, accuracy=accuracy)
    assert ("they hold it back" in found) == held_back and ("By a rule of thumb" in found) != held_back


@pytest.mark.parametrize(("common", "found"), [(19, "there are 19"), (40, "scores +25.0 points more than")])
def test_a_model_is_compared_with_an_earlier_one_on_images_at_random_that_neither_learned_from(
    common: int, found: str, tmp_path: Path
) -> None:
    images = in_memory([str(row).encode() for row in range(N)], sampled=np.where(np.arange(N) < 60, "random", "doubt"))
    for folder, count, wrong in (("", 60, 0), ("earlier-1", common, common // 4)):
        rows = {
            "digest": images.digests[:count],
            "label": [0] * count,
            "score": [0.0] * wrong + [1.0] * (count - wrong),
        }
        (tmp_path / folder / "run").mkdir(parents=True)
        pq.write_table(pa.table(rows), tmp_path / folder / "run" / "predictions-test.parquet")
    config = DistillConfig(data="photos", describer="openai:m", out=tmp_path)
    assert found in distill._gain(config, images)
    assert distill._gain(config, images.revised(sampled=None)) == ""
