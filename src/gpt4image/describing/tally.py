"""What became of the answers of one run: how many were kept, and which failed or were rejected."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from gpt4image.artifacts.answers import KINDS
from gpt4image.artifacts.store import Prompt
from gpt4image.base.outcome import Skipped
from gpt4image.describing.describers.base import Answer
from gpt4image.describing.judging import Judged
from gpt4image.describing.questions import CLASS

_Named = dict[tuple[str, Prompt, int], tuple[Skipped, ...]]
"""By digest, prompt and sample: what is said of each image with this digest."""


@dataclass(kw_only=True)
class Tally:
    """Counts of answers.

    Attributes:
        described: answers that were kept.
        digests: of the images that they are about.
        with_boxes: digests of images with a new answer about boxes.
    """

    described: int = 0
    digests: set[str] = field(default_factory=set[str])
    with_boxes: set[str] = field(default_factory=set[str])
    _classes: Counter[str] = field(default_factory=Counter[str])
    _failed: _Named = field(default_factory=_Named)
    _rejected: _Named = field(default_factory=_Named)

    def add(self, answer: Answer, found: Judged) -> Literal["kept", "failed", "rejected"]:
        """Count an answer, in place of a rejected one to the same question. Return what becomes of it."""
        name = (answer.request.digest, answer.request.prompt, answer.sample)
        self._rejected.pop(name, None)
        if found.text is None and found.answer is None:
            self._failed[name] = _each_key(answer, found.error or "")
            return "failed"
        if found.error is not None:
            self._rejected[name] = _each_key(answer, found.why)
            return "rejected"
        self.described += 1
        self.digests.add(answer.request.digest)
        if found.answer is not None and found.answer.boxes is not None:
            self.with_boxes.add(answer.request.digest)
        if CLASS in answer.request.prompt.ask and found.answer is not None:
            self._classes[found.answer.kind] += 1
        return "kept"

    @property
    def counts(self) -> dict[str, int]:
        """How many answers were kept, failed and were rejected."""
        return {"described": self.described, "failed": len(self._failed), "rejected": len(self._rejected)}

    @property
    def answered(self) -> int:
        """How many questions have an answer, whatever became of it."""
        return sum(self.counts.values())

    @property
    def classes_answered(self) -> dict[str, int]:
        """How many chose a class of the list, said that none fits, or named another one."""
        return {f"class_{kind}": self._classes[kind] for kind in KINDS}

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Each image whose answer was not kept, and why."""
        return tuple(itertools.chain(*self._failed.values(), *self._rejected.values()))

    def notes(self) -> list[str]:
        """Return what did not go well, in a few words each."""
        return [f"{count} {name}" for name, count in self.counts.items() if count and name != "described"]


def _each_key(answer: Answer, reason: str) -> tuple[Skipped, ...]:
    return tuple(Skipped(name=key, reason=reason) for key in answer.request.keys)
