"""The text space of a run: what its images were aligned to, so that other texts can be compared to them later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.table import read_manifest
from gpt4image.base.checksums import damaged
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import TrainConfig
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.registry import load_known_encoder
from gpt4image.encoding.text_encoders.tuning import FOLDER
from gpt4image.training.text_targets import TextTargets

RECORD = runs.TEXT_SPACE


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSpace:
    """Where a text lies in the space that the images of a run were aligned to.

    Attributes:
        encoder: SPEC of the text encoder.
        revision: fingerprint of its weights; empty for one that learned with the run, or that is not known.
        width: D, length of its vectors; None where that is not known.
        centre: (D,) float32, what was subtracted from the vectors of texts; None where nothing was.
    """

    encoder: str
    revision: str
    width: int | None = None
    centre: NDArray[np.float32] | None = None

    def place(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (n, D) vectors of an encoder as the alignment had them: centred as ``--centre`` says, length 1."""
        moved = vectors if self.centre is None else vectors - self.centre
        return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6)

    def load_encoder(self, device: str) -> TextEncoder:
        """Return the text encoder.

        Raises:
            ModelError: it cannot be found, or is not the one that the run was aligned to any more.
        """
        whose = "The run was aligned to"
        return load_known_encoder(self.encoder, device, revision=self.revision, width=self.width, whose=whose)


def write_text_space(run_dir: Path, config: TrainConfig, text: TextTargets) -> None:
    """Note in a run folder what its images were aligned to: the targets ``text``, of the embedding table."""
    if config.embeddings is None:
        return
    manifest = read_manifest(config.embeddings)
    centre = None if text.centre is None else text.centre.tolist()
    made = {name: getattr(manifest, name) for name in ("encoder", "revision", "width")}
    write_json(run_dir / RECORD, {**made, "centre": centre})


def read_text_space(run_dir: Path, config: TrainConfig) -> TextSpace:
    """Return the text space of a run with alignment.

    Raises:
        RunError: it was made before runs kept their text space.
        TableError: the run was made before, and its embedding table is gone.
    """
    if (run_dir / FOLDER).is_dir():
        return TextSpace(encoder=f"tuned:{run_dir}", revision="")
    if (run_dir / RECORD).is_file():
        record = read_json(runs.recorded_file(run_dir, RECORD))
        try:
            centre = None if record["centre"] is None else np.array(record["centre"], np.float32)
            return TextSpace(
                encoder=record["encoder"], revision=record["revision"], width=record.get("width"), centre=centre
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RunError(damaged(run_dir / RECORD, "it does not hold what train writes")) from None
    if config.centre != "none" or config.embeddings is None:
        raise RunError(
            f"{run_dir} does not say what was subtracted from its texts (--centre {config.centre}): there is no "
            f"{RECORD}, for it was made by an older gpt4image. Train it again."
        )
    manifest = read_manifest(config.embeddings)
    return TextSpace(encoder=manifest.encoder, revision=manifest.revision, width=manifest.width)
