"""Measure a run on a split; each split is read once and its record kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image import runs
from gpt4image.config import EvaluateConfig, TrainConfig, TrainOptions
from gpt4image.errors import DataError, RunError
from gpt4image.files import atomic_path, read_json, write_json
from gpt4image.outcome import Outcome
from gpt4image.training_data import TrainingData, prepare


def evaluate(config: EvaluateConfig) -> Outcome:
    """Measure a finished run on one split of its own set, or of another set with the same classes.

    A split of the run's own set that was measured before is not read again: its record is returned.

    Raises:
        RunError: no finished run, or its classes are not those of the set.
        DataError: the split is empty or has no labels.
    """
    record = runs.read_run(config.run_dir)
    name = config.split if config.data is None else f"{config.split}-{runs.identity({'data': config.data})[:8]}"
    path = config.run_dir / f"evaluation-{name}.json"
    set_aside = ()
    if not path.is_file():
        options = options_of(record)
        if config.data is not None:
            options = options.model_copy(update={"data": config.data, "embeddings": None, "only_described": False})
        ready = prepare(options.model_copy(update={"text_labels": None}), splits=(config.split,))
        measure_run(config.run_dir, ready.data, config.split, name)
        set_aside = ready.data.unusable
    facts = read_json(path)
    shown = ("images", "labelled", "top1", "top5", "mean_class_accuracy", "ece", "loss")
    return Outcome(
        path=path,
        summary={"split": config.split, **{key: facts[key] for key in shown}},
        text=_per_class(facts),
        set_aside=set_aside,
    )


def options_of(record: dict[str, Any]) -> TrainConfig:
    """Return the options of a run from its record."""
    options = {key: value for key, value in record["config"].items() if key in TrainConfig.model_fields}
    return TrainConfig(**options)


def load_backbone(run_dir: Path, config: TrainOptions, classes: int) -> Any:
    """Return the trained plain model of a run, in evaluation mode.

    Raises:
        RunError: the weights are of another number of classes.
    """
    from gpt4image.checkpoint import load_tensors
    from gpt4image.trainer import make_backbone

    backbone = make_backbone(config.model_copy(update={"init": "scratch"}), classes).module
    try:
        backbone.load_state_dict(load_tensors(run_dir / runs.MODEL)[0])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"The weights of {run_dir} do not fit a set of {classes} classes: {reason}") from None
    return backbone.eval()


def run_probabilities(run_dir: Path, data: TrainingData, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (n, K) class probabilities that a finished run gives the images at ``indices``."""
    from gpt4image.devices import choose_device, memory_format_of
    from gpt4image.predictions import predict
    from gpt4image.trainer import augmentation_of

    config = options_of(runs.read_run(run_dir))
    backbone = load_backbone(run_dir, config, len(data.classes))
    backbone.to(choose_device(config.device), memory_format=memory_format_of(config.memory_format))
    return predict(backbone, data, indices, augmentation_of(config, backbone), config)


def measure_run(run_dir: Path, data: TrainingData, split: str, name: str | None = None) -> dict[str, Any]:
    """Predict one split and write ``evaluation-NAME.json`` and ``predictions-NAME.parquet`` into the run folder.

    Raises:
        DataError: the split is empty or has no labels.
    """
    from gpt4image.tasks.classification import measure

    indices = data.indices(split)
    labels = data.image_set.labels[indices]
    if not (labels >= 0).any():
        raise DataError(f"The {split} split of {data.image_set.spec} has no labelled image; give another --split.")
    probabilities = run_probabilities(run_dir, data, indices)
    name = name or split
    _write_predictions(run_dir / f"predictions-{name}.parquet", data, indices, probabilities)
    facts = {"split": split, **measure(probabilities, labels, data.classes)}
    write_json(run_dir / f"evaluation-{name}.json", facts)
    return facts


def _write_predictions(
    path: Path, data: TrainingData, indices: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image_set = data.image_set
    table = pa.table(
        {
            "key": [image_set.keys[i] for i in indices],
            "digest": [image_set.digests[i] for i in indices],
            "label": image_set.labels[indices],
            "prediction": probabilities.argmax(axis=1),
            "confidence": probabilities.max(axis=1),
            "probabilities": pa.FixedSizeListArray.from_arrays(probabilities.ravel(), probabilities.shape[1]),
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _per_class(facts: dict[str, Any]) -> str:
    width = max(len(name) for name in facts["classes"])
    lines = [
        f"{name:{width}}  {'-' if value is None else f'{value:.3f}'}  of {support}"
        for name, value, support in zip(facts["classes"], facts["per_class"], facts["support"], strict=True)
    ]
    return "Accuracy per class\n" + "\n".join(lines)
