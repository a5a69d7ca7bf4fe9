"""Images and texts that the report of a comparison shows, by the runs of the first seed; see evaluating/examples.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gpt4image.artifacts.class_shares import chosen, scattered
from gpt4image.artifacts.table import read_manifest
from gpt4image.base.outcome import Skipped
from gpt4image.comparing.planning import Plan
from gpt4image.comparing.regimes import Regime
from gpt4image.encoding.class_names import find_class_names
from gpt4image.evaluating.examples import (
    Said,
    manifests_of,
    write_all,
    write_descriptions,
    write_examples,
    write_suspected,
)
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.label_noise import suspected_errors
from gpt4image.labelling.predictions import Predictions
from gpt4image.labelling.teaching import labels_of, predict_training
from gpt4image.reporting.extras import DESCRIPTIONS, DOUBTFUL, EXAMPLES
from gpt4image.training.training_data import TrainingData

FEW = 20_000
"""Labelled images whose texts are read only to find label errors, where no arm has text labels."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished comparison, as its first seed had it; ``name`` is empty where there is only one."""

    plan: Plan
    name: str

    @cached_property
    def data(self) -> TrainingData:
        """What arms with text labels trained on in the first seed."""
        config = self.plan.config
        return Regime.of(config).apply(self.plan.prepared.data, config.first_seed)

    @cached_property
    def predictions(self) -> Predictions:
        """What the texts of its training images predict."""
        config = self.plan.config
        names = find_class_names(config.embeddings, config.device, self.data.classes)
        return predict_training(self.data, config.first_seed, names.vectors)

    @property
    def has_text_labels(self) -> bool:
        """Whether it has the arm whose classes are predicted from texts, which contradict labels, not boxes."""
        return "text-labels" in self.plan.members and not self.data.task.boxes

    def labelled(self) -> int:
        """Return the number of training images with a label."""
        return int(self.data.task.known(self.data.labels[self.data.indices("train")]).sum())


def write_extras(plans: Sequence[Plan], names: Sequence[str] = ()) -> list[Skipped]:
    """Write beside comparison.json what the report shows, of the first plan that has it.

    Args:
        plans: finished comparisons of one folder.
        names: of the comparisons, where there are several.

    Returns:
        What could not be written.
    """
    finished = [Finished(plan, name) for plan, name in zip(plans, names or [""] * len(plans), strict=True)]
    out = plans[0].config.out
    for name in (EXAMPLES, DESCRIPTIONS, DOUBTFUL):  # of an earlier comparison in the folder
        (out / name).unlink(missing_ok=True)
    work: dict[str, Callable[[], None]] = {EXAMPLES: lambda: _examples(finished[0])}
    with_text = [one for one in finished if one.plan.prepared.data.text is not None]
    if with_text:
        work[DESCRIPTIONS] = lambda: _descriptions(with_text[0].plan)
    if any("text-labels" in one.plan.members for one in with_text):
        # Of those whose texts are read anyway or quickly, and may be read, the one with most labels.
        allowed = [one for one in with_text if not one.data.task.boxes and not one.plan.class_conditioned]
        cheap = [one for one in allowed if one.has_text_labels or one.labelled() <= FEW]
        if cheap:
            source = max(cheap, key=Finished.labelled)
            work[DOUBTFUL] = lambda: _suspected(source)
    return write_all(work)


def _descriptions(plan: Plan) -> None:
    text, table = plan.prepared.data.text, plan.prepared.config.embeddings
    if text is not None and table is not None:
        write_descriptions(plan.config.out / DESCRIPTIONS, read_manifest(table), text.described)


def _examples(first: Finished) -> None:
    plan, data, probabilities = first.plan, first.data, None
    if data.text is not None and first.has_text_labels:
        probabilities = scattered(first.predictions.probabilities, data.indices("train"), len(data.labels))
    answers = next((job.answers for job in plan.jobs if isinstance(job.answers, Answers)), None)
    write_examples(
        plan.config.out / EXAMPLES,
        data.image_set,
        data.usable,
        Said(data.text, probabilities, answers),
        run_dirs={name: member.folders[0] for name, member in plan.members.items()},
        comparison=first.name,
    )


def _suspected(source: Finished) -> None:
    plan, data, found = source.plan, source.data, source.predictions
    train = data.indices("train")
    rows, given = suspected_errors(found.probabilities, labels_of(data, train), found.out_of_fold).T
    write_suspected(
        plan.config.out / DOUBTFUL,
        data.image_set,
        train[rows],
        given,
        chosen(found.probabilities, rows),
        tables=manifests_of([plan.prepared.config.embeddings]),
        true=plan.config.label_noise > 0.0,
        comparison=source.name,
    )
