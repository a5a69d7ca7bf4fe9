"""The members of a comparison: the arms and variants that are asked for, or all that apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError
from gpt4image.comparing.arms import applicable
from gpt4image.config import CompareConfig
from gpt4image.config.arms import ARMS, Arm
from gpt4image.config.base import listed
from gpt4image.encoding.class_names import ClassNames, find_class_names
from gpt4image.training.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class Member:
    """An arm of a comparison: as it is, or a variant with other options.

    Attributes:
        arm: name in ARMS.
        options: options of train that make it a variant; those of the arm itself are in ARMS.
        folders: run folders in order of the seeds.
    """

    arm: str
    options: Mapping[str, Any]
    folders: tuple[Path, ...] = ()


def members_of(
    config: CompareConfig,
    left: TrainingData,
    *,
    scarce: bool,
    unlabelled: bool,
    class_conditioned: bool,
    truth: bool,
    answered: NDArray[np.bool_] | None = None,
) -> tuple[dict[str, Member], list[str]]:
    """Return the arms that are asked for, or all that apply, and the variants; and notes for the record.

    Arms for wrong labels may also be asked for where labels count as right. ``left`` is what the first seed trains on;
    ``truth`` says whether any training image has a label that could be taken away; ``answered``, (N,), is of which
    images there is an answer.

    Raises:
        ConfigError: an arm is asked for that is not possible here.
    """
    train = left.indices("train")
    told = left.task.known(left.labels) | (False if answered is None else answered)
    told = told if left.text is None else told | left.text.described
    there = {
        "described": config.embeddings is not None,
        "answered": config.answers is not None,
        "labelled": bool(left.task.known(left.labels[train]).any()),
        "unlabelled": not left.task.known(left.labels[train]).all(),
        "untold": not told[train].all(),
    }
    either = {name for some in (True, False) for name in applicable(scarce=some, task=left.task, **there)}
    possible = [name for name in ARMS if name in either and ((scarce and truth) or name != "oracle")]
    usual = applicable(scarce=scarce or unlabelled, task=left.task, class_conditioned=class_conditioned, **there)
    asked, notes = listed(config.arms), []
    if not asked:
        asked = tuple(name for name in usual if name in possible)
        named = [name for name in asked if ARMS[name].names]
        if named and (names := find_class_names(config.embeddings, config.device, left.classes)).missing:
            notes = [f"Left out: {', '.join(named)}, which {_need_names(config.embeddings, names)}"]
            asked = tuple(name for name in asked if name not in named)
    wanted = {**dict.fromkeys(asked), **{table["arm"]: None for table in config.variants.values()}}
    if refused := [name for name in wanted if name not in possible]:
        lacking: dict[str, list[str]] = {}
        for name in refused:
            lacking.setdefault(_lacks(ARMS[name], config, scarce, left), []).append(name)
        why = "; ".join(f"{','.join(who)} need{'s'[len(who) > 1 :]} {what}" for what, who in lacking.items())
        raise ConfigError(f"--arms: {why}; possible now: {', '.join(possible)}.")
    first = (ARMS[name].after for name in wanted)
    reference = ["baseline"] if there["labelled"] else []
    plain = dict.fromkeys((*reference, *filter(None, first), *asked))
    members = {name: Member(arm=name, options={}) for name in plain}
    for name, table in config.variants.items():
        members[name] = Member(arm=table["arm"], options={key: table[key] for key in table if key != "arm"})
    return members, notes


def require_names(members: Mapping[str, Member], name: str, table: Path | None, names: ClassNames) -> None:
    """Refuse a member that needs the class names where ``names``, those in the space of its ``table``, are missing.

    Raises:
        ConfigError: naming all arms of that need, the table and the way out.
    """
    arm = members[name].arm
    if not ARMS[arm].names or names.vectors is not None:
        return
    alike = [other for other, member in members.items() if ARMS[member.arm].names and not member.options]
    who = arm if members[name].options else f"--arms {','.join(alike)}"
    raise ConfigError(
        f"{who} {_need_names(table, names)} Leave them out, or give a table of an encoder that is available here, by "
        "`gpt4image encode`."
    )


def _need_names(table: Path | None, names: ClassNames) -> str:
    return f"need the names of the classes in the space of {table}: {names.missing}"


def _lacks(arm: Arm, config: CompareConfig, scarce: bool, left: TrainingData) -> str:
    """Return what an arm that is not possible would need."""
    boxes, masks = left.task.output == "boxes", left.task.output == "mask"
    if not arm.suits(left.task.output):
        there = {"a task of classes": arm.classes, "--task detection": arm.boxes, "--task segmentation": arm.masks}
        return next(task for task, applies in there.items() if applies)
    if boxes and arm.text_labels and config.answers is None:
        return "--answers STORE, made by `gpt4image describe --ask boxes`"
    if arm.text and config.embeddings is None:
        return "--embeddings DIR, made by `gpt4image encode`"
    if arm.answers and config.answers is None:
        return "--answers STORE, made by `gpt4image describe --ask class`"
    if (config.labels_per_class == 0 and not arm.label_free) or (arm is ARMS["oracle"] and scarce):
        return "labels"
    if arm.untold and config.answers is not None:
        return "training images without a label, description and answer"
    if arm.consistent and scarce:
        return "training images without a label"
    return "--labelled-images" if boxes or masks else "--labels-per-class or --label-noise"
