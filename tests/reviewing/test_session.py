from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.base.interrupts import stop_here
from gpt4image.reviewing.queue import Teacher
from gpt4image.reviewing.session import Session, new_class


def keys(session: Session, mode: str = "label") -> list[str]:
    return [card.key for card in session.cards(mode, 96)]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_evidence_the_order_is_shuffled_and_fixed(opened: Callable[..., Session]) -> None:
    session = opened()
    order = keys(session)
    assert len(order) == 6 and order != sorted(order)
    assert all(key.startswith("unlabelled/") for key in order)
    assert [card.reason for card in session.cards("label", 96)] == [""] * 6
    in_turn = [key.split("/")[0] for key in keys(session, "correct")]
    assert in_turn == ["cat", "dog", "cat", "dog", "cat"]


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


def test_copies_are_labelled_together(opened: Callable[..., Session], pictures: Path) -> None:
    shutil.copy(pictures / "unlabelled" / "5.png", pictures / "unlabelled" / "copy.png")
    session = opened()
    assert session.news(0)["total"] == 11
    [card] = [card for card in session.cards("label", 96) if card.key in ("unlabelled/5.png", "unlabelled/copy.png")]
    session.mark({card.id: ("dog", "checked")})
    images = session.file.images
    assert [session.file[row].label for row, key in enumerate(images.keys) if "5.png" in key or "copy" in key] == [
        "dog"
    ] * 2


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
        patched.setattr(session._teacher, "opinion", broken)
        session.mark({first: ("cat", "checked")})
        wait_for(lambda: session.news(0)["fault"] == "ValueError: Input X contains NaN.")
    session.mark({second: ("cat", "checked")})
    wait_for(lambda: session.news(0)["fault"] == "")


def test_the_page_does_not_wait_for_what_is_learned_and_the_end_not_either(
    opened: Callable[..., Session], described_colours: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = described_colours
    begun, go_on, predict = threading.Event(), threading.Event(), Teacher._predict

    def slow(*given: object, **options: object) -> object:
        begun.set()
        while not go_on.wait(0.01):
            stop_here()
        return predict(*given, **options)  # pyright: ignore

    monkeypatch.setattr(Teacher, "_predict", slow)
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


@pytest.mark.parametrize("name", ["", "  ", "7", "-3", "x" * 201, "a\u202eb", "a\0b"])
def test_names_that_a_file_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="class "):
        new_class(name, [])


def test_the_teacher_learns_meanwhile(opened: Callable[..., Session], described_colours: tuple[Path, Path]) -> None:
    folder, table = described_colours
    for path in sorted((folder / "blue").glob("0[4-9].png")) + sorted((folder / "green").glob("0[4-9].png")):
        (folder / "unlabelled").mkdir(exist_ok=True)
        path.rename(folder / "unlabelled" / f"{path.parent.name}-{path.name}")
    session = opened(data=f"folder:{folder}", labels=folder.parent / "labels.csv", embeddings=table)
    wrong = session.cards("correct", 96)[0]
    assert session.news(0)["suspects"] == 1
    assert (wrong.key, wrong.label, wrong.proposal) == ("blue/wrong.png", "blue", "red")
    assert wrong.reason.startswith("text: red, 0.")
    proposed = {card.key: card.proposal for card in session.cards("label", 96)}
    assert {key.split("/")[1].split("-")[0] == name for key, name in proposed.items()} == {True}
    before = session.news(0)["wrong"]
    assert 0 < before < 0.5
    for card in session.cards("label", 96)[:8]:
        session.mark({card.id: (card.proposal, "checked")})
    wait_for(lambda: session.news(0)["wrong"] != before)
    assert session.news(0)["wrong_before"] == before
