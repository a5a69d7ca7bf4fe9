"""The arms of a comparison, in one table that options, plans, runs, records and reports read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Evidence = Literal["fused", "texts", "answers", "names"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm: its options, the evidence of its targets and what its features are aligned to.

    Attributes:
        about: one line for tables and reports; ``boxes`` the same for detection, empty where it does not apply.
        phrase: its name inside a sentence.
        evidence: what its targets are predicted from, by the labels that are left; "" for the labels alone.
        options: options of train that it has of its own.
        scarce_only, exclusive, boxes_only: it applies only to missing or wrong labels, one class per image, detection.
        bound: "control" or "reference" for an arm that is a control or an upper bound, not a way to train.
        against: arms that it is compared with, besides the baseline: its controls and rivals.
        headline: rank among the arms that learn from an LLM; 0 for others. The first one measured makes the headline of
            a report: a fixed order, because the arm that did best on the test split would flatter it.
    """

    about: str
    phrase: str
    boxes: str = ""
    evidence: Evidence | Literal[""] = ""
    aligned_to: Literal["", "texts", "shuffled", "names"] = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    scarce_only: bool = False
    exclusive: bool = False
    boxes_only: bool = False
    bound: Literal["", "control", "reference"] = ""
    against: tuple[str, ...] = ()
    headline: int = 0

    @property
    def aligns(self) -> bool:
        """Whether features are aligned to texts, its own or others."""
        return bool(self.aligned_to)

    @property
    def text(self) -> bool:
        """Whether it needs embeddings of the descriptions."""
        return self.aligns or self.evidence not in ("", "answers")

    @property
    def names(self) -> bool:
        """Whether it needs embeddings of the class names."""
        return "names" in (self.evidence, self.aligned_to)

    @property
    def answers(self) -> bool:
        """Whether it needs the answers of a describer that was asked for the class."""
        return self.evidence in ("answers", "fused")

    @property
    def predicts_targets(self) -> bool:
        """Whether targets are predicted from its evidence, by the labels that are left."""
        return self.evidence in ("texts", "answers", "fused")

    @property
    def label_free(self) -> bool:
        """Whether it applies where there is no label at all."""
        return self.answers or self.evidence == "names" or self.bound == "reference"

    @property
    def consistent(self) -> bool:
        """Whether it needs images without a label, for consistency training."""
        return "consistency" in self.options

    def suits(self, output: str) -> bool:
        """Return whether it applies to a task whose models give "boxes", a "mask" or "probabilities"."""
        return bool(self.boxes) if output == "boxes" else not self.boxes_only


ARMS: dict[str, Arm] = {
    "baseline": Arm(about="labels only", phrase="labels only", boxes="human boxes only"),
    "aligned": Arm(
        about="labels, and features aligned to the descriptions (the paper)",
        boxes="human boxes, and features aligned to the descriptions",
        phrase="alignment to the descriptions",
        aligned_to="texts",
        against=("shuffled", "class-name"),
        headline=4,
    ),
    "text-labels": Arm(
        about="soft labels predicted from the descriptions, learned on the labels there are",
        boxes="answered boxes as the annotators would draw them, their class by the descriptions",
        phrase="text labels",
        evidence="texts",
        against=("oracle", "aligned", "class-name", "zero-shot", "fixmatch"),
        headline=3,
    ),
    "asked": Arm(
        about="soft labels: the class or tags that the multimodal LLM answered, corrected by the labels there are",
        boxes="answered boxes as they are",
        phrase="answers only",
        evidence="answers",
        against=("oracle", "zero-shot"),
        headline=2,
    ),
    "fused": Arm(
        about="soft labels predicted from answers, descriptions and the labels there are",
        boxes="answered boxes as the annotators would draw them",
        phrase="answers and descriptions",
        evidence="fused",
        against=("oracle", "asked", "text-labels", "zero-shot"),
        headline=1,
    ),
    "fused-aligned": Arm(
        about="targets of answers, descriptions and labels, and features aligned to the descriptions",
        boxes="answered boxes as the annotators would draw them, and features aligned to the descriptions",
        phrase="answers, descriptions and alignment",
        evidence="fused",
        aligned_to="texts",
        boxes_only=True,
        against=("oracle", "fused"),
        headline=6,
    ),
    "zero-shot": Arm(
        about="no label at all: the class name nearest to the description, the mean of each subtracted",
        phrase="the nearest class name",
        evidence="names",
        scarce_only=True,
        exclusive=True,
        headline=5,
    ),
    "fixmatch": Arm(
        about="labels, and consistency training on the images without one (vision only)",
        phrase="vision-only consistency training",
        options={"consistency": 1.0, "labelled_share": 0.25},  # searched, with the threshold, on validation
        scarce_only=True,
        exclusive=True,
    ),
    "oracle": Arm(
        about="reference: all true labels",
        boxes="reference: all human boxes",
        phrase="all true labels",
        bound="reference",
        scarce_only=True,
    ),
    "shuffled": Arm(
        about="control: aligned to the description of any other image",
        boxes="control: aligned to the description of any other image",
        phrase="alignment to shuffled descriptions",
        aligned_to="shuffled",
        bound="control",
    ),
    "class-name": Arm(
        about="control: aligned to the name of the class",
        boxes="control: aligned to the name of the rarest class of the image",
        phrase="alignment to the class name",
        aligned_to="names",
        bound="control",
        exclusive=True,
    ),
}
TEXT_ARMS = tuple(sorted((name for name in ARMS if ARMS[name].headline), key=lambda name: ARMS[name].headline))
"""Arms that learn from an LLM, in the order in which they make a headline."""
