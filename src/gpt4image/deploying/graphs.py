"""The formats onnx and torch-export: the whole computation in one file, from pixels to probabilities.

The input ``images`` is float32 (N, 3, S, S), or (N, T, 3, S, S) of clips, RGB in 0..1, the output ``probabilities``
float32 (N, K), for any N, or what else the task predicts.
Normalisation and the last step of the task (softmax, say) are inside, so that nobody can leave them out. What else
there is to know, class names first, is JSON in the file.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.base.errors import ExportError, MissingExtraError, first_line
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.deploying.loading import Classifier
from gpt4image.deploying.metadata import EXTRA_FILE, ONNX_KEY
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.models.pyramid import PyramidModel

INPUT = "images"
LARGEST_ONNX = 2_000_000_000  # bytes; protobuf holds no more in one message


class PixelsToProbabilities(nn.Module):
    """A classifier with what comes before and after it: (N, 3, S, S) RGB in 0..1 to (N, K) probabilities."""

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing, tail: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.preprocessing = preprocessing
        self.tail = tail

    def forward(self, images: Tensor) -> Tensor:
        """Return the class probabilities."""
        return self.tail(self.backbone(self.preprocessing.normalised(images)))


def write_torch_export(path: Path, exported: ExportedModel) -> Classifier:
    """Write a .pt2 file for torch.export.load; return its program, as a classifier. Nothing here loads a .pt2 file.

    Raises:
        ExportError: torch cannot trace the model.
    """
    program = _traced(exported)
    written = io.BytesIO()  # torch writes to a path in C++, which ends the process where the disk is full
    torch.export.save(program, written, extra_files={EXTRA_FILE: exported.metadata.to_json()})
    path.write_bytes(written.getbuffer())
    module = program.module()

    @torch.inference_mode()
    def probabilities(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return module(torch.from_numpy(images)).numpy()

    return Classifier(
        kind="torch-export",
        task=exported.model.task,
        classes=exported.classes,
        preprocessing=exported.preprocessing,
        probabilities=probabilities,
        source=exported.source,
    )


def write_onnx(path: Path, exported: ExportedModel) -> None:
    """Write an ONNX file of the operator set that torch writes by default, checked by onnx.

    Raises:
        ExportError: torch cannot trace the model or put it into ONNX, or it is too large for one file.
    """
    import onnx

    if exported.weights.stat().st_size > LARGEST_ONNX:
        raise ExportError(f"{exported.weights} is larger than the 2 GB of an ONNX file; use --format torch-export.")
    program = _traced(exported)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch about its own parts
            warnings.simplefilter("ignore", DeprecationWarning)
            names: Any = {"input_names": [INPUT], "output_names": [exported.model.task.output]}
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
    whole = PixelsToProbabilities(backbone, exported.preprocessing, exported.model.task.tail()).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(
                whole,
                (torch.zeros(2, *exported.preprocessing.shape),),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
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
