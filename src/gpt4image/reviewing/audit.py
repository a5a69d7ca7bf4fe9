"""The stage audit: how good are targets, answers and a model, by looks at a few images, with intervals that hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.files import parquet_rows, write_parquet
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.config import AuditConfig
from gpt4image.config.results import AuditResult
from gpt4image.data import NO_LABEL, Dataset, load_dataset
from gpt4image.data.splits import representatives
from gpt4image.labelling.answers import read_answers
from gpt4image.labelling.looks import Floats, Ints, Share, drawn, share_right, strata_of
from gpt4image.pages.numbers import text_table
from gpt4image.reviewing.labels_file import LabelsFile
from gpt4image.reviewing.queue import Teacher
from gpt4image.reviewing.review import require_server, serve
from gpt4image.reviewing.session import Session

FEWEST = 5  # looks from which on a share is told
MOST_WEAK = 5  # classes that are named
Probabilities = Mapping[str, NDArray[np.float32]]
"""(N, K) of the N audited images, by what gave them; rows of zeros where it says nothing."""


def audit(config: AuditConfig) -> AuditResult:
    """Ask a person about a few images, drawn at random within strata, and estimate how many of all are right.

    The first run draws the images and notes the draw beside ``labels``; the same command goes on, and more ``looks``
    add to them. Targets, answers and model may be others by then: the intervals hold for each.

    Raises:
        ConfigError: nothing to audit is given, or the file or the port is in use.
        DataError: there is no such image, or the images have several classes each.
        TableError, StoreError, RunError: targets, answers or model cannot be read.
        MissingExtraError: the server of the page is not installed.
        KeyboardInterrupt: Ctrl-C while the page is open, with the outcome; every look is on disk.
    """
    targets = None if config.targets is None else Targets.load(config.targets)
    images, classes = _audited(config, targets)
    found, skipped = _predictions(config, images, classes, targets)
    strata, order = _drawn(config, images, _proxy(found))
    rows = order[: config.looks]
    asked = images.select(rows).revised(labels=np.full(len(rows), NO_LABEL))
    file, stopped = LabelsFile(config.labels, asked), False
    try:
        session = Session(file, Teacher(file.distinct, None, None, config.seed), list(classes), is_open=True)
        try:
            news = session.news(0)
            if news["labelled"] + news["unsure"] < news["total"]:
                require_server()
                say(f"{news['total'] - news['labelled']} images to look at.")
                serve(session, config.port)
        except KeyboardInterrupt:
            stopped = True
        finally:
            session.end()
        marks = [file[row] for row in range(len(asked))]
    finally:
        file.close()
    looked = np.array([bool(mark.label) and mark.note != "unsure" for mark in marks], bool)
    number = {name: k for k, name in enumerate(classes)}
    truth = np.array([number.get(mark.label, len(classes)) for mark in marks], np.int64)  # no prediction is another one
    shares = _shares(found, strata, rows[looked], truth[looked])
    weak = _weak([*found.values()][-1][rows[looked]].argmax(axis=1), truth[looked], classes)
    facts = {
        name: {
            **asdict(share),
            "looks_for_3_points": share.looks_for(0.03),
            "looks_for_2_points": share.looks_for(0.02),
        }
        for name, share in shares.items()
    }
    outcome = AuditResult(
        path=config.labels,
        split=str(images.splits[0]),
        images=len(images),
        looks=int(looked.sum()),
        unsure=sum(mark.note == "unsure" for mark in marks),
        right={name: round(share.share, 4) for name, share in shares.items()},
        shares=facts,
        weak_classes=weak,
        text=_in_words(shares, weak),
        read_rows=lambda: [{"what": name, **fact} for name, fact in facts.items()],
        skipped=(*skipped, *file.skipped),
    )
    if stopped:
        raise KeyboardInterrupt(outcome)
    return outcome


def _audited(config: AuditConfig, targets: Targets | None) -> tuple[Dataset, tuple[str, ...]]:
    """Return the distinct images that are audited, and the classes."""
    if config.model is None and targets is not None:
        images, classes = load_dataset(config.data, aside=config.labels), targets.classes
        wanted = frozenset(targets.digests)
    elif config.model is not None:
        record = runs.read_run(config.model)
        from gpt4image.training.prepare import load_dataset as load_as_the_run
        from gpt4image.training.run_model import options_of

        same = {"data": config.data, "embeddings": None, "only_described": False}
        images, _ = load_as_the_run(options_of(record).model_copy(update=same))
        classes, wanted = tuple(record["run"]["classes"]), None
    else:
        raise ConfigError("Nothing to audit: give --targets FILE, --model RUN, or both.")
    if images.labels.ndim != 1:
        raise DataError(f"{config.data}: images have several classes each; audit takes one per image.")
    split = config.split or ("train" if config.model is None else "test")
    there = images.indices(split)
    digests = [images.digests[row] for row in there]
    distinct = np.unique(representatives(digests, np.zeros(len(there), np.int64)))
    rows = [int(there[place]) for place in distinct if wanted is None or digests[place] in wanted]
    if not rows:
        raise DataError(f"{config.data} has no images to audit in its {split} split; name another with --split.")
    return images.select(rows), classes


def _predictions(
    config: AuditConfig, images: Dataset, classes: tuple[str, ...], targets: Targets | None
) -> tuple[Probabilities, tuple[Skipped, ...]]:
    """Return what each of answers, targets and model says, and images that the model cannot read."""
    found, skipped = dict[str, NDArray[np.float32]](), tuple[Skipped, ...]()
    if config.answers is not None:
        answers = read_answers(config.answers, images.digests, classes).answers
        found["answers"] = answers.probabilities(len(classes))[:] * answers.given[:, None]
    if targets is not None:
        if targets.classes != classes:
            raise ConfigError(f"--targets {config.targets} and --model {config.model} are of different classes.")
        found["targets"] = targets.of(images.digests)[:]
    if config.model is not None:
        from gpt4image.training.run_model import load_run_model

        model = load_run_model(config.model, None, classes)
        pixels, rows = model.pixels(images), np.arange(len(images))
        predictions = model.read(pixels, rows).predictions[:]
        found["model"], skipped = np.where(pixels.broken(rows)[:, None], 0, predictions), pixels.skipped
    return found, skipped


def _proxy(found: Probabilities) -> Floats:
    """Return (N,) how probably the last of ``found`` is right: by the targets where there are some, else by itself."""
    last = [*found.values()][-1]
    judge = found.get("targets", last)
    by_judge = judge[np.arange(len(judge)), last.argmax(axis=1)]
    return np.where(judge.any(axis=1), by_judge, last.max(axis=1)).astype(np.float64)


def _drawn(config: AuditConfig, images: Dataset, proxy: Floats) -> tuple[Ints, Ints]:
    """Return (N,) the stratum of each image, and all rows in the order to look at; as the first run noted them."""
    import pyarrow as pa

    note = config.labels.with_suffix(".draw.parquet")
    place = {digest: row for row, digest in enumerate(images.digests)}
    if not note.is_file():
        strata = strata_of(proxy, config.looks)
        order = drawn(strata, config.seed)
        columns = {"digest": [images.digests[row] for row in order], "stratum": strata[order]}
        write_parquet(note, pa.table(columns))
        return strata, order
    lines = parquet_rows(note)
    if {line["digest"] for line in lines} != place.keys():
        raise DataError(f"{note} is a draw from other images than {config.data} has; give another --labels.")
    order = np.array([place[line["digest"]] for line in lines], np.int64)
    strata = np.empty(len(order), np.int64)
    strata[order] = [line["stratum"] for line in lines]
    return strata, order


def _shares(found: Probabilities, strata: Ints, looked: Ints, truth: Ints) -> dict[str, Share]:
    """Return how often each is right; ``truth`` is (n,) the class of the rows that were ``looked`` at."""
    shares: dict[str, Share] = {}
    for name, probabilities in found.items():
        known = np.asarray(probabilities.any(axis=1))
        seen, row_of = known[looked], np.cumsum(known) - 1
        if seen.sum() >= FEWEST:
            right = probabilities[looked[seen]].argmax(axis=1) == truth[seen]
            shares[name] = share_right(strata[known], row_of[looked[seen]], right)
    return shares


def _weak(predicted: Ints, truth: Ints, classes: tuple[str, ...]) -> dict[str, str]:
    """Return the predicted classes with most errors, as "2 of 7 wrong"."""
    looks = np.bincount(predicted, minlength=len(classes))
    wrong = np.bincount(predicted[predicted != truth], minlength=len(classes))
    worst = np.argsort(-wrong / np.maximum(looks, 1), kind="stable")
    return {classes[k]: f"{wrong[k]} of {looks[k]} wrong" for k in worst[:MOST_WEAK].tolist() if wrong[k] > 1}


def _in_words(shares: Mapping[str, Share], weak: Mapping[str, str]) -> str:
    if not shares:
        return f"Fewer than {FEWEST} looks: nothing can be said yet. The same command goes on."
    rows = [["", "right", "95 % interval", "of", "looks for ±3", "±2 points"]]
    for name, share in shares.items():
        more = [f"{share.looks_for(width):,}" for width in (0.03, 0.02)]
        rows.append([name, f"{share.share:.1%}", f"{share.low:.1%} to {share.high:.1%}", f"{share.total:,}", *more])
    table = text_table("", rows, numbers=True)
    return "\n".join([table, *(f"weak class: {name} ({count})" for name, count in weak.items())])
