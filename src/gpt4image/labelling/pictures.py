"""Pictures as evidence: frozen features of pretrained weights that lie on this machine, or of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import blocks
from gpt4image.artifacts.table import digests_to_bytes
from gpt4image.base.errors import ConfigError
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import Dataset
from gpt4image.labelling.texts import unit

if TYPE_CHECKING:
    from gpt4image.training.run_model import RunModel

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

FEATURES = ".features"  # ending of the folder beside the answers that keeps features of pictures
USUAL = ("resnet18", "tf_efficientnet_lite0")  # ``auto`` takes the first one whose weights lie here
WIDTH = 256  # principal directions that are kept: as good as all 1,280 of EfficientNet-Lite0, in a fifth of the time


class Pictures(NamedTuple):
    """Features of N pictures, (N, D) of length 1, and (N,) which could be read; rows of others are not looked at."""

    vectors: NDArray[np.floating]
    seen: Bools

    def take(self, rows: NDArray[np.int64]) -> Pictures:
        """Return those of some images."""
        return Pictures(self.vectors[rows], self.seen[rows])

    def principal(self, reference: NDArray[np.int64]) -> Pictures:
        """Return the same on the WIDTH principal directions of the pictures at ``reference``, float32."""
        among, width = reference[self.seen[reference]], self.vectors.shape[1]
        total, squares = np.zeros(width), np.zeros((width, width))
        for rows in blocks(len(among), width):
            own = self.vectors[among[rows]].astype(np.float32)
            total, squares = total + own.sum(axis=0), squares + own.T @ own
        mean = total / max(len(among), 1)
        directions = np.linalg.eigh(squares / max(len(among), 1) - np.outer(mean, mean))[1][:, -WIDTH:]
        found = np.zeros((len(self.seen), directions.shape[1]), np.float32)
        for rows in blocks(len(found), width):
            own = unit((self.vectors[rows].astype(np.float32) - mean) @ directions)
            found[rows] = np.where(self.seen[rows][:, None], own, 0.0)
        return Pictures(found, self.seen)


def read_pictures(
    images: Dataset, wanted: Bools, features: str, folder: Path
) -> tuple[Pictures | None, tuple[Skipped, ...]]:
    """Return features of N pictures, kept in ``folder`` so that only new ones are read; and those without any.

    ``wanted`` are (N,) pictures that are looked at. Other features have a folder of their own in ``folder``; how the
    data is named does not matter.

    None for ``none``, and for ``auto`` where no weights lie here or the images are clips.
    """
    found = None if features == "none" or (features == "auto" and images.clips) else _model(images, features)
    if found is None:
        return None, ()
    from gpt4image.artifacts.image_index import open_index, up_to_date
    from gpt4image.artifacts.table import find_digests
    from gpt4image.base.progress import progress_bar

    name, model = found
    some = np.flatnonzero(wanted)
    images = images.select(some)
    every = digests_to_bytes(images.digests)
    distinct, first = np.unique(every.view("S32").reshape(-1), return_index=True)
    identity = {"features": name, "image_size": model.config.image_size}
    folder /= f"{name}-{model.config.image_size}"
    pixels, earlier = model.pixels(images), open_index(folder, identity)
    with progress_bar() as bar:
        task = bar.add_task("features of pictures", total=len(first), note="")

        def read(numbers: NDArray[np.int64]) -> tuple[Floats, Bools]:
            places = first[numbers]
            own = model.read(pixels, places, precision=model.config.precision).features
            bar.advance(task, len(places))
            return unit(own), ~pixels.broken(places)

        width = 1 if earlier is None else earlier.embeddings.shape[1]
        digests = distinct.view(np.uint8).reshape(-1, 32)
        index, _ = up_to_date(folder, identity, digests, np.argsort(first), width, read, "--out")
    rows = find_digests(index.digests, every)
    vectors, seen = np.zeros((len(wanted), index.embeddings.shape[1]), np.float16), np.zeros(len(wanted), bool)
    vectors[some], seen[some] = index.embeddings[np.maximum(rows, 0)], rows >= 0
    return Pictures(vectors, seen), pixels.skipped


def _model(images: Dataset, features: str) -> tuple[str, RunModel] | None:
    """Return what is to compute features, by a name that decides them."""
    from gpt4image.artifacts import runs
    from gpt4image.base.files import file_digest
    from gpt4image.config import TrainConfig
    from gpt4image.config.learning import PRETRAIN
    from gpt4image.models.backbones import pretrained_weights
    from gpt4image.tasks.classification import Classification
    from gpt4image.training import auto
    from gpt4image.training.run_model import RunModel, load_run_model
    from gpt4image.training.trainer import augmentation_of, make_backbone

    if Path(features).is_dir():
        record = runs.read_run(Path(features))
        if record["config"].get("task") != PRETRAIN and record["config"]["data"] == images.spec:
            raise ConfigError(
                f"--features {features}: this run has learned the labels of these images, so its features would repeat "
                f"them. Give a run of --task {PRETRAIN}, one of other images, or a model with pretrained weights."
            )
        name = f"run-{file_digest(Path(features) / runs.MODEL)[:16]}"
        return name, load_run_model(Path(features), None, record["run"]["classes"])
    name = features
    if features == "auto":
        here = [model for model in USUAL if pretrained_weights(model) == "here"]
        if not here:
            return None
        name = here[0]
    elif (where := pretrained_weights(features)) != "here":
        raise ConfigError(
            f"--features {features}: "
            + (
                "its weights are not on this machine; fetch them once by `gpt4image train --model "
                f"{features} --init pretrained`, or give --features none."
                if where == "elsewhere"
                else "no model of timm with pretrained weights, and no folder of a run."
            )
        )
    options = TrainConfig(data=images.spec, out=Path(), model=name, init="pretrained", task=Classification.name)
    config = auto.choose(options, images)[0]
    backbone = Classification().model(make_backbone(config.resolved, 2).module, config.resolved.image_size).eval()
    model = RunModel(
        config=config,
        task=Classification(),
        classes=2,
        backbone=backbone,
        head=None,
        augmentation=augmentation_of(config.resolved, backbone),
    )
    return name, model
