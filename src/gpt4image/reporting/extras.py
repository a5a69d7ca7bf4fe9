"""What a report shows beside results, typed and checked: pictures, descriptions; each file may be missing.

examples.json         pictures with their descriptions and predictions
doubtful-labels.json  pictures of suspected label errors: the description contradicts the given label
descriptions.json     who described the images, at what cost, and how good the texts are
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gpt4image.artifacts.runs import Record

EXAMPLES, DOUBTFUL, DESCRIPTIONS = "examples.json", "doubtful-labels.json", "descriptions.json"

# A picture goes into an HTML attribute; only bitmaps are let through (an SVG could carry links and scripts).
Picture = Annotated[str, Field(pattern=r"\Adata:image/(png|webp|jpeg);base64,[A-Za-z0-9+/]+={0,2}\z")]


class Guess(Record):
    """A class, or several, and the probability given to it, where there is one."""

    class_: str = Field(alias="class")
    probability: float | None = None


class Mark(Record):
    """A box over a picture: true or found, with x, y, width and height in percent."""

    kind: Literal["true", "found"]
    label: str
    title: str
    place: dict[Literal["x", "y", "width", "height"], float]


class Example(Record):
    """A picture, and what was said of it and predicted; ``answer`` is the class that a describer gave.

    Those ``at_random`` are a simple random sample of the held-out ones, so they are right as often as all are.
    """

    key: str
    label: str | None = None
    split: str
    comparison: str = ""
    picture: Picture
    descriptions: tuple[str, ...] = ()
    text_label: Guess | None = None
    answer: Guess | None = None
    predictions: dict[str, Guess] = Field(default_factory=dict)
    drawn: dict[str, Picture] = Field(default_factory=dict)
    boxes: tuple[Mark, ...] = ()
    about: str = ""
    at_random: bool = False


class SuspectedError(Record):
    """A picture whose description says the class ``text``; ``truth`` is known where a comparison flipped labels."""

    key: str
    comparison: str = ""
    picture: Picture
    given: str
    text: str
    probability: float
    description: str = ""
    truth: str | None = None


class DescribedBy(Record):
    """Answers of one describer to one prompt; sums are None where nothing is known."""

    prompt: str
    describer: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


class Asked(Record):
    """A prompt; ``class_conditioned`` says that it names the class."""

    name: str
    version: int = 1
    text: str = ""
    class_conditioned: bool = False


class FlawCount(Record):
    """Number of descriptions that have a flaw."""

    descriptions: int = 0


class Encoded(Record):
    """How descriptions became vectors; ``truncated`` is the part of the texts that was too long."""

    encoder: str
    width: int
    max_tokens: int
    truncated: float = 0.0
    length_policy: str = "cut"


class Descriptions(Record):
    """The descriptions behind a run; ``images`` and ``described`` count the dataset, other numbers the whole store."""

    images: int
    described: int
    store: str = ""
    encoding: Encoded
    descriptions: int = 0
    flawed: int = 0
    failures: int = 0
    words: dict[str, float] | None = None
    flaws: dict[str, FlawCount] = Field(default_factory=dict)
    prompts: tuple[Asked, ...] = ()
    describers: tuple[DescribedBy, ...] = ()
