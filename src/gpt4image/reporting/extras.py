"""What a report shows beside results, typed and checked: pictures, descriptions; each file may be missing.

examples.json         pictures with their descriptions and predictions
doubtful-labels.json  pictures of suspected label errors: the description contradicts the given label
descriptions.json     who described the images, at what cost, and how good the texts are
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gpt4image.artifacts.run_records import Record

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
    """A picture with its descriptions, its text label and the prediction of each arm, or its boxes.

    ``answer`` is the class that a describer answered when it was asked for it.

    ``drawn`` holds the picture with the true and the predicted masks over it, where pixels have classes.
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


class SuspectedError(Record):
    """A picture whose description contradicts its given label; ``probability`` is that of the class ``text``.

    ``truth`` is the true class where a comparison had flipped labels itself.
    """

    key: str
    comparison: str = ""
    picture: Picture
    given: str
    text: str
    probability: float
    description: str = ""
    truth: str | None = None


class Histogram(Record):
    """How many values lie between neighbouring ``edges``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @model_validator(mode="after")
    def _one_more_edge(self) -> Histogram:
        if not self.counts or len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.edges)} edges and {len(self.counts)} counts; one edge more is needed")
        return self


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
    """The descriptions behind a run or a comparison: what they cost and how good they are (see `descriptions stats`).

    ``images`` and ``described`` count the dataset; the other numbers are of the whole store, and are missing where it
    was gone. ``store`` is its path.
    """

    images: int
    described: int
    store: str = ""
    encoding: Encoded
    descriptions: int = 0
    flawed: int = 0
    failures: int = 0
    words: dict[str, float] | None = None
    words_histogram: Histogram | None = None
    flaws: dict[str, FlawCount] = Field(default_factory=dict)
    prompts: tuple[Asked, ...] = ()
    describers: tuple[DescribedBy, ...] = ()
