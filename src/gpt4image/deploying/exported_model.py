"""The model of a finished run: what every export format writes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4image import __version__
from gpt4image.artifacts import runs
from gpt4image.data.coco import category_ids
from gpt4image.deploying.metadata import Metadata
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.deploying.rows import ids_of_run
from gpt4image.training.run_model import RunModel, timm_form


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedModel:
    """The plain model of a finished run; its projection head to the text space stays behind.

    Attributes:
        run_dir: the run.
        model: its model, on the CPU.
        classes: K class names, in the order of the logits.
    """

    run_dir: Path
    model: RunModel
    classes: tuple[str, ...]

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the input."""
        return Preprocessing.of_run(self.model)

    @property
    def weights(self) -> Path:
        """The run's file of weights."""
        return self.run_dir / runs.MODEL

    @property
    def arm(self) -> str | None:
        """The comparison arm that the run belongs to."""
        return runs.read_run(self.run_dir)["config"].get("arm")

    def in_timm(self) -> tuple[str, dict[str, Any]]:
        """Return the architecture and the arguments by which timm makes the model."""
        return timm_form(self.model.config)

    @property
    def source(self) -> dict[str, Any]:
        """Where the model comes from, without a path of this machine."""
        known = next((one.categories for one in ids_of_run(self.run_dir).values()), None)
        return {
            "gpt4image": __version__,
            "model": self.model.config.model,
            "arm": self.arm,
            "seed": self.model.config.seed,
            "weights_sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            **({"category_ids": category_ids(self.classes, known)} if known else {}),
        }

    @property
    def metadata(self) -> Metadata:
        """What every format says of the model, so that it can be used without its run."""
        return Metadata(
            classes=self.classes,
            preprocessing=self.preprocessing,
            task=self.model.task.name,
            thresholds=self.model.task.thresholds,
            source=self.source,
        )
