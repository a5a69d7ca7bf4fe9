"""The arms of a comparison as plain data: the one table that options, plans, records and reports read.

``comparing/arms.py`` prepares what each of them learns from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gpt4image.config.training import Evidence


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm.

    Attributes:
        about: one line for tables and reports.
        phrase: its name inside a sentence.
        text: whether the arm needs embeddings of the descriptions.
        aligns: whether features are aligned to texts, its own or others.
        names: whether it needs embeddings of the class names: to align to them, or else as labels.
        text_labels: whether class probabilities are predicted, by the labels that are left, from its evidence.
        evidence: what they are predicted from: texts, answers, or all of it (fused).
        label_free: whether it applies where there is no label at all.
        scarce_only: whether it applies only where labels are missing or wrong.
        known_only: whether it applies only where they are all known and right.
        exclusive: whether it applies only where an image has one class.
        boxes: one line about what it is where objects have boxes; empty where it does not apply to them.
        classes: whether it applies where images have classes.
        masks: whether it applies where pixels have classes.
        known_texts: whether it needs described images with a label.
        untold: whether it needs images without a label, description and answer.
        after: the arm whose finished run of the same seed it needs.
        options: options of train that it has of its own.
        bound: "control" or "reference" where the arm is no way to train, but shows what is to be surpassed or reached.
        against: arms that it is compared with, besides the baseline: its controls and rivals.
        headline: rank among the arms that learn from descriptions; 0 for others. The first one measured makes the
            headline of a report: a fixed order, because the arm that did best on the test split would flatter it.
    """

    about: str
    phrase: str
    text: bool = True
    aligns: bool = False
    names: bool = False
    text_labels: bool = False
    evidence: Evidence = "texts"
    label_free: bool = False
    scarce_only: bool = False
    known_only: bool = False
    exclusive: bool = False
    boxes: str = ""
    classes: bool = True
    masks: bool = True
    known_texts: bool = False
    untold: bool = False
    after: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    bound: Literal["", "control", "reference"] = ""
    against: tuple[str, ...] = ()
    headline: int = 0

    @property
    def answers(self) -> bool:
        """Whether it needs the answers of a describer that was asked for the class."""
        return self.evidence in ("answers", "fused")

    def suits(self, output: str) -> bool:
        """Return whether it applies to a task whose models give "boxes", a "mask" or "probabilities"."""
        return {"boxes": bool(self.boxes), "mask": self.masks}.get(output, self.classes)

    def about_task(self, *, boxes: bool) -> str:
        """Return the line about it, where objects have boxes or where images have classes."""
        return self.boxes if boxes else self.about

    @property
    def consistent(self) -> bool:
        """Whether it needs images without a label, for consistency training."""
        return "consistency" in self.options

    @property
    def labels_alone(self) -> bool:
        """Whether class targets are given labels: not predicted from texts, by class names or by another run."""
        by_name = self.names and not self.aligns
        return not (self.text_labels or by_name or self.after is not None)


ARMS: dict[str, Arm] = {
    "baseline": Arm(about="labels only", phrase="labels only", text=False, boxes="human boxes only"),
    "aligned": Arm(
        about="labels, and features aligned to the descriptions (the paper)",
        boxes="human boxes, and features aligned to the descriptions",
        phrase="alignment to the descriptions",
        aligns=True,
        against=("shuffled", "shuffled-within-class", "class-name"),
        headline=4,
    ),
    "text-labels": Arm(
        about="soft labels predicted from the descriptions, learned on the labels there are",
        phrase="text labels",
        text_labels=True,
        boxes="answered boxes as the annotators would draw them, their class by the descriptions",
        against=(
            *("oracle", "aligned", "class-name", "zero-shot", "self-training", "fixmatch"),
            *("text-labels-shuffled", "text-labels-class-mean"),
        ),
        headline=3,
    ),
    "asked": Arm(
        about="soft labels: the class or tags that the multimodal LLM answered, corrected by the labels there are",
        phrase="answers only",
        text=False,
        text_labels=True,
        evidence="answers",
        boxes="answered boxes as they are",
        label_free=True,
        against=("oracle", "zero-shot", "tags", "asked-shuffled"),
        headline=2,
    ),
    "fused": Arm(
        about="soft labels predicted from answers, descriptions and the labels there are",
        phrase="answers and descriptions",
        text_labels=True,
        evidence="fused",
        boxes="answered boxes as the annotators would draw them",
        label_free=True,
        against=(
            *("oracle", "asked", "text-labels", "zero-shot", "self-training"),
            *("fused-shuffled", "fused-class-mean", "boxes-shuffled", "tags", "asked-shuffled"),
        ),
        headline=1,
    ),
    "fused-aligned": Arm(
        about="targets of answers, descriptions and labels, and features aligned to the descriptions",
        boxes="answered boxes as the annotators would draw them, and features aligned to the descriptions",
        phrase="answers, descriptions and alignment",
        text_labels=True,
        evidence="fused",
        aligns=True,
        label_free=True,
        classes=False,
        masks=False,
        against=("oracle", "fused", "fused-class-name"),
        headline=7,
    ),
    "text-labels-aligned": Arm(
        about="text labels and alignment together",
        phrase="text labels with alignment",
        aligns=True,
        text_labels=True,
        against=("text-labels", "class-name"),
        headline=5,
    ),
    "zero-shot": Arm(
        about="no label at all: the class name nearest to the description, both centred",
        phrase="the nearest class name",
        names=True,
        scarce_only=True,
        headline=6,
        label_free=True,
        exclusive=True,
    ),
    "self-training": Arm(
        about="soft labels or masks predicted by the trained baseline (vision only)",
        boxes="confident boxes of the trained baseline (vision only)",
        phrase="vision-only self-training",
        text=False,
        scarce_only=True,
        after="baseline",
    ),
    "asked-self-training": Arm(
        about="tags that the multimodal LLM answered, and masks predicted by the finished run of asked",
        phrase="answers and self-training",
        text=False,
        text_labels=True,
        evidence="answers",
        scarce_only=True,
        classes=False,
        after="asked",
        against=("oracle", "asked", "self-training", "tags"),
        headline=8,
    ),
    "fused-self-training": Arm(
        about="targets as of fused, and classes predicted by its finished run for images without text or answer",
        phrase="answers, descriptions and self-training",
        text_labels=True,
        evidence="fused",
        scarce_only=True,
        masks=False,
        after="fused",
        untold=True,
        against=("oracle", "fused", "self-training", "fixmatch"),
        headline=9,
    ),
    "fixmatch": Arm(
        about="labels, and consistency training on the images without one (vision only)",
        phrase="vision-only consistency training",
        text=False,
        scarce_only=True,
        options={"consistency": 1.0, "labelled_share": 0.25},  # searched, with the threshold, on validation
        exclusive=True,
    ),
    "oracle": Arm(
        about="reference: all true labels",
        boxes="reference: all human boxes",
        bound="reference",
        phrase="all true labels",
        text=False,
        scarce_only=True,
        label_free=True,
    ),
    "shuffled": Arm(
        about="control: aligned to the description of any other image",
        boxes="control: aligned to the description of any other image",
        bound="control",
        phrase="alignment to shuffled descriptions",
        aligns=True,
    ),
    "shuffled-within-class": Arm(
        about="control: aligned to the description of another image of the class",
        boxes="control: aligned to the description of another image with the class",
        bound="control",
        phrase="alignment to descriptions shuffled within the class",
        aligns=True,
        known_texts=True,
        exclusive=True,
    ),
    "class-name": Arm(
        about="control: aligned to the name of the class",
        boxes="control: aligned to the name of the rarest class of the image",
        bound="control",
        phrase="alignment to the class name",
        aligns=True,
        names=True,
        known_texts=True,
        exclusive=True,
    ),
    "fused-class-name": Arm(
        about="control: targets as of fused, aligned to the name of the class",
        boxes="control: boxes as of fused, aligned to the name of the rarest class of the image",
        bound="control",
        phrase="the same boxes and alignment to class names",
        text_labels=True,
        evidence="fused",
        aligns=True,
        names=True,
        label_free=True,
        classes=False,
        masks=False,
    ),
    "text-labels-shuffled": Arm(
        about="control: the text label of another image of the class",
        bound="control",
        phrase="text labels shuffled within the class",
        text_labels=True,
        known_only=True,
        exclusive=True,
    ),
    "text-labels-class-mean": Arm(
        about="control: the mean text label of the class",
        bound="control",
        phrase="the mean text label of the class",
        text_labels=True,
        known_only=True,
        exclusive=True,
    ),
    "fused-shuffled": Arm(
        about="control: the fused label of another image of the class",
        bound="control",
        phrase="fused labels shuffled within the class",
        text_labels=True,
        evidence="fused",
        known_only=True,
        exclusive=True,
    ),
    "boxes-shuffled": Arm(
        about="control: the fused boxes of another image of the class",
        boxes="control: the fused boxes of another image of the class",
        bound="control",
        phrase="boxes of another image of the class",
        text_labels=True,
        evidence="fused",
        label_free=True,
        scarce_only=True,
        classes=False,
        masks=False,
    ),
    "fused-class-mean": Arm(
        about="control: the mean fused label of the class",
        bound="control",
        phrase="the mean fused label of the class",
        text_labels=True,
        evidence="fused",
        known_only=True,
        exclusive=True,
    ),
    "asked-shuffled": Arm(
        about="control: the answered tags of another image",
        bound="control",
        phrase="the tags of another image",
        text=False,
        text_labels=True,
        evidence="answers",
        scarce_only=True,
        classes=False,
    ),
    "tags": Arm(
        about="reference: the masks there are, and the true tags of all other images",
        bound="reference",
        phrase="all true tags",
        text=False,
        scarce_only=True,
        classes=False,
        against=("oracle",),
    ),
    "boxes": Arm(
        about="reference: the masks there are, and a true box around each class of all other images",
        bound="reference",
        phrase="all true boxes",
        text=False,
        scarce_only=True,
        classes=False,
        against=("oracle", "tags"),
    ),
}
TEXT_ARMS = tuple(sorted((name for name in ARMS if ARMS[name].headline), key=lambda name: ARMS[name].headline))
"""Arms that learn from descriptions, in the order in which they make a headline."""
