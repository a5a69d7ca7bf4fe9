"""Escalation in use: a describer is asked about the images that a model is least sure of, and its answers are kept.

They lie in a description store: that of the model's folder, whose next training learns from them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt4image.artifacts.answers import Answer, ClassOption
from gpt4image.artifacts.stage_records import RECORD, StageRecords
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig, DistillConfig, PredictConfig
from gpt4image.config.distilling import ANSWERS
from gpt4image.config.results import DescribeResult
from gpt4image.data.given import dataset
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.registry import is_free, load_describer
from gpt4image.describing.questions import CLASS
from gpt4image.pages.numbers import percent

if TYPE_CHECKING:
    from gpt4image.deploying.predict import Prediction

STATED, HARDER = 0.95, 3.0
"""How sure answers are where none says it; by how much oftener those about unsure images may be wrong than they say."""


def store_of(config: PredictConfig) -> Path:
    """Return the store that keeps the answers: that of the folder of the model. Raises ConfigError: there is none."""
    if config.store is not None:
        return config.store
    found = next((path / ANSWERS for path in (config.model, config.model.parent) if (path / ANSWERS).is_file()), None)
    if found is None:
        raise ConfigError(
            "is needed, as no answers lie beside the model: name the file that keeps what is paid for.", field="store"
        )
    return found


def _asking(config: PredictConfig, data: str, classes: Sequence[str]) -> DescribeConfig:
    """Return what is asked of whom: as for the training of the model, if that was the same describer, so that its
    answers count there; else only the class."""
    store, spec = store_of(config), config.ask_when_unsure or ""
    asking, listed = (
        DescribeConfig(data=data, store=store, describer=spec, ask=CLASS),
        [ClassOption(k) for k in classes],
    )
    if (store.parent / RECORD).is_file():
        records = StageRecords(store.parent)
        before, asked = records.options, records.begun("describe") or {}
        if before.get("describer") == spec and "ask" in asked:
            own = DistillConfig.model_validate(DistillConfig.changed(before) | {"out": store.parent})
            asking = own.describe(asked["ask"])
            options = [ClassOption(*option) for option in asked.get("classes") or ()]
            listed = options if {*classes} <= {option.name for option in options} else listed
    lines = [f"{name}: {definition}" if definition else name for name, definition in listed]
    alone: dict[str, Any] = {"order": "random", "splits": "train", "engine": "local", "batch": False, "examples": 0}
    alone |= dict.fromkeys(("limit", "share", "until_gain", "second_describer"))
    given = {name: value for name in ("base_url", "price") if (value := getattr(config, name)) is not None}
    classed = {"classes": "\n".join([*lines, ""])} if lines else {}
    update = {"data": data, "store": store, "max_cost": config.max_cost, **alone, **classed, **given}
    return asking.model_copy(update=update)


def require_askable(config: PredictConfig, output: str, *, exclusive: bool) -> None:
    """Refuse what nobody can be asked about, before the model predicts anything. Raises ConfigError."""
    if output != "probabilities" or not exclusive:
        raise ConfigError("goes with models of one class per image.", field="ask_when_unsure")
    asking = _asking(config, "", ())
    if config.max_cost is None and not is_free(asking) and not sys.stdin.isatty():
        raise ConfigError(
            "is needed, as nobody is there to agree: the most that all answers may cost.", field="max_cost"
        )


def with_answers(config: PredictConfig, classes: Sequence[str], rows: Sequence[Prediction]) -> list[Prediction]:
    """Return predictions in which the least sure ones have the class that a describer named, once somebody agrees.

    What costs how much, and what it brings, is said before anybody is paid. Raises ConfigError, DescriberError.
    """
    sure = np.array([0.0 if row.none else row.probabilities[0] for row in rows])
    chosen = np.argsort(sure, kind="stable")[: round(config.ask_share * len(rows))]
    rows = [row._replace(asked=False) for row in rows]
    if not len(chosen):
        return rows
    store = store_of(config)
    asking = _asking(config, dataset(([rows[row].image for row in chosen], None)), classes)
    learned = None
    if store.is_file():
        with DescriptionStore(store) as opened:
            learned = opened.dataset
    estimate = describe(asking.model_copy(update={"dry_run": True}))
    say(f"{forecast(sure, chosen, store)} {estimate.text}")
    if estimate.estimate_requests and not _agreed(asking):
        raise KeyboardInterrupt
    outcome = describe(asking)
    if learned is not None:  # the store stays that of the images that were learned from
        with DescriptionStore(store, write=True) as opened:
            opened.note_dataset(learned)
    say(_said(outcome, len(chosen)))
    answers = _answers(asking)
    for row in chosen.tolist():
        if (answer := answers.get(rows[row].image)) is not None:
            rows[row] = _answered(rows[row], answer)
    return rows


def forecast(sure: np.ndarray, chosen: np.ndarray, store: Path) -> str:
    """Return how right the predictions are now, and about how right if somebody is asked about the ``chosen`` ones."""
    with DescriptionStore(store) as opened:
        stated = [item.answer.confidence for item in opened.answers() if item.answer.confidence is not None]
    high = float(np.mean(stated)) if stated else STATED
    rest = float(np.delete(sure, chosen).sum())
    low, most = (100 * (rest + right * len(chosen)) / len(sure) for right in (max(0.0, 1 - HARDER * (1 - high)), high))
    return (
        f"Asking about the {len(chosen):,} least sure of {len(sure):,} images is expected to give about {low:.0f} to "
        f"{most:.0f} % right (now {100 * sure.mean():.0f} %), if answers are wrong once to {HARDER:.0f} times as often "
        f"as {percent(1 - high)}."
    )


def _agreed(asking: DescribeConfig) -> bool:
    if asking.max_cost is not None or is_free(asking):
        return True
    return console.input("Go on? [y/N] ", markup=False).strip().lower() in ("y", "yes")


def _said(outcome: DescribeResult, chosen: int) -> str:
    cost = "" if outcome.cost_usd is None else f" All answers of the store have cost ${outcome.cost_usd:,.4f}."
    return f"{chosen - outcome.without_description:,} of {chosen:,} have an answer.{cost}"


def _answers(asking: DescribeConfig) -> dict[str, Answer]:
    """Return the answers of the describer by path of the image."""
    from gpt4image.data import load_dataset

    images = load_dataset(asking.data)
    with DescriptionStore(asking.store) as opened:
        answers = opened.answers(digests=images.digests, describer=load_describer(asking).settings)
        found = {item.digest: item.answer for item in answers if CLASS in item.prompt.ask}
    pairs = zip(images.keys, images.digests, strict=True)
    return {key: found[digest] for key, digest in pairs if digest in found}


def _answered(row: Prediction, answer: Answer) -> Prediction:
    """Return a prediction with the class of an answer before the others."""
    if answer.class_name is None:
        return row._replace(none=True, asked=True)
    sure = STATED if answer.confidence is None else answer.confidence
    others = [one for one in zip(row.classes, row.probabilities, strict=True) if one[0] != answer.class_name]
    best = [(answer.class_name, sure), *others][: len(row.classes)]
    return row._replace(
        classes=[one[0] for one in best], probabilities=[one[1] for one in best], none=False, unsure=False, asked=True
    )
