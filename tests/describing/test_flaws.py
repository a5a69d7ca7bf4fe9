"""Flaws: every one is found where it is, and real descriptions have none that would throw them away."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from gpt4image.config import Flaw
from gpt4image.describing.flaws import flaws, is_refusal

ASKED = ("Describe this image in detail.",)
GOOD = "A black dog lies on green grass and looks into the camera; behind it stands a low wooden fence."


def found(text: str, *, finish_reason: str | None = "stop", turns: tuple[str, ...] = ASKED) -> set[Flaw]:
    return set(flaws(text, finish_reason=finish_reason, turns=turns))


NONE = [
    *(GOOD, "cat", f"{GOOD}\n\n{GOOD}", f"{GOOD}\n----------------", "no no no", "A cat.\n\nA cat."),
    "Describe this image in detail: a red car drives on snow.",
    "Surely a cat on a poster with the image of a dog, of course.",
    "A red square, a red circle, a red triangle and a red star.",
    "one dog, two dogs, three dogs, four dogs",
    "\n".join(f"- A {colour} cup" for colour in ("red", "blue", "green", "yellow", "white", "black", "grey")),
    "Top row: red, blue, red, blue. Bottom row: blue, red, blue, red.",
    "the cat is on the left, the dog is on the right, the bird is on the top, the fish is on the bottom",
]
EMPTY = ["", " \n", "…", "42", "\u200b\u202e", "-----"]
THOUGHTS = ["<think>The user wants", "\n<think>A dog.</think>\n\nA dog.", "<Thinking> Let me", "◁think▷Hm. A cat"]
ECHOES = [
    "Describe this image in detail.",
    "describe this image in detail",
    "Describe this image in detail. Describe this image in detail.",
    "User: Describe this image in detail. Assistant:",
    "Describe the image in detail.",
]
LOOPS = [
    *("The cat is black and sits on a mat. " * 8, "a red car " * 6, "no " * 50, "ha" * 100, f"{GOOD} {'!' * 80}"),
    *("A face " + "😀" * 60, "黑色的猫坐在垫子上。" * 5),
    f"{GOOD} A lake lies beyond it, under grey clouds, and a boat with two men drifts by. {'It is nice. ' * 6}It i",
    "\n".join(f"{number}. A tall tree." for number in range(9)),
]
BOILERPLATE = [
    *("The image shows a cat", "In this image, we can see a cat", "Certainly! Here is a description: a cat"),
    *("Sure, here's a caption: a cat", "Here is a detailed description of the image: a cat"),
    *("**Description:** a cat", "This photograph captures a man"),
]


def test_every_flaw_is_found_where_it_is_and_nowhere_else() -> None:
    assert [text for text in NONE if found(text)] == [] and flaws("cat", finish_reason=None, turns=()) == []
    for flaw, texts in (("empty", EMPTY), ("echo", ECHOES), ("boilerplate", BOILERPLATE)):
        assert [text for text in texts if found(text) != {flaw}] == []
    assert [text for text in LOOPS if "loop" not in found(text)] == []
    assert found(GOOD, finish_reason="length") == {"truncated"}
    for reason in ("content_filter", "refusal"):  # what the server kept back
        assert found("", finish_reason=reason) == found(GOOD, finish_reason=reason) == {"refusal"}


@pytest.mark.parametrize("text", THOUGHTS)
def test_thoughts_where_the_answer_should_begin_are_none(text: str) -> None:
    assert "empty" in found(text)
    assert found(text, finish_reason="refusal") == {"refusal"}
    assert not found(f"A card on which {text} is written in large red letters.")


def test_an_echo_may_be_of_any_turn_and_shares_more_than_words() -> None:
    turns = (*ASKED, "What else can be seen?")
    assert all(found(echo, turns=turns) == {"echo"} for echo in (*ECHOES, turns[1], "\n\n".join(turns)))
    for text in ("Describe this image in detail: a red car drives on snow.", "image", "a photo of a dog"):
        assert "echo" not in found(text) | found(text, turns=("A photo of a cat",))
    assert "echo" not in found("A dog.", turns=("What is this? One of: a cat, a dog, a bird.",))


def test_no_packaged_description_would_be_thrown_away() -> None:
    file = files("gpt4image") / "packaged" / "openmoji" / "descriptions-plain.jsonl"
    texts = [json.loads(line)["description"] for line in file.read_text("utf-8").splitlines()]
    assert len(texts) > 1500 and [text for text in texts if found(text)] == []


REFUSALS = """\
I'm sorry, but I can't assist with that request.
I’m sorry, but I can’t assist with that.
Im sorry but I cant help with that
I cannot help with identifying people.
As an AI language model, I am unable to view images.
I'm sorry, I can't identify the person in the image, but if you have other questions, feel free to ask!
I apologize, but I cannot describe this image as it may violate our content policy. Please try another image.
Unfortunately, I am unable to view the image you are referring to. Please upload the image again.
I don't see any image attached. Could you please share it?
It looks like no image was provided.
I am not able to identify real people based on their appearance. If you need help with something else, let me know.
Thank you for sharing the image. However, I'm unable to identify individuals.
As a text-based AI, I can't see images.
I'm just an AI model, I can't satisfy your request.
**I'm sorry, but I can't assist with that.**
I must respectfully decline to describe this.
N/A
**None**
null
undefined
No image
No image available.
[image]
Unable to process the image.
Cannot describe this image.
Can't describe the image. Please try again.
This image cannot be described.
The image could not be processed.
Image not found.
Error: could not load image
Error: Failed to open the image file. File not found.
I refuse."""


NO_REFUSALS = """\
A yellow sign reads Sorry, We're Closed and hangs on a glass door.
"I'm sorry, I can't assist you" is printed on a card beside a bouquet of roses.
The sign says: I'm sorry, but I can't help you.
A dog whose tail cannot be seen lies on grass.
I can see a cat. I can't identify the breed, though.
I cannot identify the person, but the image shows a man in a blue suit at a lectern, in front of two flags.
No image is visible on the screen of a black phone that lies on a table.
Please keep off the grass, says a green sign.
Hello Kitty, a white cat with a red bow.
If you look closely, a frog sits on the leaf.
Unfortunately blurred, a small bird sits on a branch that cannot be made out.
I'm sorry written in red on a heart-shaped card
An error message on a screen reading 'could not load image'
Error: could not load image, reads a white dialog on a grey desktop.
Error: disk full, says a grey window in front of a blue desktop.
Error 404 is written on a white page.
None of the three boats has a sail.
N/A is printed in black on a white card.
Null Island buoy floating in a blue sea
Undefined shapes in grey and blue
No image. The screen is black, with a small white cursor at the top.
No picture hangs on the white wall.
Image not found. A grey placeholder icon with a torn corner.
The image cannot be seen clearly through the fog, but a tower rises on the left.
This picture cannot be described without its colours: red, gold and green.
The photo is missing a corner.
Unable to stand, a foal lies in the straw.
I refuse to sink is written on a T-shirt."""


def test_refusals_are_found_and_what_sounds_like_one_is_none() -> None:
    assert [text for text in REFUSALS.splitlines() if not is_refusal(text)] == []
    assert [text for text in NO_REFUSALS.splitlines() if is_refusal(text)] == []
