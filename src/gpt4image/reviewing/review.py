"""The stages for a person, in the browser: review, which labels and corrects, and audit."""

import importlib.util
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.class_lists import class_list
from gpt4image.artifacts.targets import Facts, Targets, load_targets
from gpt4image.base.errors import ConfigError, DataError, MissingExtraError
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.config import AuditConfig, ReviewConfig
from gpt4image.config.results import AuditResult, DiscoverResult, ReviewResult
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.dataset import RANDOM
from gpt4image.data.splits import representatives
from gpt4image.labelling.audited import AUDIT_FILE, matches
from gpt4image.labelling.evidence import answered_classes, read_answers
from gpt4image.pages.numbers import text_table
from gpt4image.reviewing.labels_file import Kind, LabelsFile, value_of
from gpt4image.reviewing.queue import Ranker, TargetRanker, Teacher, targets_of
from gpt4image.reviewing.session import Session, new_class
from gpt4image.selecting.estimate import FEWEST, Share, expected_right, share_of_classes, share_of_things
from gpt4image.selecting.order import at_random

ADDRESS = "127.0.0.1"
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("classification", "video"), "classification"),
    "multilabel": "multilabel",
    "detection": "detection",
}
"""What a label is, by task."""
LEAST_SCORE = 0.3  # from which on a box of a model counts
Result = TypeVar("Result", ReviewResult, AuditResult, DiscoverResult)


def review(config: ReviewConfig) -> ReviewResult:
    """Serve the page until the person finishes.

    Raises KeyboardInterrupt: Ctrl-C, with the outcome; every label is on disk. Other errors are those of the dataset,
    the evidence, the file of labels and the port.
    """
    require_server()
    say(f"Reading the images of {config.data}")
    images = load_dataset(config.data, aside=config.labels)
    with ExitStack() as opened:
        file = LabelsFile(config.labels, images, kind_asked(config))
        opened.callback(file.close)
        session = open_session(config, file)
        opened.callback(session.end)

        def page() -> None:
            sessions = {"label": session, "correct": session}
            if config.targets is not None or config.model is not None:
                same = {name: getattr(config, name) for name in ("data", "targets", "model")}
                audited = Audit(AuditConfig(**same, labels=config.labels.with_name(AUDIT_FILE.name)))
                opened.callback(audited.end)
                sessions["audit"] = audited.session
            serve(sessions, config.port, "correct" if config.correct else "label")

        def outcome() -> ReviewResult:
            facts = session.news(0)
            counts = {name: facts[name] for name in ("total", "labelled", "checked", "unsure")}
            skipped = (*images.skipped, *file.skipped)
            more: Any = {"sampled_at_random": facts[RANDOM], "classes": session.classes, "skipped": skipped}
            return ReviewResult(path=config.labels, **counts, **more)

        return after(page, outcome)


def audit(config: AuditConfig) -> AuditResult:
    """Ask a person about a few images, drawn at random, and estimate how many of all are right.

    The same command goes on, and a higher ``looks`` adds images. Targets, answers and model may be others by then: the
    intervals hold for each.

    Raises KeyboardInterrupt: Ctrl-C while the page is open, with the outcome; every answer is on disk.
    """
    opened = Audit(config)

    def page() -> None:
        news = opened.session.news(0)
        if left := news["total"] - news["checked"] - news["unsure"]:
            require_server()
            say(f"{left} images to look at.")
            serve({"audit": opened.session}, config.port)

    try:
        return after(page, opened.result)
    finally:
        opened.end()


def after(page: Callable[[], None], outcome: Callable[[], Result]) -> Result:
    """Return the outcome when a page has ended. Raises KeyboardInterrupt, with the outcome, if Ctrl-C ended it."""
    try:
        page()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(outcome()) from None
    return outcome()


def kind_asked(config: ReviewConfig) -> Kind | None:
    """Return what an image gets, where that is not as in the dataset."""
    if config.task != "auto":
        return config.task
    task = None if config.targets is None else Facts.of(config.targets).task
    return KINDS[task] if task in ("detection", "multilabel") else None


def open_session(config: ReviewConfig, file: LabelsFile) -> Session:
    """Return a session with the evidence and the classes of the options. End it after use."""
    images, named = file.distinct, list[str]()
    if file.kind == "classification":
        teacher: Ranker = Teacher(images, config.answers, config.embeddings, config.targets)
        named = [] if config.targets is None else list(Targets.load(config.targets).classes)
    else:
        if config.answers is not None or config.embeddings is not None:
            raise ConfigError(
                "--answers and --embeddings propose one class per image; for tags and boxes give --targets FILE, as "
                "`gpt4image label` writes it from them."
            )
        predicted, doubt = [None] * len(images), None
        if config.targets is not None:
            predicted, doubt, named = targets_of(file.kind, config.targets, images.digests)
        teacher = TargetRanker(file.kind, predicted, doubt)
    own = file.images.classes
    given: Sequence[str] = own or named
    if config.classes is not None:
        given = [new_class(option.name, ()) for option in class_list(config.classes)]
    elif config.answers is not None and not given:
        given = answered_classes(config.answers)
    names = list(dict.fromkeys([*given, *own, *named, *file.labels()]))
    return Session(file, teacher, names, is_open=not given)


def require_server() -> None:
    """Raise MissingExtraError where the server of the page is not installed."""
    if not all(map(importlib.util.find_spec, ("starlette", "uvicorn"))):
        raise MissingExtraError("The page of gpt4image review", "review")


def serve(sessions: Mapping[str, Session], port: int, mode: str = "") -> None:
    """Serve the page until the person finishes. Raises KeyboardInterrupt, after the last request is answered."""
    import uvicorn

    from gpt4image.reviewing.server import make_app

    token = secrets.token_urlsafe(24)
    with _listen(port) as listener:
        app = make_app(sessions, token, lambda: setattr(server, "should_exit", True), mode)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False,
                           timeout_graceful_shutdown=3, loop="asyncio", http="h11")
        )  # fmt: skip
        ended = threading.Event()

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                ended.set()

        # In a thread of its own, so that it also works in a notebook, whose thread has a loop already.
        threading.Thread(target=run, name="page").start()
        try:
            say(f"Open http://{ADDRESS}:{listener.getsockname()[1]}/?token={token}")
            if any(session.learning for session in sessions.values()):
                say("Proposals are being learned from the evidence; the page shows them when they are ready.")
            say("Every label is saved at once. End with Finish on the page, or with Ctrl-C.")
            # Not by join: Python up to 3.12 takes a thread for ended where Ctrl-C interrupts that (bpo-45274).
            while not ended.wait(0.2):
                pass
        finally:
            server.should_exit = True
            ended.wait()


def _listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only. Raises ConfigError: the port is taken."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen()  # from here on nobody else gets the port, and a browser may be early
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--port {port} cannot be used ({error.strerror}); give another, or 0 for a free one."
        ) from None
    return listener


class Audit:
    """An audit that is open: its session, and what follows from them. End it after use."""

    def __init__(self, config: AuditConfig) -> None:
        """Read what is audited, and open the file of audited images."""
        self._config = config
        self.kind: Kind
        self.images, self.kind, classes = _audited(config)
        self._predicted, self._right, self._skipped = _predicted(config, self.images, self.kind, classes)
        self._rows = at_random(self.images.digests)[: config.looks]
        self.file = LabelsFile(config.labels, self.images.select(self._rows), self.kind, fresh=True)
        try:
            # Boxes are corrected; classes are given without a proposal, so that they do not depend on the answers.
            teacher: Ranker = Teacher(self.file.distinct, seed=None)
            if self.kind != "classification":
                boxes = [*self._predicted.values()][-1] if self.kind == "detection" else [None] * len(self.images)
                teacher = TargetRanker(self.kind, [boxes[row] for row in self._rows])
            self.session = Session(self.file, teacher, list(classes), is_open=True)
            self.session.headline = self.estimates
        except BaseException:
            self.file.close()
            raise

    def end(self) -> None:
        """Let others write the file of audited images."""
        self.session.end()
        self.file.close()

    def _shares(self) -> dict[str, Share]:
        """Return what is estimated, by its name."""
        marks = [self.file[row] for row in range(len(self._rows))]
        seen = [place for place, mark in enumerate(marks) if mark.label and mark.note == "checked"]
        looked, found = self._rows[seen], dict[str, Share | None]()
        truth = [value_of(self.kind, marks[place].label) for place in seen]
        for name, predicted in self._predicted.items():
            if self.kind == "classification":
                found[name] = share_of_classes([one or "" for one in predicted], self._right[name], looked, truth)
                continue
            pairs = [
                (predicted[row], true) for row, true in zip(looked, truth, strict=True) if predicted[row] is not None
            ]
            right = np.array([matches(*pair) for pair in pairs])
            known = sum(one is not None for one in predicted)
            things = "boxes" if self.kind == "detection" else "tags"
            for what, part in ((f"{name} that are right", 0), (f"{things} there are in {name}", 1)):
                found[what] = share_of_things(right, np.array([len(pair[part]) for pair in pairs]), known)
        return {name: share for name, share in found.items() if share is not None}

    def estimates(self) -> str:
        """Return the estimates in one line, for the page."""
        shares = self._shares()
        return (
            "; ".join(f"{name} {share}" for name, share in shares.items()) or f"Fewer than {FEWEST} audited images yet."
        )

    def result(self) -> AuditResult:
        """Return what the audited images say so far."""
        shares = self._shares()
        facts = {
            name: {**asdict(share), **{f"looks_for_{n}_points": share.looks_for(n / 100) for n in (3, 2)}}
            for name, share in shares.items()
        }
        text = f"Fewer than {FEWEST} audited images: nothing can be estimated yet. The same command goes on."
        if shares:
            rows = [["", "right", "95 % interval", "images", "to audit for ±3", "±2 points"]]
            for name, share in shares.items():
                more = [f"{share.looks_for(width):,}" for width in (0.03, 0.02)]
                interval = f"{share.low:.1%} to {share.high:.1%}"
                rows.append([name, f"{share.share:.1%}", interval, f"{share.total:,}", *more])
            text = text_table("", rows, numbers=True)
        notes = [self.file[row].note for row in range(len(self._rows))]
        return AuditResult(
            path=self._config.labels,
            split=str(self.images.splits[0]),
            images=len(self.images),
            looks=notes.count("checked"),
            unsure=notes.count("unsure"),
            right={name.replace(" ", "_"): round(share.share, 4) for name, share in shares.items()},
            shares=facts,
            text=text,
            read_rows=lambda: [{"what": name, **fact} for name, fact in facts.items()],
            skipped=(*self._skipped, *self.file.skipped),
        )


def _audited(config: AuditConfig) -> tuple[Dataset, Kind, tuple[str, ...]]:
    """Return the distinct images that are audited, what their labels are, and the classes."""
    wanted = None
    if config.model is not None:
        record = runs.read_run(config.model)
        from gpt4image.training.prepare import load_dataset as load_as_the_run
        from gpt4image.training.run_model import options_of

        same = {"data": config.data, "embeddings": None, "only_described": False}
        images, _ = load_as_the_run(options_of(record).model_copy(update=same))
        task, classes = record["config"]["task"], tuple(record["run"]["classes"])
    elif config.targets is not None:
        images = load_dataset(config.data, aside=config.labels)
        file = load_targets(config.targets)
        task, classes, wanted = file.facts.task, file.classes, frozenset(file.digests)
    else:
        raise ConfigError("Nothing to audit: give --targets FILE, --model RUN, or both.")
    if task not in KINDS:
        raise ConfigError(f"A model for {task} cannot be audited; one for {', '.join(KINDS)} can.")
    split = config.split or ("train" if config.model is None else "test")
    there = images.indices(split)
    digests = [images.digests[row] for row in there]
    distinct = np.unique(representatives(digests, np.zeros(len(there), np.int64)))
    rows = [int(there[place]) for place in distinct if wanted is None or digests[place] in wanted]
    if not rows:
        raise DataError(f"{config.data} has no images to audit in its {split} split; name another with --split.")
    return images.select(rows), KINDS[task], classes


def _predicted(
    config: AuditConfig, images: Dataset, kind: Kind, classes: tuple[str, ...]
) -> tuple[dict[str, list[Any]], dict[str, NDArray[np.float64]], tuple[Skipped, ...]]:
    """Return what each of answers, targets and model says of the images, None where it says nothing; of classes how
    probably it is right; and images that the model cannot read."""
    found, right, skipped = dict[str, list[Any]](), dict[str, NDArray[np.float64]](), tuple[Skipped, ...]()
    judge: NDArray[Any] | None = None

    def add(name: str, probabilities: NDArray[Any]) -> None:
        best, right[name] = expected_right(probabilities, judge)
        found[name] = [classes[k] if k >= 0 else None for k in best.tolist()]

    if config.targets is not None and kind == "classification":
        targets = Targets.load(config.targets)
        if targets.classes != classes:
            raise ConfigError(f"--targets {config.targets} and --model {config.model} are of different classes.")
        judge = targets.of(images.digests)[:]
    if config.answers is not None:
        if kind != "classification":
            raise ConfigError("--answers: only answers with one class per image are audited; leave it out.")
        answers = read_answers(config.answers, images.digests, classes).answers
        add("answers", answers.probabilities(len(classes))[:] * answers.given[:, None])
    if judge is not None:
        add("targets", judge)
    elif config.targets is not None:
        found["targets"] = targets_of(kind, config.targets, images.digests)[0]
    if config.model is not None:
        from gpt4image.training.run_model import load_run_model

        model = load_run_model(config.model, None, classes)
        pixels, rows = model.pixels(images), np.arange(len(images))
        predicted = model.read(pixels, rows).predictions
        broken, skipped = pixels.broken(rows), pixels.skipped
        if kind == "classification":
            add("model", np.where(broken[:, None], 0, predicted[:]))
        elif kind == "multilabel":
            present = model.task.present(predicted)  # pyright: ignore[reportAttributeAccessIssue]
            found["model"] = [[classes[k] for k in np.flatnonzero(row)] for row in present]
        else:
            found["model"] = [
                [[classes[int(box[5])], *np.clip(box[:4], 0, 1).astype(float).tolist()]
                 for box in rows_of if box[4] >= LEAST_SCORE and box[2] > box[0] and box[3] > box[1]]
                for rows_of in predicted
            ]  # fmt: skip
        found["model"] = [None if bad else one for bad, one in zip(broken, found["model"], strict=True)]
    return found, right, skipped
