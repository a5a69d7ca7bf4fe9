"""Measure a run on a split; each split is read once and its record kept."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.probabilities import take
from gpt4image.artifacts.runs import REPORTED
from gpt4image.artifacts.table import EmbeddingTable, is_table
from gpt4image.artifacts.targets import Targets
from gpt4image.base import intervals
from gpt4image.base.errors import ConfigError, DataError, MissingExtraError, RunError
from gpt4image.base.files import (
    ROW_GROUP,
    damaged,
    parquet_rows,
    read_json,
    require_writable,
    row_groups,
    write_json,
    write_row_groups,
)
from gpt4image.base.manifest import adding
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.base.visible import in_one_line
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.config.results import EvaluateResult
from gpt4image.data import SPLITS, Dataset, annotation, full_spec
from gpt4image.data.file_source import expanded
from gpt4image.data.splits import representatives, with_splits
from gpt4image.encoding.class_names import ClassNames, find_class_names
from gpt4image.evaluating.examples import write_run_extras
from gpt4image.labelling.audited import audited_images
from gpt4image.parallel import processes
from gpt4image.parallel.devices import choose_device
from gpt4image.selecting.estimate import FEWEST, Share, expected_right, share_of_classes
from gpt4image.tasks.base import Task
from gpt4image.tasks.calibration import AtLeast, at_least, calibration, calibration_error
from gpt4image.training.prepare import check_labelled, identity_of, load_dataset, prepare
from gpt4image.training.run_model import Outputs, RunModel, load_run_model, options_of
from gpt4image.training.training_data import TrainingData

RECALL_AT = (1, 5, 10)
CHUNK = 1024  # rows of the similarity matrix at a time: memory does not grow with its square

Array = NDArray[np.float32]


def recalls(image_emb: Array, text_emb: Array, text_ids: NDArray[np.int64]) -> dict[str, float]:
    """Return recall at 1, 5 and 10 of image-to-text and text-to-image retrieval, by (n, D) embeddings of unit length
    and the (n,) identity of the text of each image.

    Images of one text are partners of one another, and do not compete; other ties count against the query, so that a
    space in which everything lies in one place finds nothing.
    """
    found: dict[str, float] = {}
    for name, queries, answers in (
        ("image_to_text_recall", image_emb, text_emb),
        ("text_to_image_recall", text_emb, image_emb),
    ):
        ranks = _ranks(queries, answers, text_ids)
        found |= {f"{name}:{k}": float((ranks < k).mean()) for k in RECALL_AT if k <= len(ranks)}
    return found


def zero_shot_accuracy(image_emb: Array, class_names: Array, labels: NDArray[np.int64]) -> float:
    """Return the part of labelled images, (n, D) of unit length, whose nearest class name, (K, D), is their own."""
    has_label = labels >= 0
    nearest = (image_emb[has_label] @ class_names.T).argmax(axis=1)
    return float((nearest == labels[has_label]).mean())


def _ranks(queries: Array, answers: Array, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) how many answers that belong to another text are at least as similar as the best of one's own."""
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        similarity = queries[rows] @ answers.T
        own = ids[rows, None] == ids
        best = np.where(own, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks[rows] = (~own & (similarity >= best)).sum(axis=1)
    return ranks


def lacked_names(evaluation: Mapping[str, Any]) -> bool:
    """Return whether an evaluation lacks what could be measured with embeddings of the class names."""
    absent = evaluation["absent"]
    return "zero_shot" in absent and absent["zero_shot"] != absent.get("retrieval")


@dataclass(kw_only=True)
class Measured:
    """Metrics by name, ``FAMILY`` or ``FAMILY:DETAIL``, fractions in 0..1; and why others are absent."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    absent: dict[str, str] = field(default_factory=dict[str, str])


def measure_more(model: RunModel, data: TrainingData, split: str, outputs: Outputs, names: ClassNames) -> Measured:
    """Measure a run beyond its predictions of a split, by its outputs for the images."""
    found, space, indices = Measured(), model.text_space, data.indices(split)
    if model.head is None:
        return found
    if space is None or model.foreign_texts:
        found.absent |= {"zero_shot": model.foreign_texts, "retrieval": model.foreign_texts}
        return found
    if names.vectors is None:
        found.absent["zero_shot"] = names.missing
    elif data.task.exclusive:
        labels = data.image_set.labels[indices]
        found.metrics["zero_shot"] = zero_shot_accuracy(model.embed(outputs.features), names.vectors, labels)
    place = held_out_described(data, split)
    if data.text is None or not len(place):
        none = f"no two images of {split} or val have different descriptions in the table"
        found.absent["retrieval"] = "there is no embedding table of this dataset" if data.text is None else none
        return found
    chosen = np.isin(indices, place)
    features = outputs.features[chosen] if chosen.any() else model.read(data.pixels, place).features
    vectors, _, ids = data.text.take(place)
    unit = torch.nn.functional.normalize(vectors, dim=1)  # the mean of several texts is shorter
    found.metrics |= recalls(model.embed(features), unit.numpy(), ids.numpy())
    return found


def held_out_described(data: TrainingData, split: str) -> NDArray[np.int64]:
    """Return the described images of a split, or else those of the validation split, which no run is trained on.

    Images of one text are none, for it would always be found.
    """
    if (text := data.text) is not None:
        for images in map(data.indices, (split, "val")):
            described = images[text.described[images]]
            if len(np.unique(text.identity[described])) > 1:
                return described
    return np.zeros(0, np.int64)


ALWAYS = ("images", "labelled", "classes", "per_class", "support")
"""What the record of a split holds whatever the task."""
MANY_LABELS = 300
"""Labels of a split from which on audited images add nothing."""
CLASSES_SHOWN = 20  # the others are in the record
CHANGED = "the dataset has changed since the run was trained: images of this split may be among its training images"
ALL = "all images of the dataset are measured, those that the run learned from too, which raises the score"
WHOLE = (
    "the dataset has no splits, so it is measured whole; images of it that the run learned from would raise the score"
)


def evaluate(config: EvaluateConfig, task: Task | None = None) -> EvaluateResult:
    """Measure a finished run on one split of its own dataset, or of another one with the same classes.

    A split of its own dataset that was measured before is not read again: its record is returned, unless something
    could not be measured then. Another dataset may have changed since, and is read each time. ``task`` is that of the
    run, where it is not one of the registry.
    """
    if "audit" in config.model_fields_set and not config.audit.is_file():
        raise ConfigError(f"= {config.audit}: there is no such file; `gpt4image audit` writes it.", field="audit")
    record = runs.read_run(config.run_dir)
    runs.require_predicting(config.run_dir)
    skipped: list[Skipped] = []
    share, labelled = accuracy_from_audit(config)
    looked: dict[str, Any] = {}
    if share is not None:
        looked = {"looks": share.looks, "right": round(share.share, 4)}
        looked["right_ci95"] = [round(share.low, 4), round(share.high, 4)]
        say(f"Right of all {share.total:,} images of {config.split}, by {share.looks} audited images: {share}.")
        if not labelled:
            return EvaluateResult(path=config.run_dir, split=config.split, images=share.total, labelled=0, **looked)
    name = config.split if config.data is None else f"{config.split}-{runs.identity({'data': config.data})[:8]}"
    path = config.run_dir / f"evaluation-{name}.json"
    if config.at_least is not None and record["config"]["task"] not in ("classification", "video"):
        raise ConfigError("is for one class per image or clip; leave it out.", field="at_least")
    if config.data is not None or not path.is_file() or _facts(path)["absent"]:
        skipped = _measure(config, record, path, name, task)
    facts = _facts(path)
    absent = dict(facts["absent"])
    if not (config.run_dir / runs.HEAD).is_file():
        absent["zero_shot, retrieval"] = "the run learned no alignment; train with --embeddings"
    shown: dict[str, Any] = {key: facts[key] for key in (*facts["titles"], "loss") if key in facts}
    refused = {"refused": facts["refused"]} if "refused" in facts else {}
    scores = {**shown, **refused, **facts["metrics"]}
    rows = partial(parquet_rows, path.with_name(f"predictions-{name}.parquet"))
    enough = None if config.at_least is None else _at_least(rows(), config.at_least, record)
    not_measured = (f"\nNot measured: {name} ({why})." for name, why in absent.items())
    return EvaluateResult(
        path=path,
        split=config.split,
        images=facts["images"],
        labelled=facts["labelled"],
        **looked,
        scores=scores,
        note=facts.get("note") or None,
        metric=facts["metric"],
        not_measured=absent,
        counts={name: int(facts["labelled"]) for name in (*facts["titles"], "zero_shot", "refused") if name in scores},
        ci95=facts["ci95"],
        calibration=facts.get("calibration"),
        at_least=None if enough is None else enough._asdict(),
        read_rows=rows,
        text="\n".join([_per_class(facts, path), *_how_sure(facts), *_answered(config, enough), *not_measured]),
        skipped=(*(Skipped(**item) for item in facts["set_aside"]), *skipped),
    )


def _measure(config: EvaluateConfig, record: runs.RunRecord, path: Path, name: str, task: Task | None) -> list[Skipped]:
    """Measure the run and write its record; return what the report's examples had to skip."""
    own_options = options = options_of(record)
    skipped: list[Skipped] = []
    if config.data is not None:
        options = options.model_copy(update={"data": config.data, "embeddings": None, "only_described": False})
    elif not options.only_described and options.embeddings and not is_table(options.embeddings):
        options = options.model_copy(update={"embeddings": None})  # accuracy needs none
    options = options.model_copy(update={"targets": None})
    described = options.embeddings is not None and (config.run_dir / runs.HEAD).is_file()
    split = _part(config)
    splits = dict.fromkeys((split, "val") if described else (split,))  # see held_out_described
    with processes.joined(choose_device(options.device)):
        processes.on_rank0(lambda: require_writable(path))
        loaded, note = processes.on_all_ranks(lambda: _load(config, record, options), first_ahead=True)
        ready = processes.on_all_ranks(
            lambda: prepare(options, tuple(splits), to_train=False, task=task, loaded=loaded, labelled=split),
            first_ahead=True,
        )
        names = find_class_names(ready.config.embeddings, ready.config.device, ready.data.classes)

        there = (n for n in REPORTED if n == config.split or (config.run_dir / f"evaluation-{n}.json").is_file())
        is_reported = config.data is None and config.split in SPLITS and next(there, config.split) == config.split

        def write_extras() -> None:
            if is_reported:
                skipped.extend(write_run_extras(config.run_dir, own_options, *loaded, config.split))

        copies = ready.notes if options.data == own_options.data else ()  # the run saw no train split of another set
        note = " ".join(filter(None, [note, *copies]))
        measure_run(config.run_dir, ready.data, split, names=names, name=name, note=note, before_record=write_extras)
    return skipped


def accuracy_from_audit(config: EvaluateConfig) -> tuple[Share | None, int]:
    """Return the share of right predictions by the audited images, None if it needs none or has too few; and the
    number of labels of the split."""
    record = runs.read_run(config.run_dir)
    options = options_of(record)
    if not config.audit.is_file() or options.task not in ("classification", "video") or config.split == "train":
        return None, 0
    data = {} if config.data is None else {"data": config.data}
    plain = options.model_copy(update={**data, "embeddings": None, "only_described": False, "targets": None})
    (images, _), _ = _load(config, record, plain)
    images = images.select(images.indices(_part(config)))
    labelled = int(images.labelled.sum())
    images = images.select(np.unique(representatives(images.digests, np.zeros(len(images), np.int64))))
    rows, truth = audited_images(config.audit, images.digests)
    known = [place for place, name in enumerate(truth) if name]
    if labelled >= MANY_LABELS or len(known) < FEWEST:
        return None, labelled
    model = load_run_model(config.run_dir, None, images.classes)
    pixels, every = model.pixels(images), np.arange(len(images))
    found = np.where(pixels.broken(every)[:, None], 0, model.read(pixels, every).predictions[:])
    judge = None
    if options.targets is not None and options.targets.is_file():
        targets = Targets.load(options.targets)
        judge = targets.of(images.digests)[:] if targets.classes == images.classes else None
    best, estimated = expected_right(found, judge)
    said = [images.classes[k] if k >= 0 else "" for k in best.tolist()]
    return share_of_classes(said, estimated, rows[known], [truth[place] for place in known]), labelled


def _facts(path: Path) -> dict[str, Any]:
    """Return the record of a split. Raises RunError: it is damaged."""
    facts = read_json(path)
    if not isinstance(facts, dict) or not facts.keys() >= set(ALWAYS):
        raise damaged(path, "it does not hold what evaluate writes")
    return facts


def _load(
    config: EvaluateConfig, record: runs.RunRecord, options: TrainConfig
) -> tuple[tuple[Dataset, EmbeddingTable | None], str]:
    """Return the dataset with the classes of the run, its table, and a note where images of its training may be in it.

    Where all images are asked for, all are in the split that is measured. So are those of another dataset without
    splits: it is cut as a training set is only if it is the one of the run at another place.
    """
    own = record["config"]["data"]
    other = config.data is not None and _place(config.data) != _place(own)
    how = {name: getattr(options, name) for name in ("val_fraction", "test_fraction")}
    try:
        as_it_is = options.model_copy(update=dict.fromkeys(how, 0.0) | {"train_on_val": False})
        image_set, table = load_dataset(as_it_is if other else options)
    except (DataError, ConfigError, MissingExtraError) as error:
        if config.data is not None:
            raise
        raise type(error)(
            f"{error} The run recorded its dataset as {own}; a relative path counts from the folder that it was "
            "trained in. Give the command in that folder, or --data SPEC with where the dataset is now."
        ) from None
    classes = record["run"]["classes"]
    with_run = image_set.with_classes(tuple(classes)) if set(image_set.classes) <= set(classes) else image_set
    if config.data is not None:
        runs.require_classes(config.run_dir, with_run.classes)
    cut = with_splits(image_set, **how) if other else image_set
    splits = np.where(cut.splits == "val", "train", cut.splits) if other and options.train_on_val else cut.splits
    read = ("train", "val") if record["config"]["arm"] == "train" else SPLITS
    rows, its = np.flatnonzero(np.isin(splits, read)), record["config"][runs.IMAGES]
    same = len(rows) > 0 and its == identity_of(cut.revised(splits=splits).select(rows), None, None, [])
    if not same and config.data is None:
        raise RunError(
            f"{own} is not what {config.run_dir} was trained on: images, labels or classes of its train or val split "
            "have changed since, and its training images may be in other splits now. Restore the dataset, or give "
            f"--data {own} to measure what is there now."
        )
    note = "" if same or other else CHANGED
    if config.split == "all":
        splits, note = np.full(len(splits), _part(config)), "" if other and not same else ALL
    elif other and not same:
        undivided = bool((image_set.splits == "train").all())
        splits = np.full(len(splits), config.split) if undivided else image_set.splits
        note = WHOLE if undivided else ""
    return (with_run.revised(splits=splits), table), note


def _part(config: EvaluateConfig) -> str:
    """Return the split that holds what is measured; all images are put into test."""
    return "test" if config.split == "all" else config.split


def _place(spec: str) -> str:
    """Return a SPEC with its path as the file system knows it."""
    with contextlib.suppress(ConfigError):  # there is no such place here
        spec = full_spec(spec)
    name, _, place = spec.partition(":")
    return f"{name}:{expanded(place).resolve()}"


def measure_run(
    run_dir: Path,
    data: TrainingData,
    split: str,
    *,
    names: ClassNames,
    name: str | None = None,
    note: str = "",
    before_record: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Predict one split and write ``predictions-NAME.parquet`` and then ``evaluation-NAME.json`` into the run folder.

    ``data`` are those of the run, or others of the same classes; ``names`` the class names in the text space of the
    run; ``name`` is the split by default. ``before_record`` is called between the two.
    """
    runs.require_classes(run_dir, data.classes)
    read = _images_of(data, split)
    model = processes.on_all_ranks(lambda: load_run_model(run_dir, data.task, data.classes))
    outputs = model.read(data.pixels, read)
    data = data.without_met()
    indices = _images_of(data, split)
    outputs, labels = outputs.only(data.usable[read]), data.all_labels[indices]
    name = name or split
    path = run_dir / f"evaluation-{name}.json"
    known: dict[str, Any] = read_json(path) if path.is_file() else {"metrics": {}}
    more = measure_more(model, data, split, outputs, names)
    task = model.task
    facts: dict[str, Any] = {"split": name.partition("-")[0], "task": task.name, "metric": task.primary.name}
    facts["titles"] = {metric.name: metric.title for metric in (task.primary, *task.metrics)}
    facts |= task.measure(outputs.predictions, labels, data.classes)
    facts |= {"metrics": known["metrics"] | more.metrics, "absent": more.absent}
    familiar, labelled = model.known(outputs.features), annotation.known(labels)
    if task.exclusive and labelled.any():
        facts["calibration"] = calibration(take(outputs.predictions, labelled), labels[labelled])
    if familiar is not None and task.decision.reject is not None and labelled.any():
        facts["refused"] = float((familiar[labelled] < task.decision.reject.share).mean())
    facts |= {
        "ci95": intervals_of(task, facts, outputs.predictions, labels, [data.image_set.digests[i] for i in indices])
    }
    facts |= {"set_aside": [asdict(item) for item in processes.all_gather_unique(data.unusable)]}
    facts |= {"note": note} if note else {}

    def write() -> None:
        predictions = f"predictions-{name}.parquet"
        with adding(run_dir, [predictions, path.name]):
            _write_predictions(run_dir / predictions, task, data, indices, outputs.predictions, familiar)
            before_record()
            write_json(path, facts)

    processes.on_rank0(write)
    return facts


def intervals_of(
    task: Task, facts: Mapping[str, Any], predictions: Any, labels: Any, digests: Sequence[str]
) -> dict[str, intervals.Interval]:
    """Return the 95 % intervals of shares of images, and of the primary metric; copies of a picture count as one."""
    seen = annotation.known(labels)
    digests = [digest for digest, one in zip(digests, seen, strict=True) if one]
    found: Any = take(predictions, seen)
    if not digests or not (task.exclusive or type(task).resampled is not Task.resampled):
        return {}
    if task.exclusive:
        images = intervals.independent(task.scores(found, labels[seen]), digests)
        mean = intervals.mean_over_classes(facts["per_class"], facts["support"])
        best, right = found.max(axis=1), found.argmax(axis=1) == labels[seen]
        drawn = (np.repeat(np.arange(len(best)), n) for n in intervals.resamples(digests, intervals.FEW_RESAMPLES))
        ece = intervals.of_resamples(facts["ece"], np.array([calibration_error(best[n], right[n]) for n in drawn]))
        more = {"mean_class_accuracy": mean, "ece": ece}
        return {**intervals.of_shares({**facts, **facts["metrics"]}, images), **more}
    import pyarrow as pa

    columns = pa.table(task.columns(found, labels[seen])).to_pydict()
    times = intervals.resamples(digests, intervals.FEW_RESAMPLES)
    values = task.resampled(columns, labels[seen], len(facts["classes"]), times)
    return {task.primary.name: intervals.of_resamples(facts[task.primary.name], values)}


def _images_of(data: TrainingData, split: str) -> NDArray[np.int64]:
    """Return the positions of the usable images of a split. Raises DataError: none of them has a label."""
    indices = data.indices(split)
    check_labelled(data.all_labels[indices], data.image_set.spec, split)
    return indices


def _write_predictions(
    path: Path, task: Task, data: TrainingData, indices: NDArray[np.int64], predictions: Any, known: Array | None
) -> None:
    import pyarrow as pa

    image_set, labels = data.image_set, data.all_labels[indices]
    scores = np.full(len(indices), np.nan)  # NaN: no label
    scores[annotation.known(labels)] = task.scores(predictions, labels)

    def table(rows: slice) -> Any:
        some: Any = take(predictions, rows)
        return pa.table(
            {
                "key": [image_set.keys[i] for i in indices[rows]],
                "digest": [image_set.digests[i] for i in indices[rows]],
                "score": scores[rows],
                **({} if known is None else {"known": known[rows]}),
                **task.columns(some, labels[rows]),
            }
        )

    write_row_groups(path, row_groups(len(indices), ROW_GROUP) if task.exclusive else [slice(None)], table)


def _at_least(rows: Sequence[Mapping[str, Any]], wanted: float, record: runs.RunRecord) -> AtLeast:
    """Return from which probability on a run is right often enough; images that are none of the classes get none."""
    reject = (record["run"].get(runs.DECISION) or {}).get("reject") or {"share": 0.0}
    labelled = [row for row in rows if row["label"] >= 0]
    refused = np.array([row.get("known", 1.0) < reject["share"] for row in labelled], np.bool_)
    confidence = np.where(refused, 0.0, [row["confidence"] for row in labelled])
    return at_least(confidence, np.array([row["prediction"] == row["label"] for row in labelled], np.bool_), wanted)


def _answered(config: EvaluateConfig, found: AtLeast | None) -> list[str]:
    """Return what --at-least comes to."""
    if found is None:
        return []
    if found.right is None or found.right_ci95 is None:
        return [
            f"\nNo probability makes {config.at_least:.1%} of the answers right: the images are too few, or too hard."
        ]
    return [
        f"\nTo be right in at least {config.at_least:.1%}, answer from a probability of {found.probability:.3f} on "
        f"(`gpt4image predict {config.run_dir} --min-score {found.probability:.3f}`): {found.answered:.1%} of the "
        f"images are answered ({_ends(found.answered_ci95)}), {found.right:.1%} of these right "
        f"({_ends(found.right_ci95)}), measured on images that did not choose it."
    ]


def _ends(interval: intervals.Interval) -> str:
    return "{:.1%} to {:.1%}".format(*interval)


def _how_sure(facts: Mapping[str, Any]) -> list[str]:
    """Return how stated probabilities and right predictions go together."""
    if (found := facts.get("calibration")) is None:
        return []
    sure, lines = found["sure"], list[str]()
    if sure["images"]:
        right = sure["right"] / sure["images"]
        ends = _ends(intervals.wilson(right, sure["images"]))
        lines = [f"Of the {sure['images']:,} images with {sure['from']:.0%} or more, {right:.1%} are right ({ends})."]
    return [
        f"\nStated on average {found['stated']:.1%}, right {facts['top1']:.1%}; Brier score {found['brier']:.3f}. "
        "A model that is exactly as sure as it is right has a calibration error of "
        f"{found['floor']:.3f} on so many images, up to {found['floor95']:.3f} in 95 % of draws.",
        *lines,
    ]


def _per_class(facts: dict[str, Any], path: Path) -> str:
    """Return a line for each class; of many, for those that do worst."""
    measured = facts.get("class_metric", "accuracy")
    title = f"{measured[0].upper()}{measured[1:]} per class"
    rows = list(zip(map(in_one_line, facts["classes"]), facts["per_class"], facts["support"], strict=True))
    if len(rows) > CLASSES_SHOWN:
        there = [row for row in rows if row[1] is not None]
        rows = sorted(there, key=lambda row: row[1])[:CLASSES_SHOWN]
        title += f", the lowest {len(rows)} of {len(there)} (all of them: per_class in {path})"
    width = max(len(name) for name, _, _ in rows)

    def line(name: str, value: float | None, support: int) -> str:
        if value is None:
            return f"{name:{width}}  -  of {support}"
        ends = intervals.wilson(value, support)
        interval = "  ({:.3f} to {:.3f})".format(*ends) if measured == "accuracy" else ""
        return f"{name:{width}}  {value:.3f}  of {support}{interval}"

    return "\n".join([title, *(line(*row) for row in rows)])
