"""What a report shows beside results, gathered by the stage that has it at hand; what the files hold: extras.py.

None of it may cost a run that is finished: what cannot be gathered is set aside with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt4image.artifacts.table import EmbeddingTable, Manifest, is_table, read_manifest
from gpt4image.base.files import write_json
from gpt4image.base.outcome import SetAside
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES

if TYPE_CHECKING:
    from gpt4image.comparing.planning import Plan
    from gpt4image.labelling.predictions import Predictions
    from gpt4image.training.prepare import Prepared
    from gpt4image.training.training_data import TrainingData

FEW = 20_000
"""Labelled images whose texts are read for doubtful labels alone, where no arm asks for it."""


@dataclass(frozen=True, eq=False)
class _Finished:
    """A finished comparison, as its first seed saw it. What several parts of the report show is made once.

    ``name`` is empty where there is one comparison alone.
    """

    plan: Plan
    name: str

    @cached_property
    def data(self) -> TrainingData:
        """What the first seed trained on."""
        from gpt4image.comparing.regimes import Regime

        config = self.plan.config
        return Regime.of(config).apply(self.plan.prepared.data, config.first_seed)

    @cached_property
    def read(self) -> Predictions:
        """What the texts of its training images say."""
        from gpt4image.encoding.class_names import find_class_names
        from gpt4image.labelling.teaching import predict_training

        config = self.plan.config
        names = find_class_names(config.embeddings, config.device, self.data.classes)
        return predict_training(self.data, config.first_seed, names.vectors)


def gather_comparison(plans: Sequence[Plan], names: Sequence[str] = ()) -> list[SetAside]:
    """Write beside comparison.json what the report shows of the first plan that has it, by the runs of the first seed.

    Args:
        plans: finished comparisons of one folder.
        names: of the comparisons, where there are several.

    Returns:
        What could not be gathered.
    """
    finished = [_Finished(plan, name) for plan, name in zip(plans, names or [""] * len(plans), strict=True)]
    for name in (EXAMPLES, DESCRIPTIONS, DOUBTFUL):  # of an earlier comparison in the folder
        (plans[0].config.out / name).unlink(missing_ok=True)
    out, texts = plans[0].config.out, [one for one in finished if one.plan.prepared.data.text is not None]
    work: dict[str, Callable[[], None]] = {EXAMPLES: lambda: _examples(finished[0])}
    if texts:
        work[DESCRIPTIONS] = lambda: write_descriptions(out / DESCRIPTIONS, texts[0].plan.prepared)
    if doubting := _most_labels(texts):
        work[DOUBTFUL] = lambda: _doubts(doubting)
    return _all(work)


def gather_run(ready: Prepared, run_dir: Path) -> list[SetAside]:
    """Write the same of a single run into its folder, as far as its train and validation images tell.

    Returns:
        What could not be gathered.
    """
    work: dict[str, Callable[[], None]] = {}
    if ready.data.text is not None:
        work[EXAMPLES] = lambda: _examples_of_run(ready, run_dir)
        work[DESCRIPTIONS] = lambda: write_descriptions(run_dir / DESCRIPTIONS, ready)
    if ready.config.text_labels is not None and ready.data.task.exclusive:
        work[DOUBTFUL] = lambda: _doubts_of_run(ready, run_dir)
    return _all(work)


def write_descriptions(path: Path, ready: Prepared) -> None:
    """Write who described the images of a run, how, at what cost and how well; the store may be gone."""
    from gpt4image.config import StatsConfig
    from gpt4image.describing.description_stats import stats

    text, manifest = ready.data.text, EmbeddingTable.open(ready.config.embeddings).manifest
    described = np.zeros(len(ready.data.labels), bool) if text is None else text.described
    record: dict[str, Any] = {}
    if Path(manifest.store).is_file():
        found = stats(StatsConfig(store=Path(manifest.store)), manifest.prompts)
        record |= {**found.summary, **found.record}
    encoding = ("encoder", "width", "max_tokens", "truncated", "length_policy")
    record |= {
        "images": len(described),
        "described": int(described.sum()),
        "encoding": {name: getattr(manifest, name) for name in encoding},
    }
    write_json(path, record)


def _all(work: dict[str, Callable[[], None]]) -> list[SetAside]:
    set_aside = []
    for name, write in work.items():
        try:
            write()
        except Exception as error:  # noqa: BLE001 -- the runs are finished: nothing that is shown beside them may cost them
            set_aside.append(SetAside(name=name, reason=f"left out of the report: {error}"))
    return set_aside


def _tables(paths: Sequence[Path | None]) -> list[Manifest]:
    """Return what embedding tables say of themselves, of those that are still there."""
    return [read_manifest(path) for path in paths if path is not None and is_table(path)]


def _examples(first: _Finished) -> None:
    from gpt4image.reporting.examples import write_examples

    plan, data = first.plan, first.data
    candidates, probabilities = data.usable, None
    if data.text is not None:
        candidates = data.usable & (data.text.described | (data.image_set.splits != "train"))
        if "text-labels" in plan.members:
            probabilities = np.zeros((len(data.labels), len(data.classes)), np.float32)
            probabilities[data.indices("train")] = first.read.probabilities
    write_examples(
        plan.config.out / EXAMPLES,
        data.image_set,
        candidates,
        tables=_tables([plan.prepared.config.embeddings]),
        text=data.text,
        text_labels=probabilities,
        run_dirs={name: member.folders[0] for name, member in plan.members.items()},
        comparison=first.name,
    )


def _examples_of_run(ready: Prepared, run_dir: Path) -> None:
    from gpt4image.artifacts.text_labels import TextLabels
    from gpt4image.reporting.examples import write_examples

    data, probabilities = ready.data, None
    if ready.config.text_labels is not None:
        labels = TextLabels.load(ready.config.text_labels)
        said = dict(zip(labels.digests, labels.probabilities, strict=True))
        silent = np.zeros(len(data.classes), np.float32)
        probabilities = np.stack([said.get(digest, silent) for digest in data.image_set.digests])
    candidates = data.usable if data.text is None else data.usable & data.text.described
    write_examples(
        run_dir / EXAMPLES,
        data.image_set,
        candidates,
        tables=_tables([ready.config.embeddings]),
        text=data.text,
        text_labels=probabilities,
        run_dirs={},
    )


def _most_labels(comparisons: Sequence[_Finished]) -> _Finished | None:
    """Return the comparison with most labels, of those whose texts are read anyway or quickly, and may be read."""
    if not any("text-labels" in one.plan.members for one in comparisons):
        return None

    def labels(one: _Finished) -> int:
        return int(one.data.task.known(one.data.labels[one.data.indices("train")]).sum())

    may_be_read = [one for one in comparisons if one.data.task.exclusive and not one.plan.class_conditioned]
    cheap = [one for one in may_be_read if "text-labels" in one.plan.members or labels(one) <= FEW]
    return max(cheap, key=labels, default=None)


def _doubts(most: _Finished) -> None:
    from gpt4image.labelling.label_noise import suspected_errors
    from gpt4image.reporting.examples import write_doubts

    plan, data, read = most.plan, most.data, most.read
    train = data.indices("train")
    rows, given = suspected_errors(read.probabilities, data.labels[train], read.out_of_fold).T
    write_doubts(
        plan.config.out / DOUBTFUL,
        data.image_set,
        train[rows],
        given,
        read.probabilities[rows],
        tables=_tables([plan.prepared.config.embeddings]),
        true=plan.config.label_noise > 0.0,
        comparison=most.name,
    )


def _doubts_of_run(ready: Prepared, run_dir: Path) -> None:
    from gpt4image.artifacts.text_labels import TextLabels
    from gpt4image.labelling.label_noise import suspected_errors
    from gpt4image.reporting.examples import write_doubts

    labels = TextLabels.load(ready.config.text_labels)
    place = {digest: row for row, digest in enumerate(ready.data.image_set.digests)}
    rows = suspected_errors(labels.probabilities, labels.labels, labels.out_of_fold)[:, 0]
    rows = np.array([row for row in rows.tolist() if labels.digests[row] in place], np.int64)
    write_doubts(
        run_dir / DOUBTFUL,
        ready.data.image_set,
        np.array([place[labels.digests[row]] for row in rows], np.int64),
        labels.labels[rows],
        labels.probabilities[rows],
        tables=_tables([Path(path) for path in labels.facts.embeddings]),
    )
