"""How the runs of an arm are set up: their options and data, the class names they read, and the key they are shared by.

Options that an arm does not read have their defaults, so that comparisons which differ in nothing else share its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.base.checksums import file_digest
from gpt4image.base.errors import ConfigError
from gpt4image.config import TrainConfig, TrainOptions
from gpt4image.config.arms import Arm
from gpt4image.config.learning import OF_ALIGNMENT, OF_TEXT_LABELS, TextOptions
from gpt4image.encoding.class_names import ClassNames, find_class_names
from gpt4image.labelling.box_answers import AnsweredBoxes
from gpt4image.labelling.teaching import AnyAnswers
from gpt4image.tasks.registry import with_options
from gpt4image.training import auto
from gpt4image.training.prepare import Prepared, with_table


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the runs of an arm are made from, before labels, descriptions or images are taken away.

    Attributes:
        ready: data and resolved options.
        class_names: text embeddings of the class names, where the arm reads texts.
        key: tells runs of other options, data, class names or answers apart in a folder.
        answers: about the images, where the arm reads answers.
    """

    ready: Prepared
    class_names: ClassNames
    key: str
    answers: AnyAnswers | None = None


def set_up(
    arm: Arm,
    ready: Prepared,
    options: Mapping[str, Any],
    taught_by: str | None = None,
    answers: AnyAnswers | None = None,
) -> Setup:
    """Return how the runs of an arm are set up.

    Args:
        arm: the arm.
        ready: data and options of the comparison.
        options: those that make a variant of the arm; its own are added.
        taught_by: key of the runs that the arm learns from; None where it learns from none.
        answers: about the images; arms that read none leave them.

    Raises:
        ConfigError, TableError: the options do not fit each other or the data.
    """
    own = _with_options(ready, {**arm.options, **options})
    unread = {*(() if arm.aligns else OF_ALIGNMENT), *(() if arm.text_labels else OF_TEXT_LABELS)}
    config = own.config.model_copy(update={name: TextOptions.model_fields[name].default for name in unread})
    own = replace(own, config=config)
    names = find_class_names(config.embeddings, config.device, own.data.classes) if arm.text else ClassNames()
    learned_by = [names.revision] if arm.names or arm.text_labels else []
    answers = answers if arm.answers or (arm.text_labels and isinstance(answers, AnsweredBoxes)) else None
    return Setup(ready=own, class_names=names, key=_key(own, learned_by, taught_by, arm, answers), answers=answers)


def train_config(options: TrainOptions, **more: Any) -> TrainConfig:
    """Return the options of a run: those that it shares with the comparison, and ``more``."""
    shared = {key: value for key, value in options.model_dump().items() if key in TrainConfig.model_fields}
    values: dict[str, Any] = {**shared, "seed": 0, "out": Path(), **more}
    return TrainConfig(**values)


def _with_options(ready: Prepared, options: Mapping[str, Any]) -> Prepared:
    """Return the same data, ready for a run with other options; what follows from them is chosen anew."""
    if options.get("embeddings", "") is None:
        raise ConfigError(
            "embeddings null would leave the texts of the comparison in place: name a table, or leave it out."
        )
    config = train_config(ready.config, **options)
    if options.keys() & {"init", "optimizer"}:
        follows = {"optimizer", "lr", "weight_decay"} & ready.chosen.keys() - options.keys()
        config = config.model_copy(update=dict.fromkeys(follows))
    config, chosen = auto.choose(config, ready.data.image_set)
    kept = {name: value for name, value in ready.chosen.items() if name not in options}
    own = for_options(replace(ready, chosen=kept | chosen), config)
    if config.embeddings is None or config.embeddings == ready.config.embeddings:
        return own
    return with_table(own, config.embeddings)


def for_options(ready: Prepared, config: TrainOptions) -> Prepared:
    """Return the same data for a run with other options, of which some are of the task."""
    return replace(ready, config=config, data=replace(ready.data, task=with_options(ready.data.task, config)))


def _key(ready: Prepared, names: list[str], taught_by: str | None, arm: Arm, answers: AnyAnswers | None) -> str:
    """Return what tells runs apart; ``names`` are revisions of the encoders of class names, empty where they lack."""
    options = train_config(ready.config).model_dump(mode="json")
    content: dict[str, Any] = {runs.DATA: ready.fingerprint, "class_names": names, "taught_by": taught_by}
    if answers is not None:
        content |= {"evidence": arm.evidence, "answers": answers.content()}
    if (weights := Path(ready.config.init)).is_file():
        content["init_digest"] = file_digest(weights)
    return runs.identity(options | content)[:8]
