from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gpt4image.artifacts import runs
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, ModelError, TableError
from gpt4image.base.outcome import Outcome
from gpt4image.comparing.arms import ArmInputs, training_data
from gpt4image.config import LabelConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.config.learning import Evidence
from gpt4image.data import load_dataset
from gpt4image.labelling.evidence import Answers
from gpt4image.labelling.label import label
from gpt4image.labelling.noise import contradicted, noise_by_evidence, suspected_errors
from gpt4image.labelling.pictures import Pictures, read_pictures
from gpt4image.labelling.sources import predict_labels
from gpt4image.labelling.teaching import predict_training, targets_of
from gpt4image.labelling.texts import Texts, unit
from gpt4image.models.backbones import pretrained_weights
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.prepare import prepare
from gpt4image.training.run_model import RunModel
from gpt4image.training.targets import blend
from tables import make_table

CLASSES = 5


def made(count: int, seed: int, right: float = 0.85) -> tuple[Texts, Answers, NDArray]:
    """Images whose texts lie around one direction per class, with answers that are as sure as they are right."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, count)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0][:CLASSES]
    vectors = centres[true] + 0.5 * rng.standard_normal((count, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    confidence = np.where(rng.random(count) < 0.5, 0.97, 2 * right - 0.97).astype(np.float32)
    first = np.where(rng.random(count) < confidence, true, (true + rng.integers(1, CLASSES, count)) % CLASSES)
    texts = Texts(vectors.astype(np.float32), np.ones(count, bool), centres.astype(np.float32))
    return texts, Answers(first, np.full(count, -1), confidence), true


def kept(true: NDArray, count: int) -> NDArray:
    return np.where(np.arange(len(true)) < count, true, -1)


def accuracy(probabilities: NDArray, true: NDArray) -> float:
    return float((probabilities.argmax(axis=1) == true).mean())


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_were_in_doubt_correct_their_image_and_do_not_judge_the_evidence(several: bool) -> None:
    texts, answers, true = made(400, 0)
    wrong = np.flatnonzero(answers.first != true)[:30]
    labels, judging = np.full(400, -1), np.ones(400, bool)
    labels[wrong], judging[wrong] = true[wrong], False
    if several:
        eye = np.eye(CLASSES, dtype=np.int8)
        labels = np.where(labels[:, None] >= 0, eye[labels], -1)
        answers = Answers(eye[answers.first], np.full((400, CLASSES), -1), np.full((400, CLASSES), 0.9, np.float32))
    without = predict_labels(texts, np.full_like(labels, -1), CLASSES, 0, answers=answers)
    found = predict_labels(texts, labels, CLASSES, 0, answers=answers, judging=judging)
    assert not found.out_of_fold.any() and found.noise.rate == 0
    assert (found.probabilities[:].argmax(axis=1)[wrong] == true[wrong]).all()
    others = np.delete(np.arange(400), wrong)
    assert accuracy(found.probabilities[others], true[others]) >= accuracy(without.probabilities[others], true[others])
    judged = predict_labels(texts, labels, CLASSES, 0, answers=answers)
    assert (judged.probabilities[:].argmax(axis=1)[wrong] != true[wrong]).any() or several


@pytest.mark.parametrize("labelled", [0, 25])
def test_all_evidence_is_at_least_as_good_as_its_best_part(labelled: int):
    texts, answers, true = made(400, 0)
    given_labels, hidden = kept(true, labelled), np.arange(400) >= labelled

    def right(evidence: Evidence) -> float:
        found = predict_labels(texts, given_labels, CLASSES, 0, answers=answers, evidence=evidence)
        assert found.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-4)
        assert (found.out_of_fold == (given_labels >= 0)).all()
        return accuracy(found.probabilities[hidden], true[hidden])

    alone = max(right("answers"), right("texts"), right("names"))
    assert right("fused") >= alone - 0.01


@pytest.mark.parametrize("by_class", [False, True])
def test_wrong_labels_are_found_by_evidence_that_has_not_read_them(by_class: bool):
    texts, answers, true = made(400, 2)
    rng = np.random.default_rng(3)
    wrong = rng.random(400) < 0.4
    step = np.ones(400, int) if by_class else rng.integers(1, CLASSES, 400)
    labels = np.where(wrong, (true + step) % CLASSES, true)
    found = predict_labels(texts, labels, CLASSES, 0, answers=answers)
    assert found.noise.rate == pytest.approx(0.4, abs=0.08)
    rows = suspected_errors(found.probabilities, labels, found.out_of_fold, contradicted(labels, found.said))[:, 0]
    assert np.isin(np.flatnonzero(wrong), rows).mean() > 0.88
    sure = contradicted(labels, found.said)
    first = sure[rows].sum()
    assert sure[rows[:first]].all() and first > 0.9 * sure.sum() and wrong[sure].mean() > 0.9
    assert (np.asarray(found.probabilities).argmax(axis=1) != labels)[rows].all(), "none is given as it is predicted"


def test_texts_that_predict_the_labels_clear_them_of_what_the_answers_say():
    rng = np.random.default_rng(4)
    true = rng.integers(0, CLASSES, 500)
    boast = np.where(rng.random(500) < 0.6, true, (true + 1) % CLASSES)  # wrong for 40 %, and sure of itself
    free = Answers(boast, np.full(500, -1), np.full(500, 0.95, np.float32)).probabilities(CLASSES)
    assert noise_by_evidence(free, true, None, 0)[0].rate > 0.2
    sure, probable = noise_by_evidence(free, true, 0.2, 0)
    assert sure.rate == probable.rate == 0.0


def test_each_image_is_predicted_by_what_is_known_of_it():
    texts, answers, true = made(400, 5)
    texts.described[:100] = False
    answers.first[50:150] = -1
    found = predict_labels(texts, kept(true, 0), CLASSES, 0, answers=answers)
    assert not found.known[50:100].any() and found.known[:50].all() and found.known[100:].all()
    assert accuracy(found.probabilities[:50], true[:50]) > 0.7 < accuracy(found.probabilities[100:150], true[100:150])
    assert found.said["answers"][60] == found.said["taught"][60] == -1
    labels = kept(true, 200)
    assert predict_labels(texts, labels, CLASSES, 0, answers=answers).out_of_fold.sum() == 150


def test_evidence_that_is_not_there_is_named():
    texts, answers, true = made(60, 7)
    nothing = kept(true, 0)
    with pytest.raises(TableError, match="There is no label, no answer"):
        predict_labels(texts._replace(names=None), nothing, CLASSES, 0)
    with pytest.raises(TableError, match="give its store as --answers"):
        predict_labels(texts, nothing, CLASSES, 0, evidence="answers")
    with pytest.raises(TableError, match="text encoder"):
        predict_labels(texts._replace(names=None), nothing, CLASSES, 0, answers=answers, evidence="names")
    one = Answers(np.zeros(60, int), answers.second, answers.confidence)
    with pytest.raises(TableError, match="answers of at least two classes"):
        predict_labels(texts, nothing, CLASSES, 0, answers=one, evidence="texts")


def test_tags_are_calibrated_class_by_class():
    rng = np.random.default_rng(8)
    true = (rng.random((400, 3)) < [0.3, 0.5, 0.7]).astype(np.int8)
    vectors = (true @ rng.standard_normal((3, 16)) + 0.7 * rng.standard_normal((400, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.where(rng.random((400, 3)) < [0.02, 0.02, 0.45], 1 - true, true).astype(np.int64)
    tags = Answers(first, np.full_like(first, -1), np.full(first.shape, 0.85, np.float32))
    texts = Texts(vectors, np.ones(400, bool))
    right = []
    for labelled in (0, 100):
        labels = np.where(np.arange(400)[:, None] < labelled, true, np.int8(-1))
        found = predict_labels(texts, labels, 3, 0, answers=tags).probabilities
        right.append(((found[100:] >= 0.5) == true[100:]).mean(axis=0))
        assert ((found >= 0) & (found <= 1)).all()
    assert right[0][:2].min() > 0.9 and right[1][2] > right[0][2] + 0.1, "a tag that says little is not trusted"
    with pytest.raises(TableError, match="here images have several"):
        predict_labels(texts, labels, 3, 0, answers=tags, evidence="names")


def test_a_stranger_without_a_label_has_no_target():
    texts, answers, true = made(300, 2)
    none = np.arange(300) >= 290
    said = answers._replace(first=np.where(none, -1, answers.first), none=none)
    labels = np.where(np.arange(300) == 299, true, -1)
    found = predict_labels(texts, labels, CLASSES, 0, answers=said)
    assert not found.known[290:299].any() and found.known[:290].all()
    assert found.known[299], "a person has labelled it"


def test_each_describer_is_a_source_with_a_weight():
    texts, good, true = made(400, 4)
    rng = np.random.default_rng(5)
    bad = good._replace(first=rng.integers(0, CLASSES, 400), second=np.full(400, -1))
    both = good._replace(by={"good": good, "bad": bad})
    found = predict_labels(texts, kept(true, 0), CLASSES, 0, answers=both)
    assert found.weights.keys() >= {"answers of good", "answers of bad"}
    assert found.unrelated.keys() == {"answers of bad"} and found.unrelated["answers of bad"] > 0.5
    assert accuracy(found.probabilities, true) > accuracy(good.probabilities(CLASSES), true) - 0.02


def too_sure(true: NDArray, seed: int) -> Answers:
    """Answers of which a fifth is wrong, each as sure as the others."""
    wrong = np.random.default_rng(seed).random(len(true)) < 0.2
    first = np.where(wrong, (true + 1 + np.arange(len(true)) % (CLASSES - 1)) % CLASSES, true)
    return Answers(first, np.full(len(true), -1), np.full(len(true), 0.97, np.float32))


def test_pictures_are_read_beside_answers_and_correct_them():
    true = np.random.default_rng(6).integers(0, CLASSES, 500)
    answers, rng = too_sure(true, 6), np.random.default_rng(7)
    clear = rng.uniform(0.0, 0.12, (500, 1))  # some pictures are harder than others
    features = (np.eye(CLASSES, 300)[true] + clear * rng.normal(size=(500, 300))).astype(np.float32)
    seen = np.arange(500) < 490
    pictures = Pictures(features, seen)
    none = Texts.none(500)
    found = predict_labels(none, kept(true, 0), CLASSES, 0, answers=answers, pictures=pictures)
    assert accuracy(found.probabilities, true) > accuracy(answers.probabilities(CLASSES), true) + 0.1
    principal = pictures.principal(np.arange(400)).vectors
    assert principal.shape == (500, 256) and not principal[490:].any()
    assert np.linalg.norm(principal[:490], axis=1) == pytest.approx(1, abs=1e-4)


def test_images_without_an_answer_have_the_classes_of_similar_pictures_as_surely_as_these_are_right():
    true, rng = np.random.default_rng(6).integers(0, CLASSES, 900), np.random.default_rng(7)
    answers, asked = too_sure(true, 6), np.arange(900) < 300
    first, none = np.where(asked, answers.first, -1), np.arange(900) == 899
    answers = Answers(first, np.full(900, -1), answers.confidence, none=none)
    features = (np.eye(CLASSES, 40)[true] + 0.35 * rng.normal(size=(900, 40))).astype(np.float32)
    seen = np.arange(900) != 898
    found = predict_labels(
        Texts.none(900), kept(true, 0), CLASSES, 0, answers=answers, pictures=Pictures(features, seen)
    )
    assert found.known.sum() == 898, "neither a picture that cannot be read nor one of no class has a target"
    others = found.probabilities[300:898]
    assert accuracy(others, true[300:898]) > 0.85 and np.isclose(others.sum(axis=1), 1.0, atol=1e-4).all()
    assert others.max(axis=1).mean() < accuracy(others, true[300:898]), "a fifth of the answers is wrong, and it knows"
    noise = Pictures(rng.normal(size=(900, 40)).astype(np.float32), seen)
    empty = predict_labels(Texts.none(900), kept(true, 0), CLASSES, 0, answers=answers, pictures=noise)
    assert empty.known.sum() == 300, "pictures that tell nothing make no target"


def test_labelled_pictures_outweigh_answers_that_are_often_wrong():
    """Right for 45 %, as sure as they are right: labels alone would teach more, and are not taken for wrong ones."""
    rng = np.random.default_rng(10)
    true = rng.integers(0, CLASSES, 600)
    first = np.where(rng.random(600) < 0.45, true, rng.integers(0, CLASSES, 600))
    weak = Answers(first, np.full(600, -1), rng.uniform(0.3, 0.7, 600).astype(np.float32))
    features = (np.eye(CLASSES, 40)[true] + 0.35 * rng.normal(size=(600, 40))).astype(np.float32)
    pictures = Pictures(features, np.ones(600, bool))
    found = predict_labels(Texts.none(600), kept(true, 60), CLASSES, 0, answers=weak, pictures=pictures)
    learned = (found.said["pictures of labels"] == true).mean()
    assert learned > accuracy(weak.probabilities(CLASSES), true) + 0.1
    assert accuracy(found.probabilities, true) > learned + 0.01
    assert found.noise.rate == 0.0


def test_one_kind_of_evidence_overrules_no_given_label():
    true = np.random.default_rng(8).integers(0, CLASSES, 600)
    found = predict_labels(Texts.none(600), true, CLASSES, 0, answers=too_sure(true, 9))
    assert found.single_source is not None and found.single_source.all()
    texts = made(600, 8)[0]
    for evidence, single_source in (("answers", True), ("fused", False)):
        both = predict_labels(texts, true, CLASSES, 0, answers=too_sure(true, 9), evidence=evidence)
        assert both.single_source is not None and both.single_source.all() == single_source, evidence
    targets = blend(found.probabilities[:], true, found.noise, None if found.noise.rate else 0.5, found.single_source)
    assert (targets.argmax(axis=1) == true).all()


THINGS = ("hat", "<b>bag</b>", "belt")


def corpus(n: int, seed: int = 0, noise: float = 0.2) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Presence of three classes (n, 3), and texts that mention what is present: (n, 16)."""
    rng = np.random.default_rng(seed)
    present = (rng.random((n, 3)) < 0.4).astype(np.int8)
    return present, unit(present @ np.eye(3, 16) + noise * rng.standard_normal((n, 16)) + np.eye(16)[15])


def texts(vectors: NDArray[np.float32], described: NDArray[np.bool_] | None = None) -> Texts:
    return Texts(vectors, np.ones(len(vectors), bool) if described is None else described)


def hidden(labels: NDArray[np.int8], kept: int) -> NDArray[np.int8]:
    return np.where(np.arange(len(labels))[:, None] < kept, labels, np.int8(-1))


def test_few_labels_tell_the_classes_of_the_rest_and_names_help() -> None:
    true, vectors = corpus(300, noise=0.5)
    given = hidden(true, 12)
    names = np.eye(3, 16, dtype=np.float32)
    plain = predict_labels(texts(vectors), given, 3, 0)
    named = predict_labels(Texts(vectors, np.ones(300, bool), names), given, 3, 0)

    def score(probabilities: NDArray[np.float32]) -> float:
        return MultiLabel().measure(probabilities[12:], true[12:], THINGS)["mAP"]

    assert score(named.probabilities) > score(plain.probabilities) + 0.02 > 0.6, "chance is 0.4"
    assert named.names > 0.5 and plain.names == 0 and plain.noise.rate == 0
    assert plain.out_of_fold.shape == given.shape and not plain.out_of_fold[12:].any()
    assert plain.agreement is not None and plain.agreement > 0.6


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """60 pictures of a manifest, a table that tells their classes, and one wrong label: 05.png has no hat."""
    true, vectors = corpus(60, seed=3, noise=0.1)
    true[5] = [0, 1, 0]
    vectors[5] = unit((np.eye(16)[1] + np.eye(16)[15])[None])[0]
    rows = ["path,labels,split"]
    for i, present in enumerate(true):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{i:02}.png")
        names = "|".join(name for name, there in zip(THINGS, present, strict=True) if there) + "|"
        given = "" if 30 <= i < 40 else f"hat|{names}" if i == 5 else names
        rows.append(f"{i:02}.png,{given},{'train' if i < 40 else 'val' if i < 50 else 'test'}")
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    spec = f"manifest:{tmp_path / 'set.csv'}"
    images = load_dataset(spec)
    number = [int(Path(key).stem) for key in images.keys]
    make_table(tmp_path / "table", {d: [vectors[i]] for i, d in zip(number, images.digests, strict=True)})
    return spec


def run(spec: str, folder: Path, **options: object) -> Outcome:
    given = {"data": spec, "embeddings": folder / "table", "out": folder / "labels.parquet", **options}
    return label(LabelConfig.model_validate(given))


def test_label_writes_shows_and_measures_them(spec: str, tmp_path: Path) -> None:
    outcome = run(spec, tmp_path)
    found = Targets.load(tmp_path / "labels.parquet")
    assert (found.facts.task, found.labels.shape, found.labels.dtype) == ("multilabel", (60, 3), np.int8)
    assert found.classes == tuple(sorted(THINGS)) and found.out_of_fold.sum() == 90
    assert (found.labels[found.splits != "train"] == -1).all()
    assert outcome.labelled == 30 and outcome.classes_without_label == 0
    assert outcome.quality["val_mAP"] > 0.9 and outcome.quality["cross_validated_mAP"] > 0.8
    assert 0.3 < outcome.quality["labels_explained"] < 1
    assert outcome.quality["calibration_error"] is None, "of so few labels it would be chance"
    row = found.keys.index(next(key for key in found.keys if key.endswith("05.png")))
    assert found.doubt[row, found.classes.index("hat")] == np.nanmax(found.doubt) > 0.5
    assert outcome.suspected >= 1
    assert "hat: present" in outcome.text and "hat: absent" in outcome.text
    page = (tmp_path / "labels.html").read_text(encoding="utf-8")
    assert outcome.noise is None and "share of wrong labels" not in page  # it is not estimated here
    assert "hat: present" in page and "<dt>predicted</dt><dd><bdi>hat: absent</bdi>" in page and "<b>bag" not in page


def test_an_arm_of_a_comparison_learns_from_texts(spec: str, tmp_path: Path) -> None:
    config = TrainConfig(data=spec, out=tmp_path, image_size=16, batch_size=4, embeddings=tmp_path / "table")
    data = prepare(config).data
    train = data.indices("train")
    found = predict_training(data, 0, None)
    assert found.probabilities.shape == found.out_of_fold.shape == (len(train), 3)
    given = ArmInputs(
        data=data, true_labels=data.labels, class_names=None, targets=lambda: targets_of(found, data, None), seed=0
    )
    soft, expected = training_data(ARMS["text-labels"], given).soft, found.probabilities
    assert soft is not None and np.isnan(np.delete(soft, train, axis=0)).all()
    has = data.image_set.labelled[train]
    assert soft[train][~has] == pytest.approx(expected[~has], abs=1e-6)
    assert soft[train][has] == pytest.approx((expected[has] + data.labels[train][has]) / 2, abs=1e-6)


MODEL = "tf_efficientnet_lite0"


def test_only_new_pictures_are_read_and_a_broken_one_is_named(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pretrained_weights(MODEL) != "here":
        pytest.skip(f"the weights of {MODEL} are not installed")
    broken = colour_folder / "red" / "broken.png"
    broken.write_bytes((colour_folder / "red" / "00.png").read_bytes()[:60])
    folder, spec = tmp_path / "t.features", f"folder:{colour_folder}"
    images = load_dataset(spec)
    pictures, skipped = read_pictures(images, np.ones(len(images), bool), "auto", folder)
    assert pictures is not None and pictures.seen.sum() == 48 and [item.name for item in skipped] == ["red/broken.png"]
    assert np.linalg.norm(pictures.vectors[pictures.seen].astype(float), axis=1) == pytest.approx(1, abs=1e-2)

    read: list[int] = []
    whole = RunModel.read

    def counted(self: RunModel, pixels, indices, **options):
        read.append(len(indices))
        return whole(self, pixels, indices, **options)

    monkeypatch.setattr(RunModel, "read", counted)
    broken.unlink()
    (colour_folder / "red" / "00.png").rename(colour_folder / "red" / "moved.png")
    wanted = np.arange(48) < 40
    again, _ = read_pictures(load_dataset(spec), wanted, MODEL, folder)
    assert again is not None and sum(read) == 0, "features belong to bytes, not to names"
    assert np.array_equal(again.seen, wanted)
    rows = [f"{path.relative_to(colour_folder)},{path.parent.name}" for path in sorted(colour_folder.glob("*/*.png"))]
    (listed := colour_folder / "images.csv").write_text("\n".join(["path,label", *rows]))
    again, _ = read_pictures(load_dataset(f"manifest:{listed}"), np.ones(48, bool), MODEL, folder)
    assert again is not None and again.seen.all() and sum(read) == 8, "nor to the name of the data"


def test_features_must_not_have_learned_the_labels(small_run: Path, tmp_path: Path) -> None:
    images = load_dataset(str(runs.read_config(small_run)["data"]))
    with pytest.raises(ConfigError, match=r"has learned the labels of these images.* --task pretrain"):
        read_pictures(images, np.ones(len(images), bool), str(small_run), tmp_path / "f")
    other = replace(images.select(np.arange(4)), spec="folder:others")
    pictures, _ = read_pictures(other, np.ones(4, bool), str(small_run), tmp_path / "f")
    assert pictures is not None and pictures.seen.all()


@pytest.mark.parametrize(
    ("features", "message"), [("nonsense", "nonsense"), ("resnet10t.c3_in1k", "its weights are not on this machine")]
)
def test_a_model_that_is_not_here_is_refused(features: str, message: str, colour_folder: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{colour_folder}")
    with pytest.raises((ConfigError, ModelError), match=message):
        read_pictures(images, np.ones(48, bool), features, tmp_path / "f")
    assert read_pictures(images, np.ones(48, bool), "none", tmp_path / "f") == (None, ())
