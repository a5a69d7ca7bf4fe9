"""Loading what predicts: a run folder, an exported folder, a folder in timm's format or an ONNX file.

    classifier = load_classifier(Path("run"))
    pixels = classifier.preprocessing.pixels(Path("cat.jpg").read_bytes())
    classifier.probabilities(as_images(pixels[None]))       # (1, K)

All of them take float32 RGB images in 0..1 and compute in float32 (a GPU its convolutions in TF32), so that formats can
be compared. Nothing is unpickled: weights are safetensors, ONNX is read by onnxruntime. Torch-export archives (.pt2)
are not loaded: their operators can write files, and their sizes are expressions that torch evaluates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, MissingExtraError, ModelError, first_line
from gpt4image.base.files import parse_json, read_json, require_format
from gpt4image.base.manifest import require_whole
from gpt4image.config import TrainOptions
from gpt4image.config.learning import PRETRAIN
from gpt4image.deploying.preprocessing import Preprocessing, wrong_value
from gpt4image.models.aligner import Headed
from gpt4image.models.neighbours import Neighbours
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.decision import Decision
from gpt4image.tasks.registry import find_task

if TYPE_CHECKING:
    from torch import Tensor, nn

Read = Callable[[NDArray[np.float32]], tuple[NDArray[Any], ...]]
KNOWN_OUTPUT = "known"  # of an exported model that can say "none of these"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
ONNX, TORCH_EXPORT = "model.onnx", "model.pt2"
MODELS = (ONNX, TORCH_EXPORT, WEIGHTS)  # files that hold the weights of a model, in its folder
ABOUT = "model.json"  # the metadata once more, beside the model, for programs that read no metadata of ONNX files
FORMAT = 1
ONNX_KEY = "gpt4image"  # of the metadata in the metadata_props of an ONNX file
EXTRA_FILE = "gpt4image.json"  # the metadata among the extra files of a torch-export archive
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"  # a setting of onnxruntime
TASK, DECISION = "gpt4image_task", "gpt4image_decision"  # in config.json of timm's format; timm passes them by
# The entries of a pretrained_cfg that do not say where weights lie.
_FACTS = (
    *("input_size", "test_input_size", "min_input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode"),
    *("test_crop_pct", "mean", "std", "num_classes", "label_offset", "label_names", "pool_size", "test_pool_size"),
    *("first_conv", "classifier"),
)


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True))
class Metadata:
    """Facts about a deployed model, as JSON inside its file: K class names in the order of the output, how pictures
    become inputs, the task, what its validation images decided, facts about the run. Another ``format`` is refused."""

    format: int = FORMAT
    classes: tuple[str, ...] = Field(min_length=1)
    preprocessing: Preprocessing
    task: str = Classification.name
    decision: Decision = Decision()
    source: Mapping[str, Any] = Field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as JSON."""
        return TypeAdapter(Metadata).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | None, where: object) -> Metadata:
        """Return what ``to_json`` wrote; ``where`` names the file in messages.

        Raises ModelError: there is none, or it is malformed; FormatError: it is of another format.
        """
        if text is None:
            raise ModelError(
                f"{where} does not say what its classes are and what pictures it takes: `gpt4image export` did not "
                "write it. Give a model that it wrote, a run folder, or a folder in timm's format."
            )
        try:
            about = parse_json(text)
            if isinstance(about, dict):
                require_format(where, about.get("format"), FORMAT)
            return TypeAdapter(Metadata).validate_json(text)
        except ValueError as error:
            reason = wrong_value(error) if isinstance(error, ValidationError) else error
            raise ModelError(f"{where}: its metadata is malformed ({reason}); export the run again.") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A model that is ready to predict: task, K class names, and preprocessing.

    ``read`` takes float32 (n, ...) inputs, RGB in 0..1 (``as_images``), to (n, K) float32 class probabilities, or what
    else the task predicts; and to (n,) ``known``, how well the model knows each image, where its decision can reject.
    """

    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    read: Read

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Return only the first."""
        return self.read(images)[0]


def load_classifier(
    path: Path, *, device: str = "cpu", threads: int | None = None, task: Task | None = None
) -> Classifier:
    """Load a run folder, an exported folder, one in timm's format or a .onnx file; one blank image is predicted, so
    that what does not fit is known at once.

    ``device`` is of runs and timm folders; .onnx files compute on the CPU, with so many ``threads`` of onnxruntime, all
    cores without a number. ``task`` is that of the model, if the registry lacks it.
    """
    runs.require_model(path)
    if path.is_dir() and not (path / runs.RUN).is_file():
        path = next((path / name for name in (ONNX, TORCH_EXPORT) if (path / name).is_file()), path)
    if path.is_dir():
        of_timm = (path / CONFIG).is_file() and not (path / runs.RUN).is_file() and "architecture" in _config_of(path)
        classifier = (_load_timm if of_timm else _load_run)(path, device, task)
    elif path.suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise ConfigError(f"--device {device} is for run folders and timm folders; ONNX models use the CPU.")
        classifier = _load_onnx(path, threads, task)
    elif path.suffix == ".pt2":
        raise ModelError(
            f"{path} is a torch-export archive, which is never loaded: torch.export.load runs what its maker wants. "
            "Give the run folder that it was exported from, or export the run with --format timm or onnx."
        )
    else:
        raise ModelError(f"{path} is no run folder, no folder that `gpt4image export` or timm wrote, no .onnx file.")
    return _checked(classifier, path)


def _load_run(path: Path, device: str, task: Task | None) -> Classifier:
    from gpt4image.training.run_model import load_run_model

    classes = runs.class_names(path)
    runs.require_predicting(path)
    model = load_run_model(path, task, classes)
    return _with_torch(model.backbone, device, Preprocessing.of_run(model), model.task, classes, model.neighbours)


def _load_timm(path: Path, device: str, task: Task | None) -> Classifier:
    """Load a folder as ``timm.create_model("local-dir:...", pretrained=True)`` does, but only its safetensors."""
    import timm
    from timm.models._hub import load_model_config_from_path

    from gpt4image.models.backbones import require_architecture, require_backed, require_plain_args
    from gpt4image.models.weights import load_tensors

    if not (path / WEIGHTS).is_file():
        raise ModelError(f"{path} has no {WEIGHTS}; other weights are pickled and never loaded, convert them first.")
    require_whole(path)
    try:
        known, name, given = load_model_config_from_path(path)
        arguments, facts = dict(given or {}), {key: known[key] for key in _FACTS if key in known}
    except Exception as error:  # noqa: BLE001  (whatever damaged values make timm raise)
        raise ModelError(
            f"{path / CONFIG}: architecture must be the name of a model of timm, model_args a table, and so must "
            f"be pretrained_cfg ({type(error).__name__}: {first_line(error)})."
        ) from None
    require_architecture(name)
    require_plain_args(arguments, f"{path / CONFIG}: model_args")
    weights, _ = load_tensors(path / WEIGHTS)
    try:
        require_backed(name, arguments, weights, pretrained_cfg=facts)
        with_weights = {**facts, "state_dict": weights}  # by which timm loads it as it would its file
        module = timm.create_model(name, pretrained=True, pretrained_cfg=with_weights, **arguments).eval()
    except Exception as error:  # noqa: BLE001  (whatever damaged weights or arguments make timm raise)
        reason = error if isinstance(error, ModelError) else first_line(error)
        raise ModelError(f"{path} cannot be loaded by timm {timm.__version__}: {reason}") from None
    expects: dict[str, Any] = module.pretrained_cfg  # pyright: ignore[reportAssignmentType]
    del expects["state_dict"]
    numbers = [str(number) for number in range(module.num_classes)]  # pyright: ignore
    names = expects.get("label_names") or numbers
    if isinstance(names, Mapping):  # timm allows both
        names = [names.get(number, number) for number in numbers]
    if not isinstance(names, list | tuple):
        raise ModelError(f"{path / CONFIG}: label_names must be a list or a table of names, not {names!r}.")
    classes, config = tuple(map(str, names)), _config_of(path)
    task = _task(task, config.get(TASK, Classification.name), config.get(DECISION), classes, path)
    neighbours = None if task.decision.reject is None else Neighbours.load(path / runs.KNOWN)
    return _with_torch(module, device, Preprocessing.from_timm(expects), task, classes, neighbours)


def _load_onnx(path: Path, threads: int | None, task: Task | None) -> Classifier:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(f"The ONNX file {path}", "onnx") from None
    if (path.parent / ABOUT).is_file():
        require_whole(path.parent)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        with tempfile.TemporaryDirectory() as nothing:  # where weights in other files would be looked for
            options.add_session_config_entry(_WEIGHTS_FOLDER, nothing)
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        about, name = session.get_modelmeta().custom_metadata_map.get(ONNX_KEY), session.get_inputs()[0].name
    except Exception as error:  # noqa: BLE001  (its exceptions have no common class)
        advice = " Weights in other files are not read: save the model as one file." if "xternal" in str(error) else ""
        raise ModelError(f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}{advice}") from None
    metadata = Metadata.from_json(about, path)
    task = _task(task, metadata.task, metadata.decision, metadata.classes, path)
    wanted = [task.output, *([] if task.decision.reject is None else [KNOWN_OUTPUT])]
    if missing := set(wanted) - {each.name for each in session.get_outputs()}:
        raise ModelError(f"{path} lacks the output {min(missing)}, which its metadata promises; export the run again.")
    return Classifier(
        task=task,
        classes=metadata.classes,
        preprocessing=metadata.preprocessing,
        read=lambda images: tuple(map(np.asarray, session.run(wanted, {name: images}))),
    )


def _task(given: Task | None, name: Any, decision: Any, classes: tuple[str, ...], where: Path) -> Task:
    """Return the task of that name, or the one that is given, with what was decided."""
    if given is None and name == PRETRAIN:
        raise ModelError(f"{where} was trained with --task pretrain, so it predicts nothing; fine-tune its run first.")
    try:
        task = given or find_task(str(name), TrainOptions(data=""))
        return task.with_decision(Decision.of(decision, len(classes)))
    except ConfigError as error:
        raise ModelError(f"{where} is a model of another task than those known here: {error}") from None
    except ValueError as error:
        raise ModelError(f"{where}: {error}; export the run again.") from None


def reader_of(module: nn.Module, neighbours: Neighbours | None) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return what takes normalised images to the outputs of a module and, with ``neighbours``, to ``known``."""
    if neighbours is None:
        return lambda images: (module(images),)
    model = Headed(module)

    def read(images: Tensor) -> tuple[Tensor, ...]:
        outputs, features = model.read(images)
        return outputs, neighbours(features)

    return read


def _with_torch(
    module: nn.Module,
    device: str,
    preprocessing: Preprocessing,
    task: Task,
    classes: tuple[str, ...],
    neighbours: Neighbours | None,
) -> Classifier:
    """Return a classifier around a module that takes normalised images."""
    import torch

    from gpt4image.parallel.devices import choose_device

    where, tail = choose_device(device), task.tail()
    outputs = reader_of(module.to(where), neighbours and neighbours.to(where))

    @torch.inference_mode()
    def read(images: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        found, *known = outputs(preprocessing.normalised(torch.from_numpy(images).to(where)))
        return (tail(found.float()).cpu().numpy(), *(each.cpu().numpy() for each in known))

    return Classifier(task=task, classes=classes, preprocessing=preprocessing, read=read)


def _checked(classifier: Classifier, path: Path) -> Classifier:
    """Return a classifier that raises ModelError where sizes do not fit; one blank image is predicted."""
    size, classes = classifier.preprocessing.size, len(classifier.classes)
    of_image = classifier.task.shape(classes, size)

    def read(images: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        count = len(images)
        what = f"{path} cannot take images of {size} x {size} pixels" + f", {count} at once" * (count > 1)
        try:
            found, *known = classifier.read(images)
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's; what to do about it is said of all commands
                raise
            advice = "; give --batch-size 1" * (count > 1)
            raise ModelError(f"{what}: {first_line(error)}{advice}.") from None
        if found.shape != (count, *of_image):
            needed = f"{(count, *of_image)} is needed, as it names {classes} classes"
            raise ModelError(f"{path} gives an output of shape {found.shape} for {count} images; {needed}.")
        if any(each.shape != (count,) for each in known):
            raise ModelError(f"{path}: its output {KNOWN_OUTPUT} is no number per image; export the run again.")
        return (found, *known)

    read(np.zeros((1, *classifier.preprocessing.shape), np.float32))
    return replace(classifier, read=read)


def _config_of(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path / CONFIG)
    except ValueError as error:
        raise ModelError(str(error)) from None
    return config if isinstance(config, dict) else {}
