"""The model of a finished run, and what models say of images: predictions, pooled features, text-space embeddings.

What layers that stay as they are (``--freeze``) make of images is computed once, and the runs of a comparison share it.
A step of a classifier alone then costs a thousandth of one that runs the whole model. Where the last stages learn too,
activations of several views of each image are kept: random crops and flips, drawn anew in each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.artifacts import runs
from gpt4image.artifacts.probabilities import concat, take
from gpt4image.artifacts.table import read_manifest
from gpt4image.base.errors import ConfigError, Gpt4ImageError, RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.progress import progress_bar, say
from gpt4image.config import TrainConfig
from gpt4image.config.learning import ResolvedOptions
from gpt4image.data.dataset import Dataset
from gpt4image.data.pixels import KeptFeatures, Pixels, WorkerPixels, available_cores
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.registry import load_known_encoder
from gpt4image.models.aligner import Headed, projection_head
from gpt4image.models.backbones import OF_PYTHON, Backbone, in_timm, require_backed, require_weights_of
from gpt4image.models.hugging_face import OF_TRANSFORMERS
from gpt4image.models.neighbours import Neighbours
from gpt4image.models.stages import cut, stages
from gpt4image.models.weights import load_tensors
from gpt4image.parallel import processes
from gpt4image.parallel.devices import autocast, choose_device, memory_format_of
from gpt4image.tasks.base import Predictions, Task
from gpt4image.tasks.decision import Decision
from gpt4image.tasks.registry import find_task
from gpt4image.training.augment import Augmentation, BatchRng, eval_batch, random_geometry, recoloured
from gpt4image.training.auto import VIEWS, stored_as
from gpt4image.training.prepare import Prepared
from gpt4image.training.trainer import augmentation_of, make_backbone
from gpt4image.training.training_data import TrainingData

Array = NDArray[np.float32]
WORTH_WORKERS = 1024  # images; fewer are decoded before worker processes have started
EVAL_BATCH, EVAL_SIZE = 256, 224
"""Images of a batch, and the largest at which it has so many: of larger ones it has as many pixels."""
OF_FEATURES = ("model", "model_args", "init", "image_size", "stem", "drop_path", "device", "memory_format",
               "freeze", "flip", "shift", "min_scale")  # fmt: skip
"""Options that features depend on."""
ON_CPU = 32
"""Images at once there: larger batches take memory anew for each layer, which took more time than the layers."""
_last: list[tuple[Pixels, dict[str, Any], KeptFeatures]] = []
"""Features that were computed last in this process; the runs of a comparison need the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSpace:
    """The text space of a run: ``revision`` is that of its encoder's weights; ``width`` is D."""

    encoder: str
    revision: str
    width: int | None = None

    def load_encoder(self, device: str) -> TextEncoder:
        """Return the text encoder. Raises ModelError: it is not the one that the run was aligned to any more."""
        whose = "The run was aligned to"
        return load_known_encoder(self.encoder, device, revision=self.revision, width=self.width, whose=whose)


def write_text_space(run_dir: Path, embeddings: Path) -> None:
    """Note in a run folder what its images were aligned to."""
    manifest = read_manifest(embeddings)
    made = {name: getattr(manifest, name) for name in ("encoder", "revision", "width")}
    write_json(run_dir / runs.TEXT_SPACE, made)


def read_text_space(run_dir: Path) -> TextSpace:
    """Return the text space of a run with alignment. Raises RunError: there is none."""
    record = read_json(run_dir / runs.TEXT_SPACE)
    return TextSpace(encoder=record["encoder"], revision=record["revision"], width=record["width"])


class Outputs(NamedTuple):
    """Outputs of a model for n images: ``predictions`` after the task's tail, pooled ``features`` (n, C)."""

    predictions: Any
    features: Array

    def only(self, rows: NDArray[np.bool_]) -> Outputs:
        """Return the outputs of some of the images."""
        return Outputs(take(self.predictions, rows), self.features[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class RunModel:
    """The trained model of a run, in evaluation mode.

    ``task`` has what was decided for the run, ``classes`` is their number, ``head`` maps pooled features to the text
    space; None without alignment. ``foreign_texts`` says why the vectors of its embedding table have no place in that
    space. ``neighbours`` tell images that are none of the classes.
    """

    config: TrainConfig
    task: Task
    classes: int
    backbone: nn.Module
    head: nn.Module | None
    augmentation: Augmentation
    text_space: TextSpace | None = None
    foreign_texts: str = ""
    neighbours: Neighbours | None = None

    def pixels(self, images: Dataset) -> WorkerPixels:
        """Return images as the run reads its own, decoded when they are asked for; many by worker processes."""
        workers = self.config.workers or available_cores()
        workers = workers if len(images) > WORTH_WORKERS else 0
        return WorkerPixels(images, workers=workers, **stored_as(self.config, self.task))

    def read(self, pixels: Pixels, indices: NDArray[np.int64], *, precision: str = "fp32") -> Outputs:
        """Return the outputs of the model for the images at ``indices``, in the precision of deployed models."""
        device, memory_format = choose_device(self.config.device), memory_format_of(self.config.memory_format)
        self.backbone.to(device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        reader = Headed(self.backbone).eval()
        tail = self.task.tail()

        def read(inputs: Tensor) -> tuple[Tensor, Tensor]:
            if inputs.ndim == 2:  # features that a comparison keeps
                return tail(reader.classify(inputs).float()), inputs
            found, features = reader.read(inputs)
            return tail(found.float()), features

        try:
            config = self.config.resolved
            at_once = images_at_once(self.task, self.classes, config.image_size)
            with autocast(device, precision):
                return Outputs(*outputs(read, pixels, indices, self.augmentation, config, at_once))
        finally:
            reader.release()

    @torch.inference_mode()
    def known(self, features: Array) -> Array | None:
        """Return ``known`` (n,) of images by their pooled features (n, C); None where it is not kept."""
        if self.neighbours is None:
            return None
        return np.concatenate([self.neighbours(part).numpy() for part in torch.from_numpy(features).split(EVAL_BATCH)])

    @torch.inference_mode()
    def embed(self, features: Array) -> Array:
        """Return the (n, D) unit-length embeddings in the text space of pooled features (n, C)."""
        if self.head is None:
            raise RunError("This run learned no alignment: it has no projection head to the text space.")
        return nn.functional.normalize(self.head.cpu()(torch.from_numpy(features)), dim=1).numpy()


def load_run_model(run_dir: Path, task: Task | None, classes: Sequence[str]) -> RunModel:
    """Return the model of a finished run."""
    record = runs.read_run(run_dir)
    config, decision = options_of(record), Decision.of(record["run"].get(runs.DECISION), len(classes))
    task = (task or find_task(config.task, config)).with_decision(decision)
    outputs = task.outputs(classes)
    weights = load_tensors(run_dir / runs.MODEL)[0]
    untrained = config.resolved.model_copy(update={"init": "scratch"})
    if untrained.model.startswith(OF_TRANSFORMERS):
        with torch.device("meta"):
            structure = make_backbone(untrained, outputs).module
        require_weights_of(structure, untrained.model, weights)
    elif not untrained.model.startswith(OF_PYTHON):
        architecture, args = timm_form(config)
        require_backed(architecture, {"num_classes": outputs, **args}, weights)
    plain = make_backbone(untrained, outputs).module
    backbone = task.model(plain, config.resolved.image_size)
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        what = f"The weights of {run_dir} do not fit a set of {len(classes)} classes"
        raise RunError(f"{what}: {str(error).splitlines()[-1].strip()}") from None
    head, space, foreign = None, None, ""
    if (run_dir / runs.HEAD).is_file():
        try:
            space = read_text_space(run_dir)
        except Gpt4ImageError as error:
            foreign = str(error)
        of_head, _ = load_tensors(run_dir / runs.HEAD)
        linear = [tensor for tensor in of_head.values() if tensor.ndim == 2]
        head = projection_head(config.head, linear[0].shape[1], linear[-1].shape[0]).eval()
        head.load_state_dict(of_head)
    return RunModel(
        config=config,
        task=task,
        classes=len(classes),
        backbone=backbone.eval(),
        head=head,
        augmentation=augmentation_of(config.resolved, backbone),
        text_space=space,
        foreign_texts=foreign,
        neighbours=None if decision.reject is None else Neighbours.load(run_dir / runs.KNOWN),
    )


def timm_form(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    """Return the architecture and the arguments by which timm makes the model of a run. Raises ModelError."""
    own = config.resolved
    stem = "small" if own.stem == "small" else "standard"
    return in_timm(own.model, image_size=own.image_size, stem=stem, model_args=own.model_args)


def options_of(record: runs.RunRecord) -> TrainConfig:
    """Return the options of a run from its record; a device that is not here becomes auto: it makes no other run."""
    options = {key: value for key, value in record["config"].items() if key in TrainConfig.model_fields}
    config = TrainConfig(**options)
    try:
        choose_device(config.device)
    except ConfigError:
        return config.model_copy(update={"device": "auto"})
    return config


def images_at_once(task: Task, classes: int, size: int) -> int:
    """Return how many images or clips of ``size`` pixels are predicted at once."""
    planes = 1 if task.frames is None else task.frames.count
    if task.output == "mask":
        planes *= classes
    return max(1, EVAL_BATCH * EVAL_SIZE**2 // max(EVAL_SIZE, size) ** 2 // planes)


def predict(
    model: Headed, data: TrainingData, indices: NDArray[np.int64], augmentation: Augmentation, config: ResolvedOptions
) -> Predictions:
    """Return (n, ...) predictions of the images at ``indices``: what the task makes of the outputs of ``model``."""
    model.eval()
    if not len(indices):
        return np.zeros((0, *data.task.shape(len(data.classes), config.image_size)), np.float32)
    tail = data.task.tail()
    at_once = images_at_once(data.task, len(data.classes), config.image_size)

    def read(inputs: Tensor) -> tuple[Tensor]:
        return (tail(model.classify(inputs).float()),)

    return outputs(read, data.pixels, indices, augmentation, config, at_once)[0]


@torch.inference_mode()
def outputs(
    read: Callable[[Tensor], tuple[Tensor, ...]],
    pixels: Pixels,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    config: ResolvedOptions,
    at_once: int,
) -> tuple[Any, ...]:
    """Return what ``read`` gives of images, batch by batch: (B, 3, T, T) normalised pixels to tensors (B, ...).

    It computes in float32, as deployed models do, unless it is called within autocast. Where several processes share a
    run, all of them call this; each reads some of the batches, and all get all rows. ``pixels`` may be features (B, C),
    which ``read`` gets as they are.
    """
    device = choose_device(config.device)
    batches = [indices[start : start + at_once] for start in range(0, len(indices), at_once)]
    # Each process reads as many batches, some of them twice over all: gathers need all processes.
    turns = range(processes.rank(), -(-len(batches) // processes.count()) * processes.count(), processes.count())
    numbers = [turn % len(batches) for turn in turns]
    rows: dict[int, tuple[Any, ...]] = {}
    for number, batch in zip(numbers, pixels.stream(batches[number] for number in numbers), strict=True):
        inputs = batch.to(device)
        inputs = inputs.float() if inputs.is_floating_point() else eval_batch(inputs, augmentation)
        if inputs.ndim == 4:  # else they are pooled features
            inputs = inputs.contiguous(memory_format=memory_format_of(config.memory_format))
        found = read(inputs)
        arrays = [(part.float() if part.is_floating_point() else part).cpu().numpy() for part in found]
        rows[number] = tuple(arrays)
    return tuple(concat(parts) for parts in zip(*processes.all_gather_dict(rows), strict=True))


def with_features(ready: Prepared) -> Prepared:
    """Return a run with what its frozen layers make of the images in the place of their pixels, where that can be."""
    config, data = ready.config.resolved, ready.data
    task, text = data.task, data.text is not None and config.aligns
    changed = (config.colour, config.erase, config.auto_augment, config.mixes)
    more = (config.consistency, config.pretraining, config.compile, task.frames)
    if config.freeze == "none" or any((*changed, *more)) or task.output != "probabilities":
        return ready
    if isinstance(data.pixels, KeptFeatures):
        return ready
    pooled = config.freeze == "all"
    if pooled and (text or config.min_scale != 1.0 or config.flip or config.shift):
        return ready
    options = {name: getattr(config, name) for name in OF_FEATURES}
    for pixels, those, kept in _last:
        if pixels is data.pixels and those == options:
            return replace(ready, data=replace(data, pixels=kept))
    body = make_backbone(config, task.outputs(data.classes))
    kept = _pooled(config, data, body) if pooled else _activations(config, data, body.module)
    if kept is None:
        return ready
    _last[:] = [(data.pixels, options, kept)]
    return replace(ready, data=replace(data, pixels=kept))


def _pooled(config: ResolvedOptions, data: TrainingData, found: Backbone) -> KeptFeatures | None:
    """Return the pooled features of all images; None where the classifier is not the one layer that learns."""
    body = found.module
    classifier: Any = body.get_classifier() if hasattr(body, "get_classifier") else None  # pyright: ignore[reportCallIssue]
    if not isinstance(classifier, nn.Linear) or len(found.new_layers) > 1:
        return None
    if processes.rank() == 0:
        say(f"computing the features of {len(data.pixels):,} images once, as --freeze all keeps the weights")
    device = choose_device(config.device)
    body.to(device, memory_format=memory_format_of(config.memory_format))  # pyright: ignore[reportCallIssue]
    reader = Headed(body).eval()
    at_once = images_at_once(data.task, len(data.classes), config.image_size)
    at_once = min(at_once, ON_CPU) if device.type == "cpu" else at_once
    every, how = np.arange(len(data.pixels)), augmentation_of(config, body)
    (features,) = outputs(lambda inputs: (reader.read(inputs)[1],), data.pixels, every, how, config, at_once)
    return KeptFeatures(torch.from_numpy(features), data.pixels)


@torch.inference_mode()
def _activations(config: ResolvedOptions, data: TrainingData, body: nn.Module) -> KeptFeatures | None:
    """Return what the frozen stages make of the plain view of each image, and of VIEWS random ones to train on.

    None where the memory does not hold it, where processes share the run, or where the model cannot be cut or begin
    with a linear classifier.
    """
    device, memory_format = choose_device(config.device), memory_format_of(config.memory_format)
    parts = cut(body, stages(body)[config.kept_stages - 1], config.image_size)
    linear = isinstance(body.get_classifier(), nn.Linear)  # pyright: ignore[reportCallIssue]
    if parts is None or processes.count() > 1 or not linear:
        return None
    how, every = augmentation_of(config, body), np.arange(len(data.pixels))
    body.to(device, memory_format=memory_format).eval()  # pyright: ignore[reportCallIssue]

    def kept(inputs: Tensor) -> Tensor:
        return parts.kept(inputs.contiguous(memory_format=memory_format)).to("cpu", torch.float16)

    shape = kept(torch.zeros(1, 3, config.image_size, config.image_size, device=device)).shape[1:]
    train = np.isin(every, data.indices("train"))
    views = np.where(train, 1 + VIEWS, 1)
    size = int(views.sum()) * shape.numel() * 2
    if size > config.memory_limit_gb * 1e9:
        say(
            f"the activations of {config.kept_stages} stages would take {size / 1e9:.1f} GB, more than "
            f"--memory-limit-gb {config.memory_limit_gb:g}: each epoch computes them again"
        )
        return None
    say(f"computing {int(views.sum()):,} views of {len(every):,} images once: {size / 1e6:,.0f} MB in memory")
    features = torch.empty((int(views.sum()), *shape), dtype=torch.float16)
    first = np.concatenate([[0], np.cumsum(views)[:-1]])
    batches = [every[start : start + ON_CPU] for start in range(0, len(every), ON_CPU)]
    with progress_bar() as bar:
        row = bar.add_task("views", total=len(every), note="")
        for number, (indices, images) in enumerate(zip(batches, data.pixels.stream(batches), strict=True)):
            pixels = images.to(device)
            features[torch.from_numpy(first[indices])] = kept(eval_batch(pixels, how))
            learned = np.flatnonzero(train[indices])
            state = torch.Generator().manual_seed(number)
            rng = BatchRng(generator=state, total=len(learned), rows=torch.arange(len(learned)))
            for view in range(1, 1 + VIEWS if len(learned) else 1):
                moved = random_geometry(pixels.shape[-1], how, rng).pixels(pixels[learned])
                features[torch.from_numpy(first[indices[learned]] + view)] = kept(recoloured(moved, how, rng))
            bar.advance(row, len(indices))
    rows = first[:, None] + np.where(train[:, None], np.arange(1 + VIEWS), 0)
    return KeptFeatures(features, data.pixels, rows)
