"""Refusals, and what only sounds like one."""

from __future__ import annotations

from gpt4image.describing.refusals import is_refusal

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


def test_refusals_are_found() -> None:
    assert [text for text in REFUSALS.splitlines() if not is_refusal(text)] == []


def test_what_sounds_like_a_refusal_is_none() -> None:
    assert [text for text in NO_REFUSALS.splitlines() if is_refusal(text)] == []
