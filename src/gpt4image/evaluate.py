"""Measure a run on a split; each split is read once and its record kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt4image import runs
from gpt4image.comparing.class_names import ClassNames, find_class_names
from gpt4image.config import EvaluateConfig
from gpt4image.engines import processes
from gpt4image.errors import DataError
from gpt4image.files import atomic_path, read_json, write_json
from gpt4image.outcome import Outcome
from gpt4image.table import is_table
from gpt4image.training.training_data import TrainingData, prepare

if TYPE_CHECKING:
    from gpt4image.comparing.measures import Measures


def evaluate(config: EvaluateConfig) -> Outcome:
    """Measure a finished run on one split of its own set, or of another set with the same classes.

    A split of the run's own set that was measured before is not read again: its record is returned, unless something
    could not be measured then. Another set may have changed since, and is read each time.

    Raises:
        RunError: no finished run, or its classes are not those of the set.
        DataError: the split is empty or has no labels.
    """
    from gpt4image.comparing.run_model import options_of
    from gpt4image.devices import choose_device

    record = runs.read_run(config.run_dir)
    options = options_of(record)
    name = config.split if config.data is None else f"{config.split}-{runs.identity({'data': config.data})[:8]}"
    path = config.run_dir / f"evaluation-{name}.json"
    set_aside = ()
    if config.data is not None or not path.is_file() or read_json(path).get("absent"):
        if config.data is not None:
            options = options.model_copy(update={"data": config.data, "embeddings": None, "only_described": False})
        elif not options.only_described and options.embeddings and not is_table(options.embeddings):
            options = options.model_copy(update={"embeddings": None})  # accuracy needs none
        options = options.model_copy(update={"text_labels": None})
        described = options.embeddings is not None and (config.run_dir / runs.HEAD).is_file()
        splits = dict.fromkeys((config.split, "val") if described else (config.split,))  # see held_out_described
        with processes.joined(choose_device(options.device)):
            ready = processes.together(lambda: prepare(options, tuple(splits), to_train=False), first_ahead=True)
            names = find_class_names(ready.config.embeddings, ready.config.device, ready.data.classes)
            measure_run(config.run_dir, ready.data, config.split, names=names, name=name)
            set_aside = processes.united(ready.data.unusable)
    facts = read_json(path)
    absent = dict(facts.get("absent", {}))
    if not (config.run_dir / runs.HEAD).is_file():
        absent["zero_shot, retrieval"] = "the run learned no alignment; train with --embeddings"
    shown = ("images", "labelled", "top1", "top5", "mean_class_accuracy", "ece", "loss")
    return Outcome(
        path=path,
        summary={"split": config.split, **{key: facts[key] for key in shown}, **facts.get("metrics", {})},
        record={"not_measured": absent},
        text="\n".join([_per_class(facts), *(f"\nNot measured: {name} ({why})." for name, why in absent.items())]),
        set_aside=set_aside,
    )


def run_probabilities(run_dir: Path, data: TrainingData, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (n, K) class probabilities that a finished run gives the images at ``indices``.

    Raises:
        RunError: there is no finished run, or it is one of other classes.
    """
    from gpt4image.comparing.run_model import load_run_model

    runs.require_classes(run_dir, data.classes)
    return load_run_model(run_dir, len(data.classes)).read(data.pixels, indices).probabilities


def measure_run(
    run_dir: Path,
    data: TrainingData,
    split: str,
    *,
    names: ClassNames,
    asked: Measures | None = None,
    train_counts: NDArray[np.int64] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Predict one split and write ``evaluation-NAME.json`` and ``predictions-NAME.parquet`` into the run folder.

    Args:
        run_dir: a finished run.
        data: its image set, or another one of the same classes.
        split: what to measure.
        names: the class names in the text space of the run.
        asked: what else to measure; added to what a record of the split holds already.
        train_counts: (K,) training images of each class, where classes are to be told apart by how rare they were.
        name: of the record; the split without it.

    Raises:
        RunError: the run is one of other classes.
        DataError: the split is empty or has no labels.
    """
    from gpt4image.comparing.measures import Measures, accuracies_by_rarity, measure_more
    from gpt4image.comparing.run_model import load_run_model
    from gpt4image.tasks.classification import measure

    runs.require_classes(run_dir, data.classes)
    read = _images_of(data, split)
    model = processes.together(lambda: load_run_model(run_dir, len(data.classes)))
    outputs = model.read(data.pixels, read)
    data = data.without_met()
    indices = _images_of(data, split)
    outputs, labels = outputs.only(data.usable[read]), data.image_set.labels[indices]
    name = name or split
    path = run_dir / f"evaluation-{name}.json"
    known = read_json(path) if path.is_file() else {}
    asked = asked or Measures()
    more = measure_more(model, data, split, outputs, names, asked)
    facts = {"split": split, **measure(outputs.probabilities, labels, data.classes)}
    rarity = {} if train_counts is None else accuracies_by_rarity(facts["per_class"], train_counts)
    facts |= {"metrics": known.get("metrics", {}) | rarity | more.metrics, "absent": more.absent}
    if transfer_sets := known.get("transfer_sets", {}) | asked.transfer:
        facts["transfer_sets"] = transfer_sets

    def write() -> None:
        _write_predictions(run_dir / f"predictions-{name}.parquet", data, indices, outputs.probabilities)
        write_json(path, facts)

    processes.by_first(write)
    return facts


def _images_of(data: TrainingData, split: str) -> NDArray[np.int64]:
    """Return the positions of the usable images of a split. Raises DataError: none of them has a label."""
    indices = data.indices(split)
    if not (data.image_set.labels[indices] >= 0).any():
        raise DataError(f"The {split} split of {data.image_set.spec} has no labelled image; give another --split.")
    return indices


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
