"""The verb distill: from a folder of images to an exported model and a report, in one command.

The stages are those that have commands of their own, and each goes on where it stopped. What is finished and made of
the same things is not made again: each stage has a key, which covers its options, the images and labels, and the keys
of what it reads. A finished model is never removed: where something else is to be made, it is moved to OUT/earlier-N.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.artifacts.prompts import load_prompt
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError, DescriberError, RunError
from gpt4image.base.files import fingerprint, read_json, write_text
from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig, DistillConfig, EvaluateConfig, ReportConfig, StageConfig
from gpt4image.config.base import listed
from gpt4image.config.distilling import ANSWERS, EMBEDDINGS, RUN, TEXT_LABELS
from gpt4image.data import ImageSet, load_with_splits
from gpt4image.describing.class_lists import class_list
from gpt4image.next_steps import command
from gpt4image.reporting.report import PAGE, report
from gpt4image.training.prepare import identity_of

STAGES = ("describe", "encode", "label", "train", "evaluate", "export", "report")
MACHINE = frozenset(
    {"max_cost", "limit", "dry_run", "retry_rejected", "batch", "poll_seconds", "engine", "workers", "concurrency"}
    | {"requests_per_minute", "tokens_per_minute", "timeout", "retries", "prices", "device", "precision", "batch_size"}
)
"""Options of describing that say how answers are brought, not what is asked."""
PLACES = frozenset({"data", "out", "store", "embeddings", "answers", "text_labels", "run_dir", "as_json"})
"""Options that say where something lies."""


def distill(config: DistillConfig) -> Outcome:
    """Describe, encode, label, train, evaluate, export and report; what was made before of the same things stays.

    Raises:
        ConfigError: an option is wrong, the classes are not known, or nobody agreed to pay.
        DescriberError: no image got an answer.
        RunError: the folder was made with other questions, holds what distill did not make, or is in use.
        Gpt4ImageError: as of the stages.
        KeyboardInterrupt: the user stopped it, or does not want to pay; everything is kept.
    """
    started = time.monotonic()
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    ask = _what_to_ask(config, images)
    with runs.writing(config.out):
        work = _Work(config, images, ask, StageRecords(config.out))
        work.require_same_questions()
        say(work.plan())
        work.records.write_options(config.model_dump(mode="json"))
        work.run()
    return work.outcome(time.monotonic() - started)


def _what_to_ask(config: DistillConfig, images: ImageSet) -> str:
    """Return what one call brings. Raises ConfigError: that cannot be asked, or there are no classes."""
    several = images.labels.ndim == 2
    if config.task == "multilabel" and not several:
        raise ConfigError(
            f"--task multilabel needs a dataset that says so: {config.data} has one label per image. Give a table with "
            "a column 'labels' (names separated by '|')."
        )
    ask = config.ask or ("description,tags" if several else "description,class")
    if not images.classes and not config.classes:
        raise ConfigError(
            f'No image of {config.data} has a label, so its classes are not known: name them, --classes "cat, dog" or '
            "--classes FILE with one per line."
        )
    return ask


@dataclass
class _Work:
    """One run of distill.

    Attributes:
        config: options.
        images: the dataset with its splits.
        ask: what one call brings.
        records: of the folder.
        outcomes: of the stages that are done.
        earlier: folder for what is replaced, once there is some.
    """

    config: DistillConfig
    images: ImageSet
    ask: str
    records: StageRecords
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    earlier: Path | None = None

    def __post_init__(self) -> None:
        self.asked = listed(self.ask)
        self.describing = self.config.describe(self.ask)
        self.of_data = identity_of(self.images, None, None, [])
        self.labelled = int(self.images.labelled.sum())

    def run(self) -> None:
        """Go through the stages."""
        config, out = self.config, self.config.out
        questions = fingerprint(_questions(self.describing))
        self._stage("describe", [questions, self.of_data], questions, self._describe, _said_of_answers)
        content = _content(out / ANSWERS)
        encoder = _options(config.encode(), {"device", "engine", "workers"})
        if "description" in self.asked:
            table = [out / EMBEDDINGS]
            self._stage("encode", [content, encoder], fingerprint(encoder), self._encode, _said_of_texts, table)
        else:
            self._skip("encode", "no descriptions were asked for")
        taught = [self.of_data, content, encoder, _options(config.label(self.asked)), self.asked]
        pages = sorted(out.glob(f"{Path(TEXT_LABELS).stem}.*")) or [out / TEXT_LABELS]
        self._stage("label", taught, "", self._label, _said_of_labels, pages, needs=[out / TEXT_LABELS])
        trained = [*taught, _options(config.train(), runs.NOT_IDENTITY)]
        self._stage("train", trained, fingerprint(trained), self._train, _said_of_run, [out / RUN])
        split = next((name for name in ("test", "val") if self.images.labelled[self.images.indices(name)].any()), "")
        if split:
            self._stage(
                "evaluate",
                [*trained, split],
                "",
                lambda: self._evaluate(split),
                _said_of_score,
                needs=[out / RUN / f"evaluation-{split}.json"],
            )
        else:
            self._skip("evaluate", "no held-out image has a human label, so accuracy cannot be measured")
        export = config.export()
        exported = [*trained, _options(export)]
        files = [export.out] if not export.out.suffix else [export.out, export.out.with_name(f"{export.out.name}.md")]
        self._stage("export", exported, "", self._export, lambda done: str(done.path), files)
        self._stage("report", [*trained, split], "", self._report, lambda done: str(done.path), needs=[out / PAGE])

    def _stage(
        self,
        name: str,
        key: Any,
        of: str,
        make: Callable[[], Outcome],
        said: Callable[[Outcome], str],
        made: Sequence[Path] = (),
        needs: Sequence[Path] | None = None,
    ) -> None:
        """Carry out one stage, unless it was finished with the same key.

        Args:
            name: of the stage.
            key: everything that decides what comes of it.
            of: what must be equal for what is there to be gone on with; empty where it begins anew.
            make: what does it.
            said: what there is to say of it, in one line.
            made: its files and folders.
            needs: those without which it is not finished; all of ``made`` without it.
        """
        head, key = f"{STAGES.index(name) + 1}/{len(STAGES)} {name:9}", fingerprint(key)
        done = self.records.finished(name, key)
        if done is not None and all(path.exists() for path in (made if needs is None else needs)):
            self.outcomes[name] = done
            say(f"{head} as before: {said(done)}")
            return
        say(head)
        if not of or self.records.begun(name) != of:
            self._make_room(name, made)
            self.records.begin(name, of)
        started = time.monotonic()
        self.outcomes[name] = done = make()
        if not done.summary.get("without_description"):
            self.records.finish(name, key, done)
        say(f"{'':13} {said(done)} ({_duration(time.monotonic() - started)})")

    def _skip(self, name: str, why: str) -> None:
        say(f"{STAGES.index(name) + 1}/{len(STAGES)} {name:9} left out: {why}")

    def _make_room(self, name: str, made: Sequence[Path]) -> None:
        """Move a run or an exported model that was made of other things to OUT/earlier-N; remove what is derived.

        Raises:
            RunError: something is there that distill did not make.
        """
        for path in filter(Path.exists, made):
            if self.records.begun(name) is None:
                if name == "encode":  # it brings a table up to date, or refuses it
                    continue
                raise RunError(f"{path} is there, and distill did not make it; move it away, or give another --out.")
            if name != "train" and not (name == "export" and self.records.is_finished(name)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                continue
            earlier = self.earlier or next(place for place in self._places() if not place.exists())
            earlier.mkdir(exist_ok=True)
            path.rename(earlier / path.name)
            say(f"{'':13} options, labels or answers have changed: the earlier {path.name} is now in {earlier}")
            self.earlier = earlier

    def _places(self) -> Iterator[Path]:
        return (self.config.out / f"earlier-{number}" for number in itertools.count(1))

    def require_same_questions(self) -> None:
        """Refuse other questions than those that the answers in the folder answer. Raises RunError."""
        if self.records.begun("describe") in (None, fingerprint(_questions(self.describing))):
            return
        before, now = self.records.options, self.config.model_dump(mode="json")
        names = (f"describe_{name}" if f"describe_{name}" in now else name for name in _questions(self.describing))
        differ = [f"--{name.replace('_', '-')}" for name in names if name in before and before[name] != now.get(name)]
        raise RunError(
            f"{self.config.out} holds answers to other questions: {', '.join(differ) or 'a file of them'} was "
            "different, and a teacher reads all answers that are there. Give the same options, or another --out."
        )

    def plan(self) -> str:
        """Return what will be done."""
        images, config = self.images, self.config
        count = {split: len(images.indices(split)) for split in ("train", "val", "test")}
        held_out = ", ".join(f"{number:,} {split}" for split, number in count.items() if number)
        rows = {
            "images": f"{len(images):,} ({held_out}), {self.labelled:,} with a human label",
            "ask": f"{config.describer} for {' and '.join(self.asked)}",
            "out": str(config.out),
        }
        return "\n".join(f"{name:10}{value}" for name, value in rows.items())

    def _describe(self) -> Outcome:
        from gpt4image.describing.describe import describe

        self._agree_to_pay()
        outcome = describe(self.describing)
        facts = outcome.summary
        if not facts["described"] + facts["already_described"]:
            reason = f" {outcome.set_aside[-1].name}: {outcome.set_aside[-1].reason}" if outcome.set_aside else ""
            raise DescriberError(f"{self.config.describer} answered nothing that can be used.{reason}")
        return outcome

    def _agree_to_pay(self) -> None:
        """Ask whether the describer may be paid, where that is not said.

        Raises:
            ConfigError: there is nobody to ask.
            KeyboardInterrupt: the answer is no.
        """
        from gpt4image.describing.describe import describe
        from gpt4image.describing.describers.registry import is_free

        config = self.config
        if config.yes or config.max_cost is not None or is_free(self.describing):
            return
        if not sys.stdin.isatty():
            again = command("distill", {**dict(config), "max_cost": 5.0}, {"distill": "DistillConfig"})
            raise ConfigError(
                f"Asking {config.describer} about {len(set(self.images.digests)):,} images may cost money, and there "
                "is no terminal to ask you on. Give the most it may cost, in US dollars, with --max-cost (or --yes for "
                f"no limit):\n  {again}"
            )
        say("A small sample is asked first, to estimate the rest; its answers are kept.")
        sample = describe(self.config.describe(self.ask, dry_run=True))
        if not sample.summary["estimate_requests"]:
            return
        say(sample.text)
        if "estimate_usd" not in sample.summary:
            say("What that costs is not known: no price is known for this model (--prices FILE names one).")
        try:
            answer = console.input("Go on? [y/N] ", markup=False)
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise KeyboardInterrupt

    def _encode(self) -> Outcome:
        from gpt4image.encoding.encode import encode

        return encode(self.config.encode())

    def _label(self) -> Outcome:
        from gpt4image.labelling.label import label

        return label(self.config.label(self.asked))

    def _train(self) -> Outcome:
        from gpt4image.training.train import train

        return train(self.config.train())

    def _evaluate(self, split: Any) -> Outcome:
        from gpt4image.evaluating.evaluate import evaluate

        outcome = evaluate(EvaluateConfig(run_dir=self.config.out / RUN, split=split))
        record = read_json(self.config.out / RUN / f"evaluation-{split}.json")
        return replace(outcome, summary={**outcome.summary, "metric": record["metric"]})

    def _export(self) -> Outcome:
        from gpt4image.deploying.export import export

        return export(self.config.export())

    def _report(self) -> Outcome:
        run = self.config.out / RUN
        written = report(ReportConfig(dir=run))
        write_text(self.config.out / PAGE, (run / PAGE).read_text(encoding="utf-8"))
        return replace(written, path=self.config.out / PAGE)

    def outcome(self, seconds: float) -> Outcome:
        """Return what was made, how good it is as far as that is known, and what was skipped."""
        out, done = self.config.out, {name: outcome.summary for name, outcome in self.outcomes.items()}
        answers, measured = done["describe"], done.get("evaluate")
        missing = answers["without_description"]
        summary: dict[str, Any] = {
            "images": len(self.images),
            "human_labels": self.labelled,
            "answered": answers["distinct_images"] - missing,
            **({"without_answer": missing} if missing else {}),
            **({"cost_usd": answers["cost_usd"]} if "cost_usd" in answers else {}),
            **_score(measured),
            "model": str(self.outcomes["export"].path),
            "seconds": round(seconds, 1),
        }
        parts = []
        if stopped := answers.get("stopped_by"):
            parts.append(
                f"{missing:,} images have no answer, as {stopped} ended the asking; the model learned from the others. "
                "The same command with more goes on."
            )
        if measured is None:
            review = f"gpt4image review --data {self.config.data} --answers {out / ANSWERS} --labels labels.csv"
            parts.append(
                "There is no accuracy: no held-out image has a human label to measure on. Label a few images "
                f"(`{review}`), and give the same command with manifest:labels.csv as DATA; no answer is paid for "
                "twice."
            )
        made = [self.outcomes["export"].path, out / PAGE, out / RUN, out / TEXT_LABELS, out / EMBEDDINGS, out / ANSWERS]
        return Outcome(
            path=out,
            summary=summary,
            record={"stages": done},
            text="\n".join(parts),
            set_aside=tuple(dict.fromkeys(item for one in self.outcomes.values() for item in one.set_aside)),
            wrote=tuple(path for path in made if path is not None and path.exists()),
        )


def _score(measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how good the model is by human labels; ``accuracy`` is None where there are none."""
    if measured is None:
        return {"accuracy": None}
    name = "accuracy" if measured["metric"] == "top1" else measured["metric"]
    return {name: measured[measured["metric"]], "measured_on": f"{measured['labelled']:,} {measured['split']} images"}


def _questions(config: DescribeConfig) -> dict[str, Any]:
    """Return what is asked: a list of classes and a prompt by what their file says."""
    return {**_options(config, MACHINE), "prompt": [load_prompt(name).row() for name in config.prompt]}


def _options(config: StageConfig, without: Set[str] = frozenset()) -> dict[str, Any]:
    """Return the options of a stage that decide what comes of it."""
    found = {name: value for name, value in config.model_dump(mode="json").items() if name not in PLACES | without}
    return found | ({"classes": class_list(found["classes"])} if found.get("classes") else {})


def _content(store: Path) -> str:
    """Return the fingerprint of all answers in a store."""
    found = hashlib.sha256()
    with DescriptionStore(store) as opened:
        for row in opened.descriptions():
            answer = None if row.answer is None else row.answer.to_json()
            found.update(fingerprint([row.digest, row.prompt.row(), row.sample, row.text, answer]).encode())
    return found.hexdigest()


def _said_of_answers(done: Outcome) -> str:
    facts = done.summary
    parts = [f"{facts['described'] + facts['already_described']:,} answers, {facts['described']:,} of them new"]
    parts += [f"{facts[name]:,} {name}" for name in ("failed", "rejected") if facts[name]]
    parts += [f"${facts['cost_usd']:.4f}"] if "cost_usd" in facts else []
    return ", ".join([*parts, *([f"stopped by {facts['stopped_by']}"] if "stopped_by" in facts else [])])


def _said_of_texts(done: Outcome) -> str:
    facts = done.summary
    return f"{facts['texts']:,} texts by {facts['encoder']}, {facts['texts_encoded']:,} of them new"


def _said_of_labels(done: Outcome) -> str:
    facts = done.summary
    right = _first(facts, "cross_validated_")
    said = f", {right:.1%} right on labels held out" if right is not None else ""
    return f"targets for {facts['coverage']:.1%} of the images{said}; suspected label errors: {facts['doubtful']:,}"


def _said_of_run(done: Outcome) -> str:
    val = _first(done.summary, "val_")
    return f"{done.summary['train_images']:,} images" + ("" if val is None else f", {val:.4f} on validation labels")


def _first(facts: Mapping[str, Any], prefix: str) -> float | None:
    """Return the first fraction that is known of the facts with a prefix."""
    named = (value for name, value in facts.items() if name.startswith(prefix) and name != "val_images")
    return next((value for value in named if value is not None), None)


def _said_of_score(done: Outcome) -> str:
    score, measured_on = _score(done.summary).items()
    return f"{score[0]} {score[1]:.4f} on {measured_on[1]} with a human label"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
