import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts.store import Prompt
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.table import write_manifest as finish_table
from gpt4image.artifacts.targets import Targets, load_targets
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.config import DescribeConfig, ImportDescriptionsConfig, LabelConfig
from gpt4image.data import load_dataset, load_with_splits
from gpt4image.data.regions import Boxes
from gpt4image.describing.describe import describe
from gpt4image.describing.descriptions import import_descriptions
from gpt4image.labelling.label import label
from tables import make_table, write_lines, write_store
from worlds import NAMES, answer_squares, encoded, write_squares

CLASSES = ("cat", "<b>dog</b>", "owl")
PER_CLASS = 30
WRONG = ("1-00.png", "2-00.png")  # called cats


def picture(seed: int) -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 15, 3), np.uint8)))


def write_manifest(folder: Path, label_of: dict[str, str], split_of: dict[str, str]) -> str:
    with (folder / "set.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        rows.writerows((name, label_of[name], split_of[name]) for name in sorted(label_of))
    return f"manifest:{folder / 'set.csv'}"


@pytest.fixture
def given(tmp_path) -> dict[str, dict[str, str]]:
    """90 pictures in three classes; two training pictures are called cats wrongly."""
    labels, splits = {}, {}
    for number in range(len(CLASSES)):
        for i in range(PER_CLASS):
            name = f"{number}-{i:02}.png"
            (tmp_path / name).write_bytes(picture(100 * number + i))
            labels[name] = CLASSES[number]
            splits[name] = "train" if i < 20 else "val" if i < 25 else "test"
    for name in WRONG:
        labels[name] = "cat"
    return {"label": labels, "split": splits}


def table_of(folder: Path, spec: str, name: str = "table", width: int = 16, described: int = 90) -> EmbeddingTable:
    """Embeddings around one direction for each true class, which the file name gives."""
    images = load_with_splits(spec, val_fraction=0.1, test_fraction=0.2)
    rng = np.random.default_rng(width)
    centres = rng.standard_normal((len(CLASSES), width))
    vectors = {}
    for key, digest in list(zip(images.keys, images.digests, strict=True))[:described]:
        vector = centres[int(Path(key).name[0])] + 0.3 * rng.standard_normal(width)
        vectors[digest] = [vector / np.linalg.norm(vector)]
    return make_table(folder / name, vectors)


def run(tmp_path, spec, **options):
    return label(LabelConfig(data=spec, embeddings=tmp_path / "table", out=tmp_path / "out.parquet", **options))


def test_wrong_labels_come_first_and_are_shown(tmp_path, given):
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table_of(tmp_path, spec)
    outcome = run(tmp_path, spec)
    found = Targets.load(tmp_path / "out.parquet")
    assert {Path(found.keys[i]).name for i in np.argsort(-np.nan_to_num(found.doubt))[:2]} == set(WRONG)
    assert outcome.quality["val_accuracy"] > 0.95
    assert outcome.coverage == 1.0
    assert all(name in outcome.text for name in WRONG)
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("<article") == page.count("data:image/webp;base64,") == outcome.suspected
    assert "<dt>given label</dt><dd><bdi>cat</bdi></dd>" in page
    assert "&lt;b&gt;dog" in page
    assert "<b>dog" not in page
    assert "http:" not in page
    assert "https:" not in page


def test_it_says_how_much_the_texts_explain_and_warns_only_where_that_is_little(tmp_path, given):
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table = table_of(tmp_path, spec)
    clear = run(tmp_path, spec)
    assert clear.quality["labels_explained"] > 0.7 and "Training keeps" not in clear.text
    assert "The names of the classes are not read: Unknown text encoder: 'given'" in clear.text
    digests = [bytes(digest).hex() for digest in table.digests]
    vectors = table.vectors(digests)[0]
    noise = np.random.default_rng(0).standard_normal((len(digests), 16)) / 4.0
    for part, expected in ((0.3, "% of what"), (0.0, "are uninformative for these classes")):
        mixed = part * vectors + (1 - part) * noise
        make_table(tmp_path / "table", {digest: mixed[i : i + 1] for i, digest in enumerate(digests)})
        vague = run(tmp_path, spec)
        assert vague.noise == 0.0
        assert (vague.quality["labels_explained"] >= 0.05) == (part > 0), vague.quality["labels_explained"]
        assert vague.quality["labels_explained"] < 0.5 and expected in vague.text
        assert ("Look at what was answered" in vague.text) == (vague.quality["labels_explained"] < 0.2)


def test_labels_of_val_and_test_are_not_learned_from(tmp_path, given):
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table_of(tmp_path, spec)
    run(tmp_path, spec)
    before = Targets.load(tmp_path / "out.parquet")
    moved = {
        name: value if given["split"][name] == "train" else CLASSES[(CLASSES.index(value) + 1) % 3]
        for name, value in given["label"].items()
    }
    outcome = run(tmp_path, write_manifest(tmp_path, moved, given["split"]))
    after = Targets.load(tmp_path / "out.parquet")
    assert np.array_equal(before.probabilities, after.probabilities)
    assert (after.labels[after.splits != "train"] == -1).all()
    assert outcome.quality["val_accuracy"] < 0.05


def test_a_broken_picture_costs_only_itself(tmp_path, given):
    broken = tmp_path / WRONG[0]
    broken.write_bytes(broken.read_bytes()[:300])
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table_of(tmp_path, spec)
    outcome = run(tmp_path, spec)
    assert [Path(item.name).name for item in outcome.skipped] == [WRONG[0]]
    assert "no picture" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert len(Targets.load(tmp_path / "out.parquet").keys) == 90


def test_the_page_shows_the_texts_that_were_read_and_no_others(tmp_path, given):
    spec = write_manifest(tmp_path, given["label"], given["split"])
    images = load_with_splits(spec, val_fraction=0.1, test_fraction=0.2)
    digest = images.digests[[Path(key).name for key in images.keys].index(WRONG[0])]
    told = Prompt(name="class-conditioned", version=1, text="A {class_name}.", class_conditioned=True)
    manifest = table_of(tmp_path, spec).manifest
    rows = ({"prompt": prompt, "text": f"By {prompt.name}."} for prompt in (told, *manifest.prompts))
    write_store(tmp_path / "texts.db", rows, digest=digest)
    made_of = dataclasses.replace(manifest, store=str(tmp_path / "texts.db"))
    finish_table(tmp_path / "table", made_of)
    run(tmp_path, spec)
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "“By paper.”" in page
    assert "class-conditioned" not in page
    assert Targets.load(tmp_path / "out.parquet").facts.embeddings == (str(tmp_path / "table"),)


def test_sets_and_texts_that_cannot_be_learned_from_are_refused(tmp_path, given):
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table_of(tmp_path, spec)
    train = {name for name, split in given["split"].items() if split == "train"}

    unlabelled = {name: "" if name in train else value for name, value in given["label"].items()}
    with pytest.raises(TableError, match="There is no label, no answer and no class name"):
        run(tmp_path, write_manifest(tmp_path, unlabelled, given["split"]))

    one_class = {n: v if n.startswith("0") else "" for n, v in given["label"].items()}
    with pytest.raises(DataError, match="has one class, 'cat': there is nothing to tell apart"):
        run(tmp_path, write_manifest(tmp_path, one_class, given["split"]))

    spec = write_manifest(tmp_path, given["label"], given["split"])
    make_table(tmp_path / "table", {"0" * 64: [np.eye(16)[0]]})
    with pytest.raises(TableError, match="None of the 60 training images"):
        run(tmp_path, spec)
    spec = write_manifest(tmp_path, given["label"], given["split"])
    manifest = table_of(tmp_path, spec).manifest
    told = dataclasses.replace(manifest.prompts[0], class_conditioned=True)
    finish_table(tmp_path / "table", dataclasses.replace(manifest, prompts=(told,)))
    with pytest.raises(TableError, match="told the class"):
        run(tmp_path, spec)
    assert not (tmp_path / "out.parquet").exists()


def test_wrong_labels_are_no_measure_of_the_texts_and_need_not_be_shown(tmp_path, given):
    for number in range(len(CLASSES)):
        for i in range(40):  # of fewer than a hundred labels, few are sure enough to tell how many are wrong
            name = f"{number}-{i:02}.png"
            (tmp_path / name).write_bytes(picture(100 * number + i))
            wrong = (number + 1 + i % 8 // 4) % 3 if i % 4 == 0 else number
            given["label"][name], given["split"][name] = CLASSES[wrong], "train"
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table_of(tmp_path, spec, described=120)
    outcome = run(tmp_path, spec)
    assert outcome.noise > 0.1
    assert outcome.quality["agreement_with_given_labels"] < 0.85
    assert not {"cross_validated_accuracy", "calibration_error"} & outcome.quality.keys()
    assert "calibration cannot be measured" in outcome.text and "--label-trust 0.5" in outcome.text
    assert "Labels that agree with the evidence: 7" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert outcome.suspected > 0


@pytest.fixture
def unlabelled(tmp_path: Path, given: dict[str, dict[str, str]]) -> tuple[str, Path]:
    """The pictures without any label, and a store of answers about them, every tenth of which is wrong and unsure."""
    for name in given["label"]:
        given["label"][name] = ""
    spec = write_manifest(tmp_path, given["label"], given["split"])
    rows: list[dict[str, object]] = []
    for number, name in enumerate(sorted(given["label"])):
        wrong = number % 10 == 0
        rows.append({"key": name, "class": CLASSES[(int(name[0]) + wrong) % 3], "confidence": 0.5 if wrong else 0.95})
    file, store = write_lines(tmp_path / "answers.jsonl", rows), tmp_path / "answers.db"
    import_descriptions(ImportDescriptionsConfig(file=file, data=spec, store=store, classes=",".join(CLASSES)))
    return spec, store


def test_no_label_is_needed_and_texts_speak_against_wrong_answers(tmp_path, unlabelled):
    spec, store = unlabelled
    table_of(tmp_path, spec)
    run(tmp_path, spec, answers=store, features="none")
    found = Targets.load(tmp_path / "out.parquet")
    true = np.array([int(Path(key).name[0]) for key in found.keys])
    assert set(found.classes) == set(CLASSES) and found.facts.evidence == "fused" and found.facts.answered == 90
    of_truth = found.probabilities[np.arange(90), [found.classes.index(CLASSES[k]) for k in true]]
    wrong = [sorted(Path(key).name for key in found.keys).index(Path(key).name) % 10 == 0 for key in found.keys]
    assert (of_truth[~np.array(wrong)] > 0.95).all()
    assert of_truth[wrong].mean() > 0.3, "texts speak against answers that are wrong, which leave it 0.25"
    assert found.facts.weights["answers"] > found.facts.weights["taught"] > 0
    assert not found.out_of_fold.any() and (found.labels == -1).all()
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    sure, disagree = (page.split(f"<h2>{name}</h2>")[1] for name in ("The least sure targets", "Sources disagree"))
    train = int((found.splits == "train").sum())
    assert f"24 of {train} images without a label, the least sure first." in sure
    assert "<dt>answer</dt>" in disagree and "<dt>description</dt>" in disagree
    counts = re.findall(r'"Training images">([\d,]+)</td>', page.split("<h2>Targets per class</h2>")[1])
    assert len(counts) == 3 and sum(map(int, counts)) == train


def test_it_is_told_how_often_answers_are_right(tmp_path, unlabelled, given):
    few = {name: CLASSES[int(name[0])] if number < 60 else "" for number, name in enumerate(sorted(given["label"]))}
    spec = write_manifest(tmp_path, few, given["split"])
    outcome = label(LabelConfig(data=spec, answers=unlabelled[1], features="none", out=tmp_path / "out.parquet"))
    labelled = outcome.counts["accuracy_of_answers"]
    assert 30 < labelled <= 60 and outcome.quality["accuracy_of_answers"] == pytest.approx(0.9, abs=0.06)


def test_a_promise_about_the_error_leaves_other_images_without_a_target(tmp_path, given):
    spec = write_manifest(tmp_path, given["label"], given["split"])
    table_of(tmp_path, spec)
    images = load_with_splits(spec, val_fraction=0.1, test_fraction=0.2)
    lines = ["path,label,split,review,digest"]
    for key, digest in zip(images.keys, images.digests, strict=True):  # of one in ten the person says another class
        name = CLASSES[(int(key[0]) + (key[3] == "7")) % 3]
        lines.append(f"{key},{name},train,checked,{digest}")
    (tmp_path / "audit.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = run(tmp_path, spec, max_error=0.1, audit=tmp_path / "audit.csv")
    targets = Targets.load(tmp_path / "out.parquet")
    assert 0 < found.promised == len(targets.keys) <= 60 < found.images and set(targets.splits) == {"train"}
    assert found.notes[0].startswith(f"At most 10.0% of the {found.promised} targets are wrong")


def test_evidence_has_to_be_given():
    with pytest.raises(ConfigError, match="answers or --embeddings DIR"):
        LabelConfig(data="openmoji", out=Path("out.parquet"))
    with pytest.raises(ConfigError, match="embeddings is not given, and --evidence names reads it"):
        LabelConfig(data="openmoji", out=Path("out.parquet"), answers=Path("a.db"), evidence="names")
    with pytest.raises(ConfigError, match=r"ends with \.parquet; `gpt4image export-labels` writes"):
        LabelConfig(data="openmoji", out=Path("out.csv"), answers=Path("a.db"))


HOSTILE = ("=cmd|'/c calc'!A1", "<script>alert(1)</script>", "\x1b[31mblue")


def config(spec: str, store: Path, **more: object) -> LabelConfig:
    return LabelConfig(**{"data": spec, "answers": store, "out": store.with_name("boxes.parquet"), **more})


def test_boxes_of_train_are_human_ones_and_others_follow_the_convention(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set")
    store = answer_squares(spec, tmp_path / "a.db")
    outcome = label(config(spec, store, val_fraction=0.3))
    found = load_targets(tmp_path / "boxes.parquet")
    images = load_dataset(spec)
    assert isinstance(images.regions, Boxes)
    assert found.classes == images.classes == NAMES
    assert found.human.sum() == outcome.labelled < len(found.keys) == len(images)
    true = images.regions[[images.keys.index(key) for key in found.keys]]
    learned = found.human
    for image in range(len(found.keys)):
        corners, labels, weights = found.boxes.image(image)
        assert np.array_equal(labels[weights > 0], true.image(image)[1])
        assert np.allclose(corners[weights > 0], true.image(image)[0], atol=0.001)
        assert len(labels) == (1 if learned[image] else 2), "the square at the border is an ignore region"
    assert outcome.quality["precision_of_answers"] == 0.5
    assert outcome.quality["precision_of_teacher_on_val"] == outcome.quality["recall_of_teacher_on_val"] == 1.0
    assert "No suspected errors" in outcome.text and "taken at their word" not in outcome.text


def test_wrong_boxes_are_listed_and_drawn(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set", names=HOSTILE)
    store = answer_squares(spec, tmp_path / "a.db", names=HOSTILE)
    file = tmp_path / "set" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [0, 22, 6, 8]
    file.write_text(json.dumps(content))
    outcome = label(config(spec, store, val_fraction=0.0))
    page = (tmp_path / "boxes.html").read_text()
    assert outcome.suspected >= 2
    assert page.count("<svg>") >= 2 and 'class="human"' in page and 'class="teacher"' in page
    assert "<script>alert" not in page and "\x1b" not in page
    assert all(f"<h2>{kind}</h2>" in page for kind in ("missing", "false"))
    assert "\x1b" not in outcome.text and "images/train0.png" in outcome.text


def test_no_human_box_is_needed(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set")
    store = answer_squares(spec, tmp_path / "a.db", truncated=False)
    folder = f"folder:{tmp_path / 'set' / 'images'}"
    outcome = label(config(folder, store, task="detection", classes=",".join(NAMES)))
    found = load_targets(tmp_path / "boxes.parquet")
    assert not found.human.any() and (found.boxes.weights > 0.5).all()
    assert len(found.boxes.labels) == 2 * len(found.keys)
    assert "Annotate a few images" in outcome.text
    with pytest.raises(ConfigError, match=r"labels of .* are of multilabel"):
        label(config(spec, store, task="classification"))


def test_boxes_in_another_convention_are_told_where_they_fit_no_human_box(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set")
    images = load_dataset(spec)
    rows = [  # pixels, where thousandths are expected
        {"key": key, "boxes": [{"label": NAMES[images.regions.image(row)[1][0]], "box_2d": box}]}
        for row, key in enumerate(images.keys)
        if isinstance(images.regions, Boxes)
        for box in (images.regions.image(row)[0] * 32).tolist()
    ]
    write_lines(tmp_path / "a.jsonl", rows)
    told = {}
    for name in ("xyxy-1000", "xyxy-original"):
        asked = {"data": spec, "describer": f"replay:{tmp_path / 'a.jsonl'}", "ask": "boxes", "box_format": name}
        describe(DescribeConfig(store=tmp_path / f"{name}.db", splits="train,val,test", **asked))
        told[name] = label(config(spec, tmp_path / f"{name}.db", val_fraction=0.0)).text
    assert "Only 0.0% of the human boxes have an answered box. The numbers may be in another" in told["xyxy-1000"]
    assert "convention" not in told["xyxy-original"]
