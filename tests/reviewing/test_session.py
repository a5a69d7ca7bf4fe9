"""One sitting at the page: what comes first, what is saved, tags and boxes."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt4image
from gpt4image.artifacts.targets import BoxLabels, Facts
from gpt4image.base.errors import ConfigError
from gpt4image.base.interrupts import stop_here
from gpt4image.data import load_dataset
from gpt4image.data.regions import Boxes
from gpt4image.reviewing import review
from gpt4image.reviewing.labels_file import cell_of
from gpt4image.reviewing.queue import Teacher
from gpt4image.reviewing.session import Session, new_class
from gpt4image.selecting.order import at_random
from tables import made_of


def keys(session: Session, mode: str = "label") -> list[str]:
    return [card.key for card in session.cards(mode, 96)]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_not_sure_comes_last_also_after_a_restart(opened: Callable[..., Session]) -> None:
    session = opened()
    first, second, *others = (card.id for card in session.cards("label", 96))
    session.mark({first: ("", "unsure")})
    assert [card.id for card in session.cards("label", 96)] == [second, *others, first]
    session.mark({second: ("cat", "checked")})
    session.end()
    session.file.close()
    again = opened()
    assert [card.id for card in again.cards("label", 96)] == [*others, first]
    assert (again.news(0)["labelled"], again.news(0)["checked"], again.news(0)["unsure"]) == (6, 1, 1)


def test_a_label_that_was_confirmed_does_not_come_back(opened: Callable[..., Session]) -> None:
    session = opened()
    card = session.cards("correct", 1)[0]
    before = session.mark({card.id: (card.label, "checked")})
    assert card.key not in keys(session, "correct")
    session.mark(before)
    assert card.key in keys(session, "correct")


def test_new_classes_can_be_typed_only_where_none_are_given(opened: Callable[..., Session], pictures: Path) -> None:
    shutil.rmtree(pictures / "cat")
    shutil.rmtree(pictures / "dog")
    session = opened()
    assert (session.classes, session.is_open) == ([], True)
    first, second, third, *_ = (card.id for card in session.cards("label", 96))
    session.mark({first: ("  red   fox ", "checked"), second: ("owl", "checked"), third: ("Red Fox", "checked")})
    assert session.classes == ["red fox", "owl"]
    session.end()
    session.file.close()
    given = opened(classes="red fox, hen")
    assert (given.classes, given.is_open) == (["red fox", "hen", "owl"], False)
    with pytest.raises(ConfigError, match="class 'bear' is not one of: hen, owl, red fox"):
        given.mark({first: ("bear", "checked")})


def test_the_teacher_outlives_a_fault_of_a_library_and_says_it(
    opened: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4image.reviewing.session.PAUSE", 0.05)
    session = opened()
    first, second, *_ = session.digests

    def broken(*_: object) -> None:
        raise ValueError("Input X contains NaN.\nMore.")

    with monkeypatch.context() as patched:
        patched.setattr(session._ranker, "ranking", broken)
        session.mark({first: ("cat", "checked")})
        wait_for(lambda: session.news(0)["fault"] == "ValueError: Input X contains NaN.")
    session.mark({second: ("cat", "checked")})
    wait_for(lambda: session.news(0)["fault"] == "")


def test_the_page_does_not_wait_for_what_is_learned_and_the_end_not_either(
    opened: Callable[..., Session], described_colours: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = described_colours
    begun, go_on, predict = threading.Event(), threading.Event(), Teacher._predicted

    def slow(*given: object, **options: object) -> object:
        begun.set()
        while not go_on.wait(0.01):
            stop_here()
        return predict(*given, **options)  # pyright: ignore

    monkeypatch.setattr(Teacher, "_predicted", slow)
    given = {"data": f"folder:{folder}", "embeddings": table, "wait": False}
    session = opened(**given, labels=folder.parent / "labels.csv")
    assert begun.wait(60) and session.news(0)["learning"] and session.news(0)["wrong"] is None
    card = session.cards("correct", 1)[0]
    session.mark({card.id: ("blue", "checked")})
    go_on.set()
    wait_for(lambda: not session.news(0)["learning"])
    assert session.cards("correct", 1)[0].proposal
    session.end()
    go_on.clear()
    begun.clear()
    ended = opened(**given, labels=folder.parent / "other.csv")
    assert begun.wait(60)
    ended.end()
    assert ended.learning and not ended._thread.is_alive() and not go_on.is_set()


@pytest.mark.parametrize("name", ["", "  ", "-1", "nan", "x" * 201, "a\u202eb", "a\0b"])
def test_names_that_a_file_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="class "):
        new_class(name, [])


CAT, DOG = ["cat", 0.1, 0.2, 0.5, 0.6], ["dog", 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["multilabel", "detection"])
def test_tags_and_boxes_are_saved_at_once_and_read_as_a_dataset(
    opened: Callable[..., Session], pictures: Path, kind: Any
) -> None:
    session = opened(task=kind, classes="cat, dog")
    first, second, third, *_ = session.digests
    both = ["cat", "dog"] if kind == "multilabel" else [DOG, CAT]
    assert session.mark({first: (both, "checked"), second: ([], "checked")})[first] == (None, "")
    assert (session.card(first).label, session.card(second).label, session.card(third).label) == (both, [], None)
    images = load_dataset(f"manifest:{session.file.path}")
    row = {digest: row for row, digest in enumerate(images.digests)}
    assert images.classes == ("cat", "dog")
    assert images.labels[[row[first], row[second], row[third]]].tolist() == [[1, 1], [0, 0], [-1, -1]]
    if kind == "detection":
        assert isinstance(images.regions, Boxes)
        corners, labels, weights = images.regions.image(row[first])
        assert np.allclose(corners, [DOG[1:], CAT[1:]]) and (labels.tolist(), weights.tolist()) == ([1, 0], [1, 1])
    session.end()
    session.file.close()
    assert opened(data=f"manifest:{session.file.path}", labels=pictures.parent / "other.csv").card(first).label == both


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[("detection", [box]) for box in (CAT[:4], [1, *CAT[1:]], ["cat", 0.5, 0, 0.1, 1], ["cat", 0, 0, 1, 2])],
        *[("detection", value) for value in ("cat", ["cat"], {"a": 1}, [CAT] * 2001, [[*CAT, "x"]])],
        ("detection", [["cat", 0, 0, float("nan"), 1]]),
        *[("multilabel", value) for value in ("cat", [1], [["cat"]])],
        *[("classification", value) for value in (["cat"], None, 1)],
    ],
)  # fmt: skip
def test_what_is_no_label_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match="is no label for"):
        cell_of(kind, value)


def targets_of(pictures: Path, kind: str) -> Path:
    """Targets that name a cat and a dog on every image; the first image is sure, the last in doubt."""
    images, path = load_dataset(f"folder:{pictures}"), pictures.parent / "targets.parquet"
    sure = np.linspace(1.0, 0.6, len(images), dtype=np.float32)
    if kind == "multilabel":
        made_of(images, ("cat", "dog"), np.stack([sure, sure], 1), "multilabel").save(path)
        return path
    corners = np.array([CAT[1:], DOG[1:]], np.float32)
    boxes = Boxes.of_images([(corners, np.array([0, 1]), np.full(2, share, np.float32)) for share in sure])
    facts, human = Facts(task="detection", classes=("cat", "dog")), np.zeros(len(images), np.bool_)
    BoxLabels(keys=images.keys, digests=tuple(images.digests), boxes=boxes, human=human, facts=facts).save(path)
    return path


@pytest.mark.parametrize("kind", ["multilabel", "detection"])
def test_targets_propose_and_the_most_doubtful_images_come_first(
    opened: Callable[..., Session], pictures: Path, kind: str
) -> None:
    session = opened(targets=targets_of(pictures, kind))
    assert session.file.kind == kind
    [card] = session.cards("label", 1)
    assert card.id == session.digests[-1] and card.label is None
    proposed = [box if isinstance(box, str) else box[0] for box in card.proposal]
    assert proposed == ["cat", "dog"]
    assert all(isinstance(box, str) or len(box) == 5 for box in card.proposal), "a person does not confirm by halves"
    one, other = (["cat"], ["cat", "dog"]) if kind == "multilabel" else ([CAT], [CAT, DOG])
    session.mark({session.digests[0]: (other, ""), session.digests[1]: (one, "")})
    session._ranking = session._ranker.ranking(*session._known())
    assert [card.id for card in session.cards("correct", 9)] == [session.digests[1], session.digests[0]]
    assert session.news(0)["suspects"] == 1


@pytest.mark.parametrize("kind", ["multilabel", "detection"])
def test_an_audit_counts_what_is_right_and_what_is_missed(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bird = ["bird", 0.8, 0.8, 0.9, 0.9]

    def serve(sessions: Any, *_: Any) -> None:
        session = sessions["audit"]
        for card in session.cards("label", 96):
            moved = ["cat", 0.12, 0.2, 0.5, 0.62]
            assert (card.proposal is None) == (kind == "multilabel"), "only boxes are shown before a person looks"
            session.mark({card.id: (["cat", "bird"] if kind == "multilabel" else [moved, bird], "checked")})
        assert "50.0%" in session.news(0)["headline"]

    monkeypatch.setattr(review, "serve", serve)
    options: dict[str, Any] = {"data": f"folder:{pictures}", "labels": pictures.parent / "audit.csv"}
    found = gpt4image.audit(**options, targets=targets_of(pictures, kind))
    right, there = found.rows
    assert (right["share"], there["share"], found.looks) == (0.5, 0.5, 11)
    assert right["low"] == right["high"] == 0.5, "all were looked at"
    with pytest.raises(ConfigError, match="only answers with one class per image"):
        gpt4image.audit(**options, targets=targets_of(pictures, kind), answers=pictures.parent / "targets.parquet")


def test_evidence_for_one_class_is_refused_for_boxes(opened: Callable[..., Session], pictures: Path) -> None:
    with pytest.raises(ConfigError, match="for tags and boxes give --targets FILE"):
        opened(task="detection", embeddings=pictures)


def test_a_part_of_each_page_is_sampled_at_random_without_a_proposal_and_the_file_says_so(
    opened: Callable[..., Session], described_colours: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = described_colours[0]
    images, targets = load_dataset(f"folder:{folder}"), tmp_path / "targets.parquet"
    sure = np.linspace(1, 0.5, len(images), dtype=np.float32)
    made_of(images, ("blue", "red"), np.stack([sure, 1 - sure], 1)).save(targets)
    bare = tmp_path / "bare"
    bare.mkdir()
    for row, key in enumerate(images.keys):
        (bare / key.replace("/", "-")).write_bytes(images.read(row))
    given = {"data": f"folder:{bare}", "targets": targets, "labels": bare / "labels.csv"}
    session = opened(**given)
    order = [session.digests[item] for item in at_random(session.digests)]
    page = session.cards("label", 12)
    drawn = [card for card in page if card.sampled == "random"]
    assert [card.id for card in drawn] == order[:3]
    assert {card.proposal for card in drawn} == {""} and all(card.proposal for card in page if card not in drawn)
    session.mark({card.id: ("blue", "checked") for card in session.cards("label", 12)})
    assert session.news(0)["random"] >= 3
    for _ in range(3):
        session.mark({card.id: ("blue", "checked") for card in session.cards("label", 12)})
    read = load_dataset(f"manifest:{bare / 'labels.csv'}")
    why = dict(zip(read.digests, read.was_sampled("random").tolist(), strict=True))
    until = max(order.index(card) for card, random in why.items() if random)
    assert all(why[one] for one in order[:until] if read.labels[read.digests.index(one)] >= 0)
    session.mark({order[0]: ("", "")})
    assert session.card(order[0]).sampled == "", "what is taken back was not sampled"
