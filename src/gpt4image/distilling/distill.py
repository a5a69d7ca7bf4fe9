"""The verb distill: from a folder of images to an exported model and a report, in one command.

The stages are those that have commands of their own. Each has a key, by name: its options, the images and labels, and
the keys of what it reads. A stage whose key is unchanged is not carried out again.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.artifacts.answers import load_prompt
from gpt4image.artifacts.class_lists import class_list, compare_with
from gpt4image.artifacts.comparisons import COMPARISON as COMPARISON_RECORD
from gpt4image.artifacts.probabilities import take
from gpt4image.artifacts.stage_records import StageRecords, changed
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.artifacts.table import MANIFEST as TABLE
from gpt4image.artifacts.targets import Targets, load_targets
from gpt4image.base.errors import ConfigError, DescriberError, RunError, first_few
from gpt4image.base.files import fingerprint, make_folder, move, parquet_rows, write_text
from gpt4image.base.intervals import paired
from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import console, say
from gpt4image.base.secrets import hidden
from gpt4image.comparing.compare import compare
from gpt4image.config import DescribeConfig, DistillConfig, EvaluateConfig, ReportConfig, StageConfig, TrialConfig
from gpt4image.config.base import flag_of, listed
from gpt4image.config.distilling import ANSWERS, COMPARISON, EMBEDDINGS, RUN, TARGETS
from gpt4image.config.results import (
    CompareResult,
    DescribeResult,
    DistillResult,
    EncodeResult,
    EvaluateResult,
    LabelResult,
    ReportResult,
    TrainResult,
)
from gpt4image.data import NO_LABEL, SPLITS, Dataset, annotation, load_with_splits
from gpt4image.data.dataset import DOUBT, RANDOM
from gpt4image.deploying.applications import web_runtime
from gpt4image.deploying.export import export
from gpt4image.deploying.formats import require_onnx
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.registry import is_free
from gpt4image.describing.prices import bill
from gpt4image.distilling.limits import limit_of
from gpt4image.distilling.looking import audit_command, audited, predict_command, review_command
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.evaluating.evaluate import accuracy_from_audit, evaluate
from gpt4image.labelling.audited import share_of_targets
from gpt4image.labelling.label import label
from gpt4image.options import command_line
from gpt4image.pages.numbers import duration
from gpt4image.reporting.report import PAGE, report
from gpt4image.selecting.estimate import expected_right
from gpt4image.selecting.order import doubt_of
from gpt4image.tasks.base import Task
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.registry import find_task, task_of
from gpt4image.training import auto
from gpt4image.training.prepare import identity_of, try_build, with_room_for_boxes
from gpt4image.training.train import train

STAGES = ("describe", "encode", "label", "train", "evaluate", "export", "report")
COMPARE = "compare"  # takes part only where it is asked for, as the last stage
INDENT = " " * 14
SAMPLE = 8  # images that are asked about before somebody agrees to pay
SECOND = ("second_describer", "least_gain", "value_per_label")
MACHINE = frozenset(
    {
        "max_cost",
        "limit",
        "share",
        "until_gain",
        "order",
        "dry_run",
        "billed",
        "retry_rejected",
        "batch",
        "poll_seconds",
        "engine",
        "workers",
        "concurrency",
    }
    | {"splits", "val_fraction", "test_fraction", "second_base_url", "second_targets", *SECOND}
    | {"requests_per_minute", "timeout", "retries", "price", "device", "batch_size"}
)
"""Options of describing that say how answers are brought, not what is asked."""
TOKENS_OF_BOXES = 2048  # room for the boxes of one image
UNMEASURED = (
    "No held-out image has a human label, so it is not known yet how good this is. Look at 60 images on a page to "
    "estimate the accuracy{}, with an interval; then give this command again:\n  {}"
)
# Accuracy that a model loses per wrong target, where errors are scattered. Where each wrong one names the same other
# class, it is up to 0.75; more than one was never seen (docs/research/log/2026-12-01-where-it-ends.md).
USUAL = 0.15
# A model that is as often right as its targets, where these are often wrong, would be better with true labels: by 2 to
# 24 points (docs/research/log/2026-12-01-preregistered.md). How much depends on what it could be, which is not known.
HELD_BACK, OFTEN_WRONG = 0.02, 0.1
NOTHING_HELD_OUT = (
    "The model learned from all images. New ones show how good it is: gpt4image audit --data NEW --split train --model"
)
FEWEST_AT_RANDOM = 20
"""Labels of images sampled at random by which two models are compared."""
Ask = Callable[[DescribeConfig], DescribeResult]
PLACES = frozenset({"data", "out", "store", "embeddings", "answers", "targets", "run_dir"})
"""Options that say where something lies."""


def distill(config: DistillConfig) -> DistillResult:
    """Describe, encode, label, train, evaluate, export and report; what was made before of the same things stays.

    Raises KeyboardInterrupt where the user stopped it, or does not want to pay; everything is kept. Other errors are
    those of the stages; RunError also says that the folder was made with other questions or holds what is not its own.
    """
    started = time.monotonic()
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    if config.task == Detection.name:  # the answers bring boxes where the dataset has none
        images = with_room_for_boxes(images)
    config, task, describing = planned(config, images)
    annotated = annotation.known(task.annotations(images))
    with runs.writing(config.out):
        names = (*STAGES, COMPARE) if config.compare else STAGES
        stages = Stages(config.out, StageRecords(config.out), names)
        questions = questions_of(describing, images)
        _require_same_questions(config, questions, stages.records)
        data = identity_of(images, None, None, [])
        about = sorted({images.digests[i] for i in np.flatnonzero(np.isin(images.splits, listed(config.splits)))})
        told = any(load_prompt(name).class_conditioned for name in describing.prompt)
        second = describing.second_describer and [getattr(describing, name) for name in SECOND]
        asked = {**questions, "images": fingerprint(about), "second": second, "told": data if told else None}
        earlier = stages.records.finished("describe", asked)
        again = isinstance(earlier, DescribeResult) and asks_again(config, earlier, stages.records.options)
        if earlier is None or again:
            require_payer(config, describing, len(about), "distill", config)
            if "description" in listed(describing.ask):
                load_text_encoder(config.encoder, config.device)  # a mistake in its name is told before anybody pays
        say(_plan(config, images, describing, int(annotated.sum())))
        stages.records.write_options(recorded(config))
        make = partial(answers_of, config, describing, describe)
        stages.do("describe", make, asked, goes_on=questions, again=again)
        after_answers(config, task, images, listed(describing.ask), stages)
    return _outcome(config, images, task, int(annotated.sum()), stages, time.monotonic() - started)


def planned(config: DistillConfig, images: Dataset) -> tuple[DistillConfig, Task, DescribeConfig]:
    """Return the options that suit the images, their task, and what is asked. Raises ConfigError, DataError."""
    task = _task(config, images)
    ask = _what_to_ask(config, images, task)
    _require_learnable(config, images, task)
    config = _suited(config, images, task, ask)
    return config, task, config.describe(ask)


def _task(config: DistillConfig, images: Dataset) -> Task:
    training = config.train()
    task = task_of(images, training) if config.task == "auto" else find_task(config.task, training)
    if task.output != "probabilities":
        task.annotations(images)
    return task


def _what_to_ask(config: DistillConfig, images: Dataset, task: Task) -> str:
    """Return what one call brings. Raises ConfigError: that cannot be asked or teach, or there are no classes."""
    several = images.labels.ndim == 2
    if config.task == "multilabel" and not several:
        raise ConfigError(
            f"--task multilabel needs a dataset that says so: {config.data} has one label per image. Give a table with "
            "a column 'labels' (names separated by '|')."
        )
    if not images.classes and not config.describe("class").classes:
        raise ConfigError(
            f'No image of {config.data} has a label, so its classes are not known: name them, --classes "cat, dog" or '
            "--classes FILE with one per line."
        )
    part = "boxes" if task.boxes else "tags" if several else "class"
    plain = task.name == "classification" and not several and not config.align
    ask = config.ask or (part if plain else f"description,{part}")
    asked = {*listed(ask)}
    if (task.boxes and "boxes" not in asked) or (asked == {"boxes"} and task.output == "probabilities"):
        what = "boxes" if task.boxes else "description, class or tags"
        raise ConfigError(f"--ask {ask}: nothing to learn from for --task {task.name}; ask for {what}.")
    return ask


def _require_learnable(config: DistillConfig, images: Dataset, task: Task) -> None:
    """Refuse what `train` would refuse after the answers are paid for."""
    named = config.describe("class").classes
    if named:
        compare_with(class_list(named), images.classes, config.data)
        images.with_classes([option.name for option in class_list(named)])
    classes = {*images.classes, *(option.name for option in (class_list(named) if named else ()))}
    if not task.boxes:  # boxes are taught even where no image has any
        task.require(task.annotations(images), sorted(classes), config.data)
    training, _ = auto.choose(config.train().model_copy(update={"task": task.name}), images)
    try_build(training.resolved, task, sorted(classes))


def _suited(config: DistillConfig, images: Dataset, task: Task, ask: str) -> DistillConfig:
    """Return the options with what boxes, masks and clips call for, where nothing else is given."""
    own: dict[str, Any] = {}
    if "boxes" in listed(ask):
        own["max_tokens"] = TOKENS_OF_BOXES
    if task.boxes:
        own["align"] = "description" in listed(ask)
    if images.clips:
        own["prompt"] = ("motion",)
    if not task.in_timm:
        own["format"] = "onnx"
    found = config.model_copy(update={name: own[name] for name in own.keys() - config.model_fields_set})
    if found.format == "timm" and not task.in_timm:
        raise ConfigError(f"--format timm: timm has no models for {task.name}; give onnx or torch-export.")
    if found.export().model_format == "onnx":
        require_onnx()
    if found.format == "page":
        web_runtime(found.onnxruntime_web)
    return found


def _require_same_questions(config: DistillConfig, questions: Mapping[str, Any], records: StageRecords) -> None:
    """Refuse other questions than those that the folder has answers to; classes may be added. Raises RunError."""
    before = records.begun("describe")
    differ = [] if before is None else changed(before, questions)
    if not differ or not (config.out / ANSWERS).is_file():
        return
    with DescriptionStore(config.out / ANSWERS) as store:
        lists: set[Any] = {prompt.classes for prompt in store.prompts() if prompt.classes}
        if not any(status == "ok" for *_, status, _ in store.counts()):
            return
    classes = questions["classes"] or ()
    if differ == ["classes"] and all(set(each) <= set(classes) for each in lists):
        return
    names = [option.name for option in classes]
    if lost := sorted({option.name for each in lists for option in each if option.name not in names}):
        raise RunError(
            f"{config.out} holds answers of a list of classes with {first_few(lost)}, which the classes now lack: "
            f"{first_few(names, 20)}. If no image has that label any more, name all classes with --classes. If it was "
            "renamed or split, docs/distill.md#a-class-is-renamed-or-split says what to do; another --out asks anew."
        )
    raise RunError(
        f"{config.out} holds answers to other questions: {', '.join(map(flag_of, differ))} was different, and a "
        "teacher reads all answers that are there. Give the same options, or another --out."
    )


def asks_again(config: DistillConfig, earlier: DescribeResult, options: Mapping[str, Any]) -> bool:
    """Return whether images that an earlier run left without an answer are asked about again."""
    if not earlier.without_description:
        return False
    name = earlier.stopped_by
    before, now = (None, None) if name is None else (options.get(name), getattr(config, name))
    return config.ask_again or (
        before is not None and (now is None or (now < before if name == "until_gain" else now > before))
    )


def recorded(config: StageConfig) -> dict[str, Any]:
    """Return the options as a record has them, without secrets."""
    options: dict[str, Any] = config.model_dump(mode="json")
    return {name: hidden(value) if isinstance(value, str) else value for name, value in options.items()}


def _plan(config: DistillConfig, images: Dataset, describing: DescribeConfig, annotated: int) -> str:
    counts = ", ".join(f"{count:,} {split}" for split in SPLITS if (count := len(images.indices(split))))
    second, store = describing.second_describer, config.out / ANSWERS
    both: dict[str, Any] = {"describers": f"{config.describer},{second}", "classes": config.classes, "store": store}
    rows = {
        "images": f"{len(images):,} ({counts}), {annotated:,} with a human label",
        "ask": f"{describing.describer} for {describing.ask.replace(',', ' and ')}",
        **({"second": f"{second} where it is expected to correct the class"} if second else {}),
        **({"try both": command_line("trial", TrialConfig, {"data": config.data, **both})} if second else {}),
        "out": str(config.out),
    }
    return "\n".join(f"{name:10}{value}" for name, value in rows.items())


def answers_of(config: DistillConfig, describing: DescribeConfig, ask: Ask) -> DescribeResult:
    """Return what came of asking, once somebody has agreed to pay. Raises DescriberError: nothing that can be used."""
    agree_to_pay(config, describing, ask)
    outcome = ask(describing)
    if not outcome.described + outcome.already_described:
        reason = f" {outcome.skipped[-1].name}: {outcome.skipped[-1].reason}" if outcome.skipped else ""
        raise DescriberError(
            f"{describing.describer} answered nothing that can be used.{reason} If it brings only some of "
            f"{describing.ask}, say so: --ask class, for example."
        )
    return outcome


def after_answers(
    config: DistillConfig,
    task: Task,
    images: Dataset,
    asked: tuple[str, ...],
    stages: Stages,
    judge: Callable[[], str] = str,
) -> None:
    """Go through the stages after describing; what ``judge`` says against the trained model, it is not exported."""
    out, labels, data = config.out, config.out / TARGETS, identity_of(images, None, None, [])
    annotated = annotation.known(task.annotations(images))
    split = next((split for split in ("test", "val") if annotated[images.indices(split)].any()), "")
    with DescriptionStore(out / ANSWERS) as store:
        content = store.fingerprint()
    encoder = _options(config.encode(), {"device", "engine", "workers"}, of="encode ")
    if "description" in asked:
        table, key = out / EMBEDDINGS, {"answers": content, **encoder}
        stages.do("encode", lambda: encode(config.encode()), key, goes_on=encoder, made=[table], needs=table / TABLE)
    else:
        stages.leave_out("encode", "no descriptions were asked for")
    taught: dict[str, Any] = {"data": data, "answers": content, "asked": asked, **encoder}
    answered = dict(taught)
    taught |= _options(config.label(asked), of="label ")
    pages = [path for path in sorted(out.glob(f"{labels.stem}.*")) if path.is_file()]  # features of pictures stay
    stages.do("label", lambda: label(config.label(asked)), taught, made=pages, needs=labels)
    run, trained = out / RUN, taught | _options(config.train(), runs.NOT_IDENTITY)
    # A power failure may leave the folder of the run without its record.
    stages.do("train", lambda: train(config.train()), trained, goes_on=trained, made=[run], needs=run / runs.RUN)
    if split:
        measure = EvaluateConfig.model_validate({"run_dir": run, "split": split})
        measured = run / f"evaluation-{split}.json"
        stages.do("evaluate", lambda: evaluate(measure), {**trained, "split": split}, needs=measured)
    else:
        stages.leave_out("evaluate", "no held-out image has a human label, so accuracy cannot be measured")
    exported = config.export()
    key = trained | _options(exported, of="export ")
    if against := judge():
        stages.leave_out("export", against)
    else:
        stages.do("export", lambda: export(exported), key, made=[exported.out], needs=exported.out)
    stages.do("report", lambda: _report(out), {**trained, "split": split}, needs=out / PAGE)
    if config.compare and split == "test":
        compared, folder = config.comparison(asked, boxes=task.boxes), out / COMPARISON
        key, record = answered | _options(compared, runs.NOT_IDENTITY), folder / COMPARISON_RECORD
        stages.do(COMPARE, lambda: compare(compared), key, goes_on=key, made=[folder], needs=record)
    elif config.compare:
        stages.leave_out(COMPARE, "no test image has a human label")


def _report(out: Path) -> ReportResult:
    written = report(ReportConfig(dir=out / RUN))
    write_text(out / PAGE, (out / RUN / PAGE).read_text(encoding="utf-8"))
    return replace(written, path=out / PAGE)


def _outcome(
    config: DistillConfig, images: Dataset, task: Task, annotated: int, stages: Stages, seconds: float
) -> DistillResult:
    """Return what was made, how good it is as far as that is known, and what was skipped."""
    out, exported = config.out, config.export()
    done: Any = stages.outcomes  # of the class of each stage
    answers: DescribeResult = done["describe"]
    measured: EvaluateResult | None = done.get("evaluate")
    labels: LabelResult = done["label"]
    found, review = load_targets(out / TARGETS), review_command(config)
    targets = found if isinstance(found, Targets) else None
    missing, notes = answers.without_description, [*(labels.notes or ())]
    if missing:
        why, again = " that can be used", "with --ask-again asks about them once more"
        if answers.stopped_by:
            why, again = f", as {flag_of(answers.stopped_by)} ended the asking", "with another number asks about them"
        notes.append(
            f"{missing:,} images have no answer{why}; the model learned from the others. The same command {again}."
        )
    notes.append(_gain(config, images))
    if measured is None:
        notes.append(_by_looks(config, targets, held_out=bool(len(images.indices("test")))))
    if targets is not None:
        accuracy, commands = score(measured).get("accuracy"), (review, audit_command(config, held_out=False))
        notes.append(worth_of_labels(targets, audited(config.data), accuracy, *commands))
        notes.append(_limit(out, share_of_targets(targets, audited(config.data)), accuracy))
    made = [exported.out, *(out / name for name in (PAGE, COMPARISON, RUN, TARGETS, EMBEDDINGS, ANSWERS))]
    return DistillResult(
        path=out,
        images=len(images),
        human_labels=annotated,
        answered=answers.distinct_images - missing,
        without_answer=missing or None,
        answered_by_split=answers.answered_by_split,
        cost_usd=answers.cost_usd,
        cost_usd_earlier=answers.cost_usd_earlier,
        scores=score(measured),
        measured_on=None if measured is None else f"{measured.labelled:,} {measured.split} images",
        model=exported.out,
        seconds=round(seconds, 1),
        stages={name: outcome.facts for name, outcome in stages.outcomes.items()},
        counts={} if measured is None else {next(iter(score(measured))): measured.labelled},
        ci95={name: ends for name in score(measured) if measured and (ends := measured.ci95.get(measured.metric))},
        text="\n\n".join(filter(None, [*notes, done[COMPARE].text if COMPARE in done else ""])),
        skipped=tuple(dict.fromkeys(item for outcome in stages.outcomes.values() for item in outcome.skipped)),
        wrote=tuple(path for path in made if path.exists()),
        next=review if measured is None and task.output != "mask" else predict_command(exported),
    )


def _gain(config: DistillConfig, images: Dataset) -> str:
    """Return how much better the model is than an earlier one, the first that can be compared; or how many images would
    tell. Nothing without labels of `review`.

    They are compared on test images that neither has learned from, by the records of both; none of these was in doubt.
    """
    reviewed = (images.was_sampled(RANDOM) | images.was_sampled(DOUBT)).sum()
    if not reviewed or not config.test_fraction:
        return ""
    needed = min(FEWEST_AT_RANDOM, round(config.test_fraction * len(images)))

    def rows(folder: Path) -> dict[str, Any]:
        record = folder / RUN / "predictions-test.parquet"
        return {row["digest"]: row for row in parquet_rows(record)} if record.is_file() else {}

    found, most = rows(config.out), 0
    earlier_ones = (config.out / f"earlier-{number}" for number in itertools.count(1))
    for earlier in itertools.takewhile(Path.is_dir, earlier_ones):
        pairs = [(found[digest], row) for digest, row in rows(earlier).items() if digest in found]
        same = [now["score"] - then["score"] for now, then in pairs if now["label"] == then["label"]]
        if len(same) >= needed:
            more, interval = paired(np.array(same))
            low, high = (f"{100 * end:+.1f}" for end in interval)
            return (
                f"On {len(same):,} test images that neither has learned from, the model scores {100 * more:+.1f} "
                f"points more than {earlier / RUN} (95 % interval {low} to {high})."
            )
        most = max(most, len(same))
    return (
        f"How much better the model is by {reviewed:,} labels of `review` is not measurable yet: {needed} images would "
        f"tell that were sampled at random and that two models have not learned from; there are {most}. Every fourth "
        "image of the page is sampled at random: label more, then give the same command again."
    )


def _limit(out: Path, right: Any, accuracy: float | None) -> str:
    record = runs.read_run(out / RUN)
    shares = record["run"].get("limits")
    return limit_of(record["config"], shares, None if right is None else right.share, accuracy) if shares else ""


def _by_looks(config: DistillConfig, targets: Targets | None, *, held_out: bool) -> str:
    """Return how good model or targets are by the audited images, or the command that audits."""
    what, more = ("", "") if held_out else (" of the targets", f"\n{NOTHING_HELD_OUT} {config.out / RUN}")
    if held_out:
        share, _ = accuracy_from_audit(EvaluateConfig(run_dir=config.out / RUN, audit=audited(config.data)))
    else:
        share = None if targets is None else share_of_targets(targets, audited(config.data))
    if share is None:
        return UNMEASURED.format(what, audit_command(config, held_out=held_out)) + more
    return f"Accuracy{what}, by {share.looks} audited images of {share.total:,}: {share}.{more}"


def questions_of(config: DescribeConfig, images: Dataset) -> dict[str, Any]:
    """Return what is asked: without a list of classes those of the dataset are offered."""
    own = None if listed(config.ask) == ("description",) else tuple(map(ClassOption, images.classes))
    found = _options(config, MACHINE)
    return found | {"classes": found["classes"] or own, "prompt": [load_prompt(name).content for name in config.prompt]}


def _options(config: StageConfig, without: Set[str] = frozenset(), of: str = "") -> dict[str, Any]:
    """Return options by name, after the word ``of``, without places and some others."""
    found = {name: value for name, value in recorded(config).items() if name not in PLACES | without}
    if found.get("classes"):
        found["classes"] = class_list(found["classes"])
    return {of + name: value for name, value in found.items()}


def require_payer(
    config: DistillConfig, describing: DescribeConfig, images: int, command: str, options: StageConfig
) -> None:
    """Refuse to begin where the describer may cost money and there is nobody to ask. Raises ConfigError."""
    if _agreed(config, describing) or sys.stdin.isatty():
        return
    again = command_line(command, type(options), {**dict(options), "max_cost": 5.0})
    raise ConfigError(
        f"Asking {describing.describer} about {images:,} images may cost money, and there is no terminal to ask you "
        f"on. Give the most it may cost, in US dollars, with --max-cost (or --yes for no limit):\n  {again}"
    )


def agree_to_pay(config: DistillConfig, describing: DescribeConfig, ask: Ask) -> None:
    """Estimate the cost and ask, where nobody agreed before. Raises KeyboardInterrupt."""
    if _agreed(config, describing):
        return
    estimating = describing.model_copy(update={"dry_run": True})
    sample, size = ask(estimating), max(SAMPLE, describing.per_call)
    if sample.estimate_requests and (missing := size - (sample.estimate_from_answers or 0)) > 0:
        say("A small sample is asked first, to estimate the rest; its answers are kept.")
        ask(describing.model_copy(update={"limit": min(missing, describing.limit or missing)}))
        sample = ask(estimating)
    if not sample.estimate_requests and describing.second_describer is None:
        return
    say(sample.text)
    if sample.estimate_usd is None:
        say("What that costs is not known: no price is known for this model (--price names it).")
    try:
        answer = console.input("Go on? [y/N] ", markup=False)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise KeyboardInterrupt


def _agreed(config: DistillConfig, describing: DescribeConfig) -> bool:
    second = describing.model_copy(update={"describer": describing.second_describer or describing.describer})
    return config.yes or describing.max_cost is not None or (is_free(describing) and is_free(second))


class Stages:
    """The stages of one run of distill in its folder: ``records`` of earlier runs, and ``outcomes`` by name."""

    def __init__(self, out: Path, records: StageRecords, names: Sequence[str] = STAGES) -> None:
        self._out, self._names, self.records = out, names, records
        self.outcomes: dict[str, Outcome] = {}
        self._earlier: Path | None = None

    def do(
        self,
        name: str,
        make: Callable[[], Outcome],
        key: Mapping[str, Any],
        *,
        goes_on: Mapping[str, Any] | None = None,
        again: bool = False,
        made: Collection[Path] = (),
        needs: Path | None = None,
    ) -> None:
        """Carry out one stage, unless it was finished with the same key: everything that decides what comes of it.

        What is there is gone on with where ``goes_on`` is unchanged; else, or where it is None, what was ``made`` makes
        room. With ``again``, the stage is carried out in any case, and goes on with what is there. Without ``needs`` it
        is not finished.
        """
        head = self._head(name)
        done: Any = None if again else self.records.finished(name, key)
        if done is not None and (needs is None or needs.exists()):
            self.outcomes[name] = done
            say(f"{head} as before: {said(done)}")
            return
        say(head.rstrip())
        begun = self.records.begun(name)
        goes_on_there = goes_on is not None and begun is not None and not changed(begun, goes_on)
        if not goes_on_there:
            self._make_room(name, made)
        if not goes_on_there or again:  # it is not finished until it has come to its end once more
            self.records.begin(name, goes_on or {})
        started = time.monotonic()
        self.outcomes[name] = new = make()
        self.records.finish(name, key, new)
        say(f"{INDENT}{said(new)} ({duration(time.monotonic() - started)})")

    def leave_out(self, name: str, why: str) -> None:
        """Say that a stage has nothing to do."""
        say(f"{self._head(name)} left out: {why}")

    def _head(self, name: str) -> str:
        return f"{self._names.index(name) + 1}/{len(self._names)} {name:9}"

    def _make_room(self, name: str, made: Collection[Path]) -> None:
        """Move a run or an exported model that was made of other things to OUT/earlier-N; remove what is derived."""
        for path in filter(Path.exists, made):
            if self.records.begun(name) is None:
                if name == "encode":  # it brings a table up to date, or refuses it
                    continue
                raise RunError(f"{path} is there, and distill did not make it; move it away, or give another --out.")
            if name in ("train", COMPARE) or (name == "export" and self.records.is_finished(name)):
                if self._earlier is None:
                    places = (self._out / f"earlier-{number}" for number in itertools.count(1))
                    self._earlier = next(place for place in places if not place.exists())
                    make_folder(self._earlier)
                place = self._earlier / path.name
                move(path, place)
                say(f"{INDENT}options, labels or answers have changed: the earlier one is now {place}")
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def score(measured: EvaluateResult | None) -> dict[str, float | None]:
    """Return how good the model is by human labels; ``accuracy`` is None where there are none."""
    if measured is None:
        return {"accuracy": None}
    return {"accuracy" if measured.metric == "top1" else measured.metric: measured.score}


def said(done: Outcome) -> str:
    """Return what came of a stage, in one line."""
    match done:
        case DescribeResult():
            new, before = done.described, done.already_described
            parts = [f"{new + before:,} answers{f', {new:,} of them new' if before else ''}"]
            counts = {"failed": done.failed, "rejected": done.rejected}
            parts += [f"{count:,} {name}" for name, count in counts.items() if count]
            parts += [] if done.cost_usd is None else [bill(done.cost_usd, done.cost_usd_earlier or 0.0)]
            return ", ".join([*parts, *([f"stopped by {flag_of(done.stopped_by)}"] if done.stopped_by else [])])
        case EncodeResult():
            new = f", {done.texts_encoded:,} of them new" if done.texts_kept else ""
            return f"{done.texts:,} texts by {done.encoder}{new}"
        case LabelResult():
            start = "cross_validated_" if done.teacher_boxes is None else "precision_of_teacher"
            made = f"targets for {done.coverage:.1%} of the training images"
            return f"{made}{_first(done, done.quality, start)}; suspected label errors: {done.suspected:,}"
        case TrainResult():
            return f"{done.train_images:,} images{_first(done, done.val, of='val ')}"
        case EvaluateResult():
            [(name, value)] = score(done).items()
            return f"{name} {value:.4f}{done.behind(done.metric)}, {done.split} images with a human label"
        case CompareResult():
            return str(done.report)
        case _:
            return str(done.path)


def _first(done: Outcome, scores: Mapping[str, float | None], prefix: str = "", of: str = "") -> str:
    """Return the first measured score of that prefix by its name; nothing without any."""
    found = ((name, scores.get(name)) for name in done.counts if name.startswith(prefix))
    parts = (
        f", {of}{name.replace('_', ' ')} {score:.4f}{done.behind(name)}" for name, score in found if score is not None
    )
    return next(parts, "")


def worth_of_labels(targets: Targets, looks: Path, accuracy: float | None, review: str, audit: str) -> str:
    """Return what true labels of all training images would add, and how many to review; nothing if all have a label, or
    images have several classes.

    How many targets are right is known only by the audited images in ``looks``: neither what answers state nor the few
    labels that the teacher has learned from tell it well enough. Labels cannot add more than the accuracy on held-out
    images, if it is known, lacks. ``review`` is the command that shows the most doubtful images first.
    """
    train = targets.splits == "train"
    if targets.labels.ndim > 1 or not (unlabelled := np.flatnonzero(train & (targets.labels == NO_LABEL))).size:
        return ""
    said = take(targets.probabilities, unlabelled)
    expected = 1 - expected_right(said[:])[1]
    order = np.argsort(-doubt_of(said), kind="stable")
    first = int(np.searchsorted(np.cumsum(expected[order]), expected.sum() / 2)) + 1
    shown = f"Review the first {first:,} images, which by the targets hold half of the wrong ones:\n  {review}"
    found = share_of_targets(targets, looks)
    if found is None:
        known = f"How many of the targets of {train.sum():,} training images are right is not known without an audit."
        return f"{known} `audit` measures it:\n  {audit}\n{shown}"
    some = len(unlabelled) / int(train.sum())
    most = min((1 - found.low) * some, 1.0 if accuracy is None else 1 - accuracy)
    usual = min(USUAL * (1 - found.share) * some, most)
    adds = f"By a rule of thumb, true labels for all would now add about {100 * usual:.1f} points of accuracy "
    adds += f"(0 to {100 * most:.1f})."
    if accuracy is not None and accuracy > found.share - HELD_BACK and found.share < 1 - OFTEN_WRONG:
        adds = "The model is about as often right, so they hold it back: true labels for all may add up to "
        adds += f"{100 * most:.1f} points of accuracy."
    right = f"Of the targets of {train.sum():,} training images, {found} are right, by {found.looks:,} audited images."
    return f"{right} {adds} {shown}"
