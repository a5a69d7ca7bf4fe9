"""What a deployed model says of itself, as JSON inside its file: classes, preprocessing and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gpt4image.base.errors import ModelError
from gpt4image.base.files import parse_json
from gpt4image.deploying.preprocessing import Preprocessing, wrong_value
from gpt4image.tasks.classification import Classification

FORMAT = 1
ONNX_KEY = "gpt4image"
"""Key of the JSON in the metadata_props of an ONNX file."""
EXTRA_FILE = "gpt4image.json"
"""Name of the JSON among the extra files of a torch-export archive."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True))
class Metadata:
    """What is needed to use a model, and what is known of its making.

    Attributes:
        format: of this record; another one is refused.
        classes: K class names, in the order of the output.
        preprocessing: how pictures become inputs.
        task: what the model was trained for; it says what the output means.
        thresholds: probability of each class from which on it counts as present, for multi-label classification.
        source: facts about the run, JSON-serialisable.
    """

    format: int = FORMAT
    classes: tuple[str, ...] = Field(min_length=1)
    preprocessing: Preprocessing
    task: str = Classification.name
    thresholds: tuple[float, ...] | None = None
    source: Mapping[str, Any] = Field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as JSON."""
        return _JSON.dump_json(self).decode()

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
            written = parse_json(text)["format"]
            if written != FORMAT:
                raise ModelError(
                    f"{where} is of format {written!r}; this version of gpt4image reads format {FORMAT}. "
                    "Update gpt4image, or export the run again."
                )
            return _JSON.validate_json(text)
        except (ValueError, TypeError, KeyError) as error:
            reason = wrong_value(error) if isinstance(error, ValidationError) else error
            raise ModelError(f"{where}: its metadata is malformed ({reason}); export the run again.") from None


_JSON = TypeAdapter(Metadata)
