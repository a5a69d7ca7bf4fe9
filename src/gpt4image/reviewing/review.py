"""The stages at which a person looks, in the browser: review, which labels and corrects, and audit."""

from __future__ import annotations

import importlib.util
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

from gpt4image.artifacts.box_table import holds_boxes
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.base.progress import say
from gpt4image.config import AuditConfig, ReviewConfig
from gpt4image.config.results import AuditResult, DiscoverResult, ReviewResult
from gpt4image.data import load_dataset
from gpt4image.describing.class_lists import class_list
from gpt4image.labelling.answers import answered_classes
from gpt4image.labelling.looks import LOOKS
from gpt4image.reviewing.audit import Audit
from gpt4image.reviewing.labels_file import Kind, LabelsFile
from gpt4image.reviewing.queue import Adviser, Teacher, Things, things_of
from gpt4image.reviewing.session import Session, new_class

ADDRESS = "127.0.0.1"
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
                audited = Audit(AuditConfig(**same, labels=config.labels.with_name(LOOKS.name)))
                opened.callback(audited.end)
                sessions["audit"] = audited.session
            serve(sessions, config.port, "correct" if config.correct else "label")

        def outcome() -> ReviewResult:
            facts = session.news(0)
            counts = {name: facts[name] for name in ("total", "labelled", "checked", "unsure")}
            return ReviewResult(path=config.labels, **counts, skipped=(*images.skipped, *file.skipped))

        return after(page, outcome)


def audit(config: AuditConfig) -> AuditResult:
    """Ask a person about a few images, drawn at random, and estimate how many of all are right.

    The same command goes on, and more ``looks`` add to them. Targets, answers and model may be others by then: the
    intervals hold for each.

    Raises KeyboardInterrupt: Ctrl-C while the page is open, with the outcome; every look is on disk.
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
    if config.targets is None:
        return None
    if holds_boxes(config.targets):
        return "detection"
    return "multilabel" if Targets.load(config.targets).facts.task == "multilabel" else None


def open_session(config: ReviewConfig, file: LabelsFile) -> Session:
    """Return a session with the evidence and the classes of the options. End it after use."""
    images, named = file.distinct, list[str]()
    if file.kind == "classification":
        teacher: Adviser = Teacher(images, config.answers, config.embeddings, config.targets)
        named = [] if config.targets is None else list(Targets.load(config.targets).classes)
    else:
        if config.answers is not None or config.embeddings is not None:
            raise ConfigError(
                "--answers and --embeddings propose one class per image; for tags and boxes give --targets FILE, as "
                "`gpt4image label` writes it from them."
            )
        said, doubt = [None] * len(images), None
        if config.targets is not None:
            said, doubt, named = things_of(file.kind, config.targets, images.digests)
        teacher = Things(file.kind, said, doubt)
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
