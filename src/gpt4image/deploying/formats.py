"""The formats of an exported model: timm, onnx and torch-export.

timm is what plain timm loads, from the disk or as a repository of the Hugging Face hub: ``config.json``,
``model.safetensors`` (the run's weights, byte for byte) and, for ResNets with a small stem, ``small_stem.py``, which is
to be imported before.

onnx and torch-export are one file with the whole computation. The input ``images`` is float32 (N, 3, S, S), or
(N, T, 3, S, S) of clips, RGB in 0..1; the output is float32 (N, K) ``probabilities``, or what else the task predicts,
for any N. Normalisation and the last step of the task (softmax, say) are inside. Class names and the rest are JSON in
the file, see ``Metadata``. Where ``decision.reject`` is there, a second output is float32 (N,) ``known``, in 0..1: an
image is none of the classes where it is below ``decision.reject.share``. timm's format has it as a file of its own.

An export is checked: it predicts images as users do, the run as its evaluation does, in float32, and both must agree.
"""

import hashlib
import importlib.util
import io
import shutil
import warnings
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image import __version__
from gpt4image.artifacts import runs
from gpt4image.base.errors import ExportError, MissingExtraError, first_line
from gpt4image.base.files import write_json
from gpt4image.base.outcome import Skipped
from gpt4image.data import Dataset
from gpt4image.data.pixels import load_pixels
from gpt4image.deploying.benchmark import decoded
from gpt4image.deploying.benchmark import predicted as outputs_of
from gpt4image.deploying.loading import (
    CONFIG,
    DECISION,
    EXTRA_FILE,
    KNOWN_OUTPUT,
    ONNX_KEY,
    TASK,
    WEIGHTS,
    Classifier,
    Metadata,
    reader_of,
)
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.models import small_stem
from gpt4image.models.neighbours import Neighbours
from gpt4image.models.pyramid import PyramidModel
from gpt4image.tasks.base import Predictions
from gpt4image.training.auto import stored_as
from gpt4image.training.run_model import RunModel, timm_form

LARGEST_ONNX = 2_000_000_000  # bytes; protobuf holds no more in one message
MOST_IMAGES = 256  # on which an export is checked
TOLERANCE = 1e-4  # largest difference of a probability that is still rounding: measured are some 1e-7
KNOWN_TOLERANCE = 0.01  # it is a share of some thousand images: rounding moves it by a few of them
KEPT = ("fixed_input_size", "first_conv", "classifier")  # what timm needs for other classes, channels and sizes


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedModel:
    """The plain model of a finished run, on the CPU; its projection head to the text space stays behind.

    ``classes`` are its K class names, in the order of the logits.
    """

    run_dir: Path
    model: RunModel
    classes: tuple[str, ...]

    @property
    def weights(self) -> Path:
        """The run's file of weights."""
        return self.run_dir / runs.MODEL

    @property
    def arm(self) -> str:
        """The comparison arm that the run belongs to."""
        return runs.read_config(self.run_dir)["arm"]

    @property
    def pretrained(self) -> tuple[str, str | None] | None:
        """Name and licence of the published weights that training began with, if it did."""
        facts: Any = getattr(self.model.backbone, "pretrained_cfg", None)
        resolved = self.model.config.resolved
        return (resolved.model, facts and facts.get("license")) if resolved.init == "pretrained" else None

    @cached_property
    def needs_small_stem(self) -> bool:
        """Whether timm knows the model only once ``small_stem`` was imported."""
        return self.model.task.in_timm and timm_form(self.model.config)[0] == small_stem.NAME

    @cached_property
    def metadata(self) -> Metadata:
        """Facts that every format has, to be used without its run; no path of this machine is among them."""
        source = {
            "gpt4image": __version__,
            "model": self.model.config.model,
            "arm": self.arm,
            "seed": self.model.config.seed,
            "weights_sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
        }
        task, how = self.model.task, Preprocessing.of_run(self.model)
        return Metadata(classes=self.classes, preprocessing=how, task=task.name, decision=task.decision, source=source)


def write_timm(path: Path, exported: ExportedModel) -> None:
    """Write the files of timm's format into the folder ``path``."""
    architecture, args = timm_form(exported.model.config)
    backbone: Any = exported.model.backbone
    about = exported.metadata
    config = {
        "architecture": architecture,
        "num_classes": len(about.classes),
        "num_features": backbone.num_features,
        "label_names": list(about.classes),
        "model_args": args,
        "pretrained_cfg": {
            **{key: backbone.pretrained_cfg[key] for key in KEPT if key in backbone.pretrained_cfg},
            **about.preprocessing.to_timm(),
            "num_classes": len(about.classes),
        },
        TASK: about.task,
        DECISION: asdict(about.decision),
        "source": about.source,
    }
    write_json(path / CONFIG, config)
    shutil.copyfile(exported.weights, path / WEIGHTS)
    if about.decision.reject is not None:
        shutil.copyfile(exported.run_dir / runs.KNOWN, path / runs.KNOWN)
    if exported.needs_small_stem:
        shutil.copyfile(small_stem.__file__, path / "small_stem.py")


class PixelsToProbabilities(nn.Module):
    """A classifier with what comes before and after it: (N, 3, S, S) RGB in 0..1 to (N, K) probabilities, and to (N,)
    ``known`` where there are ``neighbours``."""

    def __init__(
        self, backbone: nn.Module, preprocessing: Preprocessing, tail: nn.Module, neighbours: Neighbours | None
    ) -> None:
        super().__init__()
        self.backbone, self.preprocessing, self.tail = backbone, preprocessing, tail
        self.neighbours = neighbours
        self._read = reader_of(backbone, neighbours)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the class probabilities, and ``known`` if there is one."""
        logits, *known = self._read(self.preprocessing.normalised(images))
        return (self.tail(logits), known[0]) if known else self.tail(logits)


def write_torch_export(path: Path, exported: ExportedModel) -> Classifier:
    """Write a .pt2 file for torch.export.load; return its program, as a classifier. Nothing here loads a .pt2 file.

    Raises ExportError: torch cannot trace the model.
    """
    program = _traced(exported)
    written = io.BytesIO()  # torch writes to a path in C++, which ends the process where the disk is full
    torch.export.save(program, written, extra_files={EXTRA_FILE: exported.metadata.to_json()})
    path.write_bytes(written.getbuffer())
    module = program.module()

    @torch.inference_mode()
    def read(images: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        found = module(torch.from_numpy(images))
        return tuple(each.numpy() for each in (found if isinstance(found, tuple) else (found,)))

    return Classifier(
        task=exported.model.task, classes=exported.classes, preprocessing=exported.metadata.preprocessing, read=read
    )


def write_onnx(path: Path, exported: ExportedModel) -> None:
    """Write an ONNX file of the operator set that torch writes by default, checked by onnx.

    Raises ExportError: torch cannot trace the model or put it into ONNX, or it is too large for one file.
    """
    import onnx

    if exported.weights.stat().st_size > LARGEST_ONNX:
        raise ExportError(f"{exported.weights} is larger than the 2 GB of an ONNX file; use --format torch-export.")
    program = _traced(exported)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch about its own parts
            warnings.simplefilter("ignore", DeprecationWarning)
            outputs = [exported.model.task.output, *([KNOWN_OUTPUT] if exported.model.neighbours else [])]
            names: Any = {"input_names": ["images"], "output_names": outputs}
            converted: Any = torch.onnx.export(program, **names, dynamo=True, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"torch cannot put this model into ONNX: {first_line(error)} Use another --format."
        ) from error
    file = converted.model_proto
    for node in file.graph.node:
        del node.metadata_props[:]  # where in the source each operator comes from, with paths of this machine
    file.producer_name = "gpt4image"
    file.metadata_props.add(key=ONNX_KEY, value=exported.metadata.to_json())
    onnx.checker.check_model(file, full_check=True)
    path.write_bytes(file.SerializeToString())


def require_onnx() -> None:
    """Raise MissingExtraError where a package that writes or runs ONNX is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
        raise MissingExtraError("--format onnx", "onnx")


def _traced(exported: ExportedModel) -> Any:
    """Return the model as an exported program for any number of images, without traces of this machine."""
    backbone = exported.model.backbone
    if isinstance(backbone, PyramidModel):
        backbone.classifies = False
    how, tail = exported.metadata.preprocessing, exported.model.task.tail()
    whole = PixelsToProbabilities(backbone, how, tail, exported.model.neighbours).eval()
    layers: Any = whole.modules()
    for layer in layers:
        if hasattr(layer, "inplace"):
            layer.inplace = False  # the same numbers; to put them into ONNX takes half as long
    try:
        with torch.no_grad():
            program = torch.export.export(
                whole, (torch.zeros(2, *how.shape),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
            )
    except (RuntimeError, ValueError) as error:  # torch._dynamo's own are RuntimeErrors
        instead = " Use --format timm." if exported.model.task.in_timm else ""
        raise ExportError(
            f"torch.export cannot trace {exported.model.config.model}: {first_line(error)}{instead}"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program.example_inputs = None  # they would be pickled into the file
    return program


class Predicted(NamedTuple):
    """Images, positions (n,) of those that can be decoded, what a run predicts of these (n, ...), how well it knows
    them (n,), and the others."""

    images: Dataset
    indices: NDArray[np.int64]
    predictions: Predictions
    known: NDArray[np.float32] | None
    skipped: tuple[Skipped, ...]


def predicted_by_run(model: RunModel, image_set: Dataset) -> Predicted:
    """Return what a run predicts, in float32 on the CPU, of up to MOST_IMAGES images, spread evenly over the test
    split, or else validation, or else all."""
    splits = (image_set.indices(split) for split in ("test", "val"))
    some = next((found for found in splits if len(found)), np.arange(len(image_set)))
    images = image_set.select(some[np.linspace(0, len(some) - 1, min(len(some), MOST_IMAGES)).astype(int)])
    options = model.config.model_copy(update={"device": "cpu", "memory_format": "contiguous"})
    stored = stored_as(options, model.task)
    pixels, skipped, usable = load_pixels(images, memory_limit_gb=float("inf"), workers=1, **stored)
    indices = np.flatnonzero(usable)
    found = replace(model, config=options).read(pixels, indices)
    return Predicted(images, indices, found.predictions, model.known(found.features), skipped)


def largest_difference(classifier: Classifier, run: Predicted) -> float:
    """Return the largest difference of any prediction between an exported model and its run.

    Raises ExportError: it is more than rounding, or NaN; or the exported model knows other images.
    """
    own, _ = decoded(classifier.preprocessing, run.images.select(run.indices))
    theirs, *known = outputs_of(classifier, own)
    largest = classifier.task.difference(run.predictions, theirs)
    if run.known is not None and not np.abs(known[0] - run.known).max() <= KNOWN_TOLERANCE:
        raise ExportError(
            f"The exported model does not know the images of the run: {KNOWN_OUTPUT} differs by up to "
            f"{np.abs(known[0] - run.known).max():.2g} on {len(own)} images. Nothing was written; use another --format."
        )
    if not largest <= TOLERANCE:
        raise ExportError(
            f"The exported model is not the model of the run: on {len(own)} images their predictions differ by up "
            f"to {largest:.2g} (allowed is {TOLERANCE:g}). Nothing was written; use another --format."
        )
    return largest
