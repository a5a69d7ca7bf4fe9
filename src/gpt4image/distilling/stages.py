"""The stages of distill in turn: unchanged inputs are reused, what was begun goes on, and no model is lost.

The functions at the end summarise a stage in one line.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.base.errors import RunError
from gpt4image.base.files import fingerprint, make_folder, move
from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import say
from gpt4image.config.results import (
    CompareResult,
    DescribeResult,
    EncodeResult,
    EvaluateResult,
    LabelResult,
    TrainResult,
)
from gpt4image.describing.prices import bill
from gpt4image.pages.numbers import duration

STAGES = ("describe", "encode", "label", "train", "evaluate", "export", "report")
COMPARE = "compare"
"""The stage that takes part only where it is asked for, as the last one."""
INDENT = " " * 14
Result = TypeVar("Result", bound=Outcome)


class Stages:
    """The stages of one run of distill, in its folder.

    Attributes:
        records: what was done before.
        outcomes: of the stages that are done, by name.
    """

    def __init__(self, out: Path, records: StageRecords, names: Sequence[str] = STAGES) -> None:
        self._out = out
        self._names = names
        self.records = records
        self.outcomes: dict[str, Outcome] = {}
        self._earlier: Path | None = None

    def do(
        self,
        name: str,
        make: Callable[[], Result],
        said: Callable[[Result], str],
        *,
        key: Any,
        goes_on: Any = None,
        again: bool = False,
        made: Collection[Path] = (),
        needs: Sequence[Path] = (),
    ) -> None:
        """Carry out one stage, unless it was finished with the same key.

        Args:
            name: of the stage.
            make: what does it.
            said: what there is to say of it, in one line.
            key: everything that decides what comes of it.
            goes_on: what must be equal for what is there to be gone on with; None where the stage begins anew.
            again: carry it out in any case, and go on with what is there.
            made: files and folders that make room where it begins anew.
            needs: those without which it is not finished.

        Raises RunError.
        """
        head = self._head(name)
        key, of = fingerprint(key), "" if goes_on is None else fingerprint(goes_on)
        done: Any = None if again else self.records.finished(name, key)
        if done is not None and all(path.exists() for path in needs):
            self.outcomes[name] = done
            say(f"{head} as before: {said(done)}")
            return
        say(head.rstrip())
        if not of or self.records.begun(name) != of:
            self._make_room(name, made)
            self.records.begin(name, of)
        elif again:  # it is not finished until it has come to its end once more
            self.records.begin(name, of)
        started = time.monotonic()
        self.outcomes[name] = new = make()
        self.records.finish(name, key, new)
        say(f"{INDENT}{said(new)} ({duration(time.monotonic() - started)})")

    def result(self, kind: type[Result]) -> Result | None:
        """Return what came of the stage with this kind of result; None where it is not done."""
        return next((done for done in self.outcomes.values() if isinstance(done, kind)), None)

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
                say(f"{INDENT}options, labels or answers have changed: the earlier one is now {self._put_away(path)}")
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _put_away(self, path: Path) -> Path:
        if self._earlier is None:
            places = (self._out / f"earlier-{number}" for number in itertools.count(1))
            self._earlier = next(place for place in places if not place.exists())
            make_folder(self._earlier)
        place = self._earlier / path.name
        move(path, place)
        return place


def score(measured: EvaluateResult | None) -> dict[str, float | None]:
    """Return how good the model is by human labels; ``accuracy`` is None where there are none."""
    if measured is None:
        return {"accuracy": None}
    return {"accuracy" if measured.metric == "top1" else measured.metric: measured.score}


def measured_on(measured: EvaluateResult) -> str:
    """Return which images a model was measured on."""
    return f"{measured.labelled:,} {measured.split} images"


def of_answers(done: DescribeResult) -> str:
    """Return how many answers there are."""
    new, before = done.described, done.already_described
    parts = [f"{new + before:,} answers{f', {new:,} of them new' if before else ''}"]
    parts += [f"{count:,} {name}" for name, count in (("failed", done.failed), ("rejected", done.rejected)) if count]
    parts += [] if done.cost_usd is None else [bill(done.cost_usd, done.cost_usd_earlier or 0.0)]
    return ", ".join([*parts, *([f"stopped by {done.stopped_by}"] if done.stopped_by else [])])


def of_texts(done: EncodeResult) -> str:
    """Return how many texts have an embedding."""
    new = f", {done.texts_encoded:,} of them new" if done.texts_kept else ""
    return f"{done.texts:,} texts by {done.encoder}{new}"


def of_labels(done: LabelResult) -> str:
    """Return what the teacher knows, and how right it is."""
    right = _first(done.quality, "cross_validated_" if done.teacher_boxes is None else "precision_of_teacher")
    said = "" if right is None else f", {right[1]:.1%} right on {_images(done, right[0])}labels held out"
    return f"targets for {done.coverage:.1%} of the training images{said}; suspected label errors: {done.suspected:,}"


def of_run(done: TrainResult) -> str:
    """Return what was trained on, and the score on the validation split."""
    val = _first(done.val)
    measured = "" if val is None else f", {val[1]:.4f} on {_images(done, f'val_{val[0]}')}validation labels"
    return f"{done.train_images:,} images{measured}"


def _first(facts: Mapping[str, float | None], prefix: str = "") -> tuple[str, float] | None:
    known = ((name, value) for name, value in facts.items() if name.startswith(prefix) and value is not None)
    return next(known, None)


def _images(done: Outcome, name: str) -> str:
    return f"{done.counts[name]:,} " if name in done.counts else ""


def of_score(done: EvaluateResult) -> str:
    """Return how good the model is."""
    [(name, value)] = score(done).items()
    return f"{name} {value:.4f} on {measured_on(done)} with a human label"


def of_comparison(done: CompareResult) -> str:
    """Return where the report of the comparison is."""
    return str(done.report)


def where(done: Outcome) -> str:
    """Return what was written."""
    return str(done.path)
