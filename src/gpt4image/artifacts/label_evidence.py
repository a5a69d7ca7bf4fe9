"""What a file of text labels, or of boxes of a teacher, says that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpt4image.artifacts.box_table import BoxLabels, holds_boxes
from gpt4image.artifacts.text_labels import TextLabels
from gpt4image.base.errors import TableError


@dataclass(frozen=True, kw_only=True)
class LabelEvidence:
    """What labels were predicted from, by the options of ``label``.

    Attributes:
        task: classification, multilabel, video or detection.
        evidence: fused, texts, answers or names.
        embeddings: absolute paths of the embedding tables that were given; they may be gone.
        answers: absolute path of the store of answers that was given, which may be gone; else empty.
        seed: seed of the folds.
    """

    task: str
    evidence: str
    embeddings: tuple[str, ...] = ()
    answers: str = ""
    seed: int = 0

    @property
    def texts_read(self) -> bool:
        """Whether descriptions were read."""
        return bool(self.embeddings) and self.evidence != "answers"

    @property
    def answers_read(self) -> bool:
        """Whether answers were read, be it to learn what descriptions mean."""
        return bool(self.answers) and self.evidence != "names"

    @property
    def asked(self) -> str:
        """What answers are about, as ``describe --ask`` calls it: class, tags or boxes."""
        return {"multilabel": "tags", "detection": "boxes"}.get(self.task, "class")

    @staticmethod
    def of(path: Path) -> LabelEvidence | None:
        """Return what a file of labels was made from; None where it is missing or cannot be read."""
        try:
            if not holds_boxes(path):
                facts = TextLabels.load(path).facts
                return LabelEvidence(
                    task=facts.task,
                    evidence=facts.evidence,
                    embeddings=facts.embeddings,
                    answers=facts.answers,
                    seed=facts.seed,
                )
            known = BoxLabels.load(path).facts
        except TableError:
            return None
        table = str(known.get("embeddings", ""))
        return LabelEvidence(
            task="detection",
            evidence=str(known.get("evidence", "fused")),
            embeddings=(table,) if table else (),
            answers=str(known.get("answers", "")),
            seed=int(known.get("seed", 0)),
        )
