"""--examples: labelled training pictures that every question begins with."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.data import load_with_splits
from gpt4image.describing.describe import choose_examples
from openai_cases import describe_by
from openai_stub import Call, Stub, answer


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A manifest of 24 pictures, 300 pixels wide, of 3 classes; the last 6 of the train split have no label."""
    lines = ["path,label,split"]
    for number in range(24):
        Image.new("RGB", (300, 200), (10 * number, 0, 90)).save(tmp_path / f"{number:02}.png")
        label = "" if number >= 18 else ("ash", "oak", "elm")[number % 3]
        lines.append(f"{number:02}.png,{label},{'test' if number < 3 else 'train'}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    return tmp_path


def asked(photos: Path, **options: Any) -> tuple[Any, Stub]:
    given = {"examples": 2, "ask": "class", "val_fraction": 0, **options}
    reply = answer('{"class": "oak", "second": null, "confidence": 0.8}')
    return describe_by(lambda _: reply, f"manifest:{photos / 'manifest.csv'}", photos / "a.db", **given)


def parts(call: Call) -> list[str]:
    """The content of a call: the text of texts, number and width of pictures."""
    found, pictures = list[str](), iter(call.pictures)
    for part in call.body["messages"][-1]["content"]:
        if part["type"] == "text":
            found.append(part["text"])
        else:
            picture = next(pictures)
            found.append(f"picture {round(picture.getpixel((5, 5))[0] / 10)} of {picture.width}")  # type: ignore[index]
    return found


def test_every_question_begins_with_the_same_small_labelled_training_pictures(photos: Path) -> None:
    outcome, stub = asked(photos)
    assert outcome.described == 21
    whole = [parts(call) for call in stub.calls if len(parts(call)) == 2 + 2 * 6 + 2]
    assert len(whole) == 15, "six of the images are examples themselves"
    shown = whole[0][1:13]
    assert whole[0][0] == "Examples of the classes, labelled by people:" and whole[0][13] == "These were the examples."
    assert sorted(text for text in shown if text.startswith("Class")) == sorted(
        f"Class: {n}" for n in ("ash", "oak", "elm") * 2
    )
    for picture, name in zip(shown[::2], shown[1::2], strict=True):
        number = int(picture.split()[1])
        assert picture.endswith("of 192") and 3 <= number < 18 and name == f"Class: {('ash', 'oak', 'elm')[number % 3]}"
    assert whole[0][14].endswith("of 300")
    ends = {call.content.partition(b"These were the examples.")[0].partition(b'"messages"')[2] for call in stub.calls}
    assert len(ends) == 7, "one beginning for all, and one for each example, which is asked about without itself"


def test_examples_are_a_part_of_the_identity_with_their_labels_and_calibrate_nothing(photos: Path) -> None:
    asked(photos)
    assert asked(photos)[0].already_described == 21
    assert asked(photos, examples=0)[0].described == 21, "without examples, the question is another"
    with DescriptionStore(photos / "a.db") as store:
        found = [*store.answers()]
        (shown,) = store.examples().values()
    assert len(shown) == 6 and sorted(shown.values()) == ["ash", "ash", "elm", "elm", "oak", "oak"]
    assert {one.digest for one in found if one.was_example} == set(shown)
    assert not any(one.was_example for one in found if "examples" not in one.describer)
    table = photos / "manifest.csv"
    table.write_text(table.read_text().replace("18.png,,", "18.png,ash,").replace("19.png,,", "19.png,oak,"))
    assert asked(photos)[0].already_described == 21, "more labels do not change the examples, and so cost nothing"
    table.write_text(table.read_text().replace(",elm,", ",ash,"))
    assert asked(photos)[0].described == 21, "a label that changed is no longer what was shown"


def test_what_examples_cannot_be_shown_for_is_named_or_refused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load_with_splits(f"manifest:{photos / 'manifest.csv'}", val_fraction=0.1, test_fraction=0.2)
    classes = [ClassOption(name) for name in ("ash", "oak", "yew")]
    found = choose_examples(images, classes, 1, [])
    assert [example.class_name for example in found] in (["ash", "oak"], ["oak", "ash"])
    assert "no labelled training image of 'yew'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="303 pictures would go with every question"):
        asked(photos, examples=101)
    (photos / "manifest.csv").write_text("path,label\n00.png,\n01.png,\n")
    with pytest.raises(ConfigError, match="there is none"):
        asked(photos, classes="ash, oak")
