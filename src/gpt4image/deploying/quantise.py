"""An exported ONNX file in fewer bits: int8 or half precision (fp16), and whether it is still good enough.

int8 is static: the ranges of what layers compute come from training images, weights have a scale per output channel
(Jacob et al. 2018, arXiv 1712.05877). In float stay what comes after the last layer with weights (softmax, boxes), what
only ``known`` needs, and the layers that a search finds to hurt most: each is quantised alone, then those whose error
is largest are left out, 1, 2, 4 and so on, until the model says the same of some of the validation images.

A model of other bits cannot be compared number by number, so validation images judge it by GOALS.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.base import intervals
from gpt4image.base.errors import ConfigError, ExportError, first_line
from gpt4image.base.progress import say
from gpt4image.data import Dataset, annotation
from gpt4image.deploying.benchmark import Entry, labels_of, milliseconds, predicted
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.preprocessing import as_images

Bits = Literal["int8", "fp16"]
CALIBRATION = 300  # training images at most
SEARCHED = 128  # images to judge by at most, in the search
SEARCH_SECONDS = 120.0
ENOUGH = 0.985  # of the answers that stay: the search ends there
BATCH = 16
WEIGHTED = ("Conv", "Gemm", "MatMul")
QUANTISED = (*WEIGHTED, "Relu", "Clip", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize")
SAME, LOSS = 0.98, 0.005  # of the answers at least; of the score at most
SIZE: dict[Bits, float] = {"int8": 0.3, "fp16": 0.55}
TIME = 0.5  # of int8, on one thread


@dataclass(frozen=True)
class Goal:
    """What a quantised model must keep or gain, what it does, and whether that is enough."""

    name: str
    found: str
    wanted: str
    met: bool

    def __str__(self) -> str:
        """The goal in one line."""
        return f"{self.name} {self.found} (wanted: {self.wanted})"


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A quantised file: layers left in float, goals, and the images they were judged on."""

    in_float: tuple[str, ...]
    layers: int
    goals: tuple[Goal, ...]
    judged_on: str

    @property
    def facts(self) -> dict[str, str]:
        """What was found, for the result and the model card."""
        found = {goal.name: goal.found for goal in self.goals} | {"judged on": self.judged_on}
        return found | ({"layers in float": f"{len(self.in_float)} of {self.layers}"} if self.layers else {})

    @property
    def missed(self) -> tuple[Goal, ...]:
        """The goals that it misses."""
        return tuple(goal for goal in self.goals if not goal.met)


def quantise(
    path: Path, bits: Bits, images: Dataset, *, force: bool = False, seconds: float = SEARCH_SECONDS
) -> Quantised:
    """Replace a float ONNX file by a quantised one, judged on validation images (else on test or the last training
    images).

    Raises ConfigError: there are no training images to calibrate on. ExportError: onnxruntime cannot quantise it, or it
    misses a goal and ``force`` is not given.
    """  # fmt: skip
    import onnx

    calibration, judged, which = _parts(images, bits)
    before = Entry.of("float", load_classifier(path, threads=1), path, judged)
    file = onnx.load(str(path))
    in_float, layers = list[str](), 0
    try:
        if bits == "fp16":
            made = _half(file, before.classifier.task.output)
        else:
            pixels = Entry.of("calibration", before.classifier, path, calibration).pixels
            made, in_float, layers = _int8(file, before, pixels, time.monotonic() + seconds)
    except (ConfigError, ExportError, OSError):
        raise
    except Exception as error:
        what = f"onnxruntime cannot put this model into {bits}: {first_line(error)}"
        raise ExportError(f"{what} Leave --quantise out, or give another one.") from error
    made.producer_name = file.producer_name
    size = path.stat().st_size
    path.write_bytes(made.SerializeToString())
    classifier = load_classifier(path, threads=1)
    after = replace(before, name=bits, classifier=classifier, outputs=predicted(classifier, before.pixels))
    found = Quantised(
        in_float=tuple(in_float),
        layers=layers,
        goals=tuple(_goals(before, after, bits, path.stat().st_size / size, judged)),
        judged_on=f"{len(before.pixels)} {which} images",
    )
    if found.missed and not force:
        raise ExportError(
            f"--quantise {bits}: the model is not good enough on {found.judged_on}: "
            f"{'; '.join(map(str, found.missed))}. Nothing was written; give --force to have it all the same, or leave "
            "--quantise out."
        )
    return found


def _parts(images: Dataset, bits: Bits) -> tuple[Dataset, Dataset, str]:
    """Return the images to calibrate on, those to judge by, and what these are."""
    train = images.indices("train")
    if bits == "int8" and not len(train):
        raise ConfigError(
            f"= int8 needs training images, from which the ranges of its numbers come, and {images.spec} has none; "
            "give --data SPEC of images with a train split, with or without labels.",
            field="quantise",
        )
    some = train[np.linspace(0, len(train) - 1, min(len(train), CALIBRATION)).astype(int)] if len(train) else train
    for which in ("val", "test"):
        if len(judged := images.indices(which)):
            return images.select(some), images.select(judged[:1000]), {"val": "validation"}.get(which, which)
    rest = np.setdiff1d(train, some)
    return images.select(some), images.select(rest[:1000] if len(rest) else some), "training"


def _goals(before: Entry, after: Entry, bits: Bits, size: float, images: Dataset) -> Iterator[Goal]:
    """Yield what became of the model."""
    task = before.classifier.task
    same = float(task.agreement(before.outputs[0], after.outputs[0]).mean())
    yield Goal("the same answer", f"{same:.1%}", f"{SAME:.0%} or more", same >= SAME)
    reject = task.decision.reject
    if reject is not None:
        known = [each.outputs[1] < reject.share for each in (before, after)]
        refused = [float(each.mean()) for each in known]
        fine = abs(refused[1] - refused[0]) <= 1 - SAME
        yield Goal("none of these", f"{refused[1]:.1%} (float: {refused[0]:.1%})", "within 2 points", fine)
    usable = images.select(np.flatnonzero(before.usable))
    labels = labels_of(task, usable, before.classifier.classes)
    if labels is not None and annotation.known(labels).any():
        scores = [task.scores(each.outputs[0], labels) for each in (before, after)]
        mean, (low, high) = intervals.paired(scores[1] - scores[0])
        fine = mean >= -LOSS or high >= 0
        found = f"{100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        yield Goal(task.image_score, found, f"no more than {100 * LOSS:g} points lost, or no more than chance", fine)
    yield Goal("size", f"{size:.2f} of the float file", f"{SIZE[bits]:g} or less", size <= SIZE[bits])
    if bits == "int8" and has_int8():
        read = [lambda each=each: each.classifier.read(each.batch(1)) for each in (before, after)]
        times = milliseconds(read)
        part = times[1] / times[0]
        found = f"{times[1]:.1f} ms, {part:.2f} of the float file"
        yield Goal("time on one thread", found, f"{TIME:g} or less", part <= TIME)


def has_int8() -> bool:
    """Return whether this processor multiplies int8 faster than float, as far as it is known."""
    import torch

    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    able: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _half(file: Any, output: str) -> Any:
    """Return the model in half precision, with inputs and outputs in float."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = [node.name for node in file.graph.node if node.name not in _before_last_weights(file, output)]
    return convert_float_to_float16(file, keep_io_types=True, node_block_list=kept, disable_shape_infer=False)


def _before_last_weights(file: Any, output: str) -> list[str]:
    """Return the names of the nodes that compute the inputs of a layer with weights on the way to an output, and of
    these layers."""
    constant = {each.name for each in file.graph.initializer}
    made_by = {name: node for node in file.graph.node for name in node.output}

    def leading_to(names: Sequence[str]) -> list[Any]:
        waiting, found = list(names), dict[str, Any]()
        while waiting:
            node = made_by.get(waiting.pop())
            if node is not None and node.name not in found:
                found[node.name] = node
                waiting += node.input
        return list(found.values())

    layers = [n for n in leading_to([output]) if n.op_type in WEIGHTED and n.input[1] in constant]
    wanted = {n.name for n in layers} | {n.name for n in leading_to([name for n in layers for name in n.input])}
    return [node.name for node in file.graph.node if node.name in wanted]


class _Batches:
    """Images, as onnxruntime's calibrators take them."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._rest = iter([pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next inputs; None after the last ones."""
        batch = next(self._rest, None)
        return None if batch is None else {"images": as_images(batch)}


def _int8(file: Any, before: Entry, pixels: NDArray[np.uint8], until: float) -> tuple[Any, list[str], int]:
    """Return the model in int8, the layers that stay in float, and how many there are."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, create_calibrator
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    allowed = _before_last_weights(file, before.classifier.task.output)
    nodes = [node for node in file.graph.node if node.name in allowed and node.op_type in QUANTISED]
    layers = [node.name for node in nodes if node.op_type in WEIGHTED and _weighs(file, node)]
    others = [node.name for node in nodes if node.op_type not in WEIGHTED]
    say(f"Quantising {len(layers)} layers, with ranges from {len(pixels)} training images")
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("float.onnx", "ranges.onnx")]
        onnx.save(file, paths[0])
        how = {"symmetric": False, "moving_average": True, "averaging_constant": 0.05}  # outliers count little
        calibrator = create_calibrator(
            paths[0], list(QUANTISED), paths[1], CalibrationMethod.MinMax, extra_options=how
        )  # fmt: skip
        batches: Any = _Batches(pixels)
        calibrator.collect_data(batches)
        ranges = calibrator.compute_data()
        del calibrator

    def made(quantised: Sequence[str]) -> Any:
        copy = onnx.ModelProto()
        copy.CopyFrom(file)
        types = (QuantType.QInt8, QuantType.QUInt8)
        named = [*quantised, *others] if len(quantised) > 1 else [*quantised]
        quantizer = QDQQuantizer(copy, True, False, *types, ranges, named, [], list(QUANTISED), {})
        quantizer.quantize_model()
        return quantizer.model.model

    every = -(-len(before.pixels) // SEARCHED)
    some, wanted, task = before.pixels[::every], before.outputs[0][::every], before.classifier.task

    def judged(model: Any) -> tuple[float, float]:
        """Return the part of the answers that stay, and how much changes."""
        found = _outputs(model, task.output, some)
        same = float(task.agreement(wanted, found).mean())
        return same, float(np.abs(wanted - found).mean()) if task.output == "probabilities" else 1 - same

    best = made(layers)
    same, _ = judged(best)
    if same >= ENOUGH or len(layers) < 2:
        return best, [], len(layers)
    say(f"{same:.1%} of the answers stay: looking for the layers that hurt, at most {until - time.monotonic():.0f} s")
    hurts = _hurts(layers, lambda name: judged(made([name]))[1], until)
    order, count, in_float = sorted(hurts, key=lambda name: -hurts[name]), 1, list[str]()
    while count <= len(order) // 2:
        found = made([name for name in layers if name not in order[:count]])
        agreement = judged(found)[0]
        if agreement > same:
            best, same, in_float = found, agreement, order[:count]
        if same >= ENOUGH or time.monotonic() > until + SEARCH_SECONDS / 4:
            break
        count *= 2
    return best, in_float, len(layers)


def _hurts(layers: Sequence[str], error: Callable[[str], float], until: float) -> dict[str, float]:
    """Return the error of each layer quantised alone, of as many as there is time for: first and last ones first."""
    alternating = sorted(range(len(layers)), key=lambda place: min(place, len(layers) - 1 - place))
    found: dict[str, float] = {}
    for place in alternating:
        if time.monotonic() > until:
            break
        found[layers[place]] = error(layers[place])
    return found


def _weighs(file: Any, node: Any) -> bool:
    """Return whether a layer multiplies by weights, not by what another layer computes."""
    return any(each.name == node.input[1] for each in file.graph.initializer)


def _outputs(model: Any, output: str, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    return np.concatenate([np.asarray(session.run([output], {"images": as_images(part)})[0]) for part in parts])
