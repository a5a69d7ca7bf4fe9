"""What a deployed model says of itself, as JSON inside its file: classes, preprocessing and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt4image.base.errors import ModelError
from gpt4image.base.files import parse_json
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.tasks.classification import Classification

FORMAT = 1
ONNX_KEY = "gpt4image"
"""Key of the JSON in the metadata_props of an ONNX file."""
EXTRA_FILE = "gpt4image.json"
"""Name of the JSON among the extra files of a torch-export archive."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is needed to use a model, and what is known of its making.

    Attributes:
        classes: K class names, in the order of the output.
        preprocessing: how pictures become inputs.
        task: what the model was trained for; it says what the output means.
        source: facts about the run, JSON-serialisable.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    task: str = Classification.name
    source: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return ``{"format": 1, "task": "...", "classes": [...], "preprocessing": {...}, "source": {...}}``."""
        return json.dumps(
            {
                "format": FORMAT,
                "task": self.task,
                "classes": list(self.classes),
                "preprocessing": self.preprocessing.to_dict(),
                "source": dict(self.source),
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str | None, where: object) -> Metadata:
        """Return what ``to_json`` wrote; ``where`` names the file in messages.

        Raises:
            ModelError: there is none, it is of a later version or malformed.
        """
        if text is None:
            raise ModelError(
                f"{where} does not say what its classes are and what pictures it takes: `gpt4image export` did not "
                "write it. Give a model that it wrote, a run folder, or a folder in timm's format."
            )
        try:
            found = parse_json(text)
            if found["format"] != FORMAT:
                raise ModelError(
                    f"{where} is of format {found['format']!r}; this version of gpt4image reads format {FORMAT}. "
                    "Update gpt4image, or export the run again."
                )
            classes, source, task = found["classes"], found["source"], found.get("task", Classification.name)
            right = isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
            if not right or not isinstance(source, dict) or not isinstance(task, str):
                raise TypeError("classes, source or task")
            return cls(
                classes=tuple(classes),
                preprocessing=Preprocessing.from_dict(found["preprocessing"]),
                task=task,
                source=source,
            )
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise ModelError(f"{where}: its metadata is malformed ({error}); export the run again.") from None
