"""The verb improve: from a deployed model and new images to a report, a few questions, and a model that is compared.

The stages are those of distill, on the images of before and the new ones together. What was chosen to be asked is
written once, so that the same command goes on after a kill and asks nobody else. The new run names its parent.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.artifacts.class_lists import class_list
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError, RunError, first_few
from gpt4image.base.files import file_digest, fingerprint, read_json, write_json, write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.config import DescribeConfig, DistillConfig, HistoryConfig, ImproveConfig
from gpt4image.config.base import listed
from gpt4image.config.distilling import ANSWERS, MODEL, RUN, TARGETS
from gpt4image.config.results import DescribeResult, ImproveResult
from gpt4image.data import Dataset, load_dataset, load_with_splits
from gpt4image.data.joined import NAME, read_rows, rows_of, write_joined
from gpt4image.data.spec import parse
from gpt4image.describing.describe import describe
from gpt4image.distilling.distill import (
    STAGES,
    Stages,
    after_answers,
    answers_of,
    asks_again,
    planned,
    questions_of,
    recorded,
    require_payer,
)
from gpt4image.improving.compared import against, compare_models, in_words
from gpt4image.improving.line import (
    IMPROVED,
    Compared,
    Improved,
    Parent,
    copy_store,
    find_parent,
    next_folder,
    read_improved,
    spent,
)
from gpt4image.improving.look import choose, load_deployed, look, sections
from gpt4image.improving.look import in_words as news
from gpt4image.labelling.label import FEATURES
from gpt4image.options import command_line
from gpt4image.pages.page import render

IMAGES, CHOICE, PAGE = "images.parquet", "choice.json", "improve.html"
FORMAT = 1


class Choice(NamedTuple):
    """What was chosen of the new images, by digest; the context of the page, and what is said of it; the images that
    are left out."""

    fresh: int
    looks: tuple[str, ...]
    ask: tuple[str, ...]
    expected_wrong: float
    page: dict[str, Any]
    skipped: tuple[Skipped, ...]


def improve(config: ImproveConfig) -> ImproveResult:
    """Look, report, choose, ask, label, train and compare; hand over a model that is not worse.

    Raises KeyboardInterrupt where somebody does not want to pay; RunError, ConfigError, DataError, and as stages do.
    """
    parent = find_parent(config.run)
    before = read_improved(parent.folder)
    if before is not None and not before.taken_over and not config.force:
        raise RunError(
            f"{parent.folder} was not taken over, as {before.against}. Improve {before.parent}, or give --force."
        )
    out = config.out or next_folder(parent.folder)
    config = config.model_copy(update={"run": parent.folder, "out": out})
    old, new = _images_of(parent), load_dataset(config.new)
    _require_classes(config, parent, new)
    known = {*old.digests}
    fresh = [row for row, digest in enumerate(new.digests) if digest not in known and not known.add(digest)]
    left_out = len(new) - len(fresh)
    skipped = new.skipped
    if fresh:
        with runs.writing(out):
            choice = _choice(config, parent, old, new.select(fresh))
            skipped += choice.skipped
            if choice.fresh:
                copy_store(parent.store, out / ANSWERS)
                return _learn(config, parent, choice, left_out, skipped)
    text = f"No image of {config.new} that can be read is new to {parent.folder}: nothing to ask, nothing to learn."
    return ImproveResult(path=parent.folder, new_images=0, known_images=left_out, skipped=skipped, text=text)


def _images_of(parent: Parent) -> Dataset:
    """Return the images of a model. Raises ConfigError: they are of a task that improve does not know."""
    options = parent.options
    old = load_with_splits(options.data, val_fraction=options.val_fraction, test_fraction=options.test_fraction)
    if (
        old.labels.ndim == 2
        or old.regions is not None
        or runs.read_config(parent.run)["task"] not in ("classification", "video")
    ):
        raise ConfigError(f"RUN {parent.folder}: improve knows one class per image; boxes, masks and several not yet.")
    return old


def _require_classes(config: ImproveConfig, parent: Parent, new: Dataset) -> None:
    """Refuse labels of new images that are no class, and a list that lacks one of before."""
    own = runs.class_names(parent.run)
    classes = [option.name for option in class_list(config.classes)] if config.classes else [*own]
    if lost := [name for name in own if name not in classes]:
        raise ConfigError(f"lacks {first_few(lost)}, which {parent.folder} knows: name all classes.", field="classes")
    if strange := [name for name in new.classes if name not in classes]:
        raise ConfigError(
            f"{config.new}: {first_few(strange)} {'is no class' if len(strange) == 1 else 'are no classes'} of "
            f"{parent.folder}. If images are of new classes, name all classes: --classes '{', '.join(classes)}, "
            f"{strange[0]}'. If folders are no classes, put the images into one folder without others."
        )


def _choice(config: ImproveConfig, parent: Parent, old: Dataset, new: Dataset) -> Choice:
    """Return what was chosen of the new images, as it was the first time; choose, and write the page, if it is."""
    assert config.out is not None  # noqa: S101
    out, file = config.out, config.out / CHOICE
    model = file_digest(parent.run / runs.MODEL)
    key = {"format": FORMAT, "model": model, **{name: getattr(config, name) for name in ("new", "ask", "looks")}}
    if file.is_file() and (made := read_json(file))["key"] == key:
        content = made["choice"] | {"skipped": tuple(Skipped(**one) for one in made["choice"]["skipped"])}
        return Choice(**content)
    if (out / RUN).exists():
        raise ConfigError(f"{out} improves another model, or by other images or numbers; give another --out.")
    spec = parse(parent.options.data)
    before = read_rows(spec.path) if spec.name == NAME else rows_of(spec.text, old.digests, old.splits.tolist())
    rows = dict.fromkeys(new.digests, config.new)
    data = write_joined(out / IMAGES, [*before, *rows_of(config.new, [*rows], ["train"] * len(rows))])
    images = load_dataset(data)
    deployed = load_deployed(parent.run)
    is_old = np.array([digest not in rows for digest in images.digests])
    features = (out / TARGETS).with_suffix(FEATURES)
    seen = look(deployed, images, is_old, parent.options.features, features)
    if not len(seen.rows):
        (out / IMAGES).unlink()
        shutil.rmtree(features, ignore_errors=True)
        return Choice(0, (), (), 0.0, {}, seen.skipped)
    looks, ask = choose(seen, images, config.looks, config.ask, parent.options.seed)
    names = [[images.digests[row] for row in some] for some in (looks, ask)]
    splits = {images.digests[row]: "train" for row in seen.rows} | dict.fromkeys(names[0], "test")
    write_joined(out / IMAGES, [*before, *rows_of(config.new, [*splits], [*splits.values()])])
    doubt = {images.digests[row]: 1 - p.max() for row, p in zip(seen.rows, seen.probabilities, strict=True)}
    counts = f"{len(names[0]):,} measure, {len(names[1]):,} are asked about"
    page = {
        "data": config.new,
        "facts": f"{len(seen.rows):,} new images for {parent.folder}: {counts}.",
        "lines": news(seen, deployed.classes),
        "shares": [one._asdict() for one in seen.shares],
        "sections": sections(seen, images, deployed.classes, ask),
    }
    wrong = float(sum(doubt[one] for one in names[1]))
    choice = Choice(len(seen.rows), tuple(names[0]), tuple(names[1]), wrong, page, seen.skipped)
    write_text(out / PAGE, render("improve.html", **page, compared={}, verdict=[]))
    skipped = [vars(one) for one in choice.skipped]
    write_json(file, {"key": key, "choice": choice._asdict() | {"skipped": skipped}})
    return choice


def _learn(
    config: ImproveConfig, parent: Parent, choice: Choice, left_out: int, skipped: Sequence[Skipped]
) -> ImproveResult:
    """Ask, label, train, compare, and hand over."""
    assert config.out is not None  # noqa: S101
    out = config.out
    own = _options(config, parent)
    images = load_with_splits(own.data, val_fraction=own.val_fraction, test_fraction=own.test_fraction)
    own, task, describing = planned(own, images)
    describing = describing.model_copy(update={"splits": "train,val,test", "second_describer": None})
    labelled = {images.digests[row] for row in np.flatnonzero(images.labelled)}
    asked = {*choice.ask, *(digest for digest in choice.looks if digest not in labelled)}
    about = asked | (set() if config.describer else _answered(out / ANSWERS))
    say("\n".join([choice.page["facts"], *choice.page["lines"], _forecast(choice, len(asked))]))
    stages = Stages(out, StageRecords(out), STAGES)
    _ask(config, own, describing, images, about, len(asked), stages)
    compared, verdict = dict[str, Compared](), ""

    def judge() -> str:
        nonlocal compared, verdict
        compared = compare_models(parent.run, out / RUN, images, choice.looks, out / ANSWERS)
        verdict = against(compared, config.margin)
        return "" if config.force or not verdict else f"{verdict}; --force takes it over"

    after_answers(own, task, images, listed(describing.ask), stages, judge)
    taken = config.force or not verdict
    record = Improved(
        parent=parent.folder,
        new=config.new,
        fresh=choice.fresh,
        looks=len(choice.looks),
        asked=len(choice.ask),
        describer=own.describer,
        compared=compared,
        against=verdict,
        taken_over=taken,
    )
    said = in_words(compared)
    refused = f"not taken over, as {verdict}; --margin allows {100 * config.margin:g} points, --force any"
    said.append(f"The new model is {f'taken over: {out / MODEL}' if taken else refused}.")
    pages = {name: one.model_dump() for name, one in compared.items()}
    write_text(out / PAGE, render("improve.html", **choice.page, compared=pages, verdict=said))
    write_json(out / IMPROVED, record.model_dump(mode="json"))
    made = (out / PAGE, out / RUN, *([out / MODEL] if taken else []))
    history = command_line("history", HistoryConfig, {"run": out})
    return ImproveResult(
        path=out,
        parent=parent.folder,
        new_images=choice.fresh,
        known_images=left_out,
        looks=len(choice.looks),
        asked=len(choice.ask),
        cost_usd=spent(out / ANSWERS),
        compared={name: one.model_dump() for name, one in compared.items()},
        taken_over=taken,
        page=out / PAGE,
        model=out / MODEL if taken else None,
        text="\n".join([*choice.page["lines"], *said]),
        skipped=tuple(dict.fromkeys([*skipped, *(item for each in stages.outcomes.values() for item in each.skipped)])),
        wrote=made,
        next=history,
    )


def _options(config: ImproveConfig, parent: Parent) -> DistillConfig:
    """Return the options of the parent, for the images of both."""
    assert config.out is not None  # noqa: S101
    given = DistillConfig.changed(dict(parent.options)) | {
        "data": f"{NAME}:{config.out / IMAGES}",
        "out": config.out,
        "max_cost": config.max_cost,
        "yes": config.yes,
        "limit": None,
        "compare": 0,
    }
    if config.describer:
        given["describer"] = config.describer
    if config.classes or not given.get("classes"):
        given["classes"] = config.classes or "\n".join([*runs.class_names(parent.run), ""])
    return DistillConfig.model_validate(given)


def _answered(store: Path) -> set[str]:
    """Return the images with an answer, which are asked again where they may be of a class that was added."""
    with DescriptionStore(store) as opened:
        return {item.digest for item in opened.answers()}


def _forecast(choice: Choice, asked: int) -> str:
    return (
        f"Of the {len(choice.ask):,} images to learn from, the deployed model expects to be wrong on about "
        f"{choice.expected_wrong:.0f}; asking about {asked:,} images mends most of these."
    )


def _ask(
    config: ImproveConfig,
    own: DistillConfig,
    describing: DescribeConfig,
    images: Dataset,
    about: set[str],
    asked: int,
    stages: Stages,
) -> None:
    """Ask about the chosen images what is not answered yet, once somebody has agreed to pay."""
    questions = questions_of(describing, images)
    key: dict[str, Any] = {**questions, "images": fingerprint(sorted(about))}
    earlier = stages.records.finished("describe", key)
    again = isinstance(earlier, DescribeResult) and asks_again(own, earlier, stages.records.options)
    if earlier is None or again:
        require_payer(own, describing, asked, "improve", config)
    stages.records.write_options(recorded(own))
    ask = partial(describe, only=about)
    stages.do("describe", partial(answers_of, own, describing, ask), key, goes_on=questions, again=again)
