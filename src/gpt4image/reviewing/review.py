"""The stage review: a person labels a little and corrects, in the browser."""

from __future__ import annotations

import importlib.util
import secrets
import socket
import threading
from collections.abc import Sequence

from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.config import ReviewConfig
from gpt4image.config.results import ReviewResult
from gpt4image.data import load_dataset
from gpt4image.describing.class_lists import class_list
from gpt4image.labelling.answers import answered_classes
from gpt4image.reviewing.label_studio import read_tasks, write_tasks
from gpt4image.reviewing.labels_file import LabelsFile
from gpt4image.reviewing.queue import Teacher
from gpt4image.reviewing.session import MODES, Session, new_class

ADDRESS = "127.0.0.1"


def review(config: ReviewConfig) -> ReviewResult:
    """Serve the page until the person finishes, or exchange labels with Label Studio.

    Raises:
        ConfigError: the dataset has several classes per image, or the file or the port is in use.
        DataError: the dataset, the file of labels or the file of tasks cannot be read as asked.
        StoreError, TableError: the evidence is missing, or of other images.
        MissingExtraError: the server is not installed.
        KeyboardInterrupt: Ctrl-C, with the outcome; every label is on disk.
    """
    if config.import_tasks is None and config.export_tasks is None:
        require_server()
    say(f"Reading the images of {config.data}")
    images = load_dataset(config.data, aside=config.labels)
    file = LabelsFile(config.labels, images)
    skipped, stopped = list[Skipped](), False
    try:
        session = open_session(config, file, wait=config.export_tasks is not None)
        try:
            try:
                skipped = _work(config, session)
            except KeyboardInterrupt:
                stopped = True
            facts = session.news(0)
        finally:
            session.end()
    finally:
        file.close()
    outcome = ReviewResult(
        path=config.export_tasks or config.labels,
        **{name: facts[name] for name in ("total", "labelled", "checked", "unsure")},
        skipped=(*images.skipped, *file.skipped, *skipped),
    )
    if stopped:
        raise KeyboardInterrupt(outcome)
    return outcome


def open_session(config: ReviewConfig, file: LabelsFile, *, wait: bool = False) -> Session:
    """Return a session with the evidence and the classes of the options; for ``wait`` see there. End it after use."""
    teacher = Teacher(file.distinct, config.answers, config.embeddings, seed=0)
    own = file.images.classes
    given: Sequence[str] = own
    if config.classes is not None:
        given = [new_class(option.name, ()) for option in class_list(config.classes)]
    elif config.answers is not None and not own:
        given = answered_classes(config.answers)
    return Session(file, teacher, list(dict.fromkeys([*given, *own, *file.labels()])), is_open=not given, wait=wait)


def _work(config: ReviewConfig, session: Session) -> list[Skipped]:
    """Do what is asked for; return the tasks that were skipped."""
    if config.import_tasks is not None:
        found, skipped = read_tasks(config.import_tasks, session.digest_of)
        return [*skipped, *session.mark_known(found)]
    if config.export_tasks is not None:
        write_tasks(config.export_tasks, [(card, session.place(card.id)) for card in session.all_cards()])
        return []
    serve(session, config.port, MODES[config.correct])
    return []


def require_server() -> None:
    """Raise MissingExtraError where the server of the page is not installed."""
    if not all(map(importlib.util.find_spec, ("starlette", "uvicorn"))):
        raise MissingExtraError("The page of gpt4image review", "review")


def serve(session: Session, port: int, mode: str = MODES[0]) -> None:
    """Serve the page until the person finishes. Raises KeyboardInterrupt, after the last request is answered."""
    import uvicorn

    from gpt4image.reviewing.server import make_app

    token = secrets.token_urlsafe(24)
    with _listen(port) as listener:
        app = make_app(session, token, lambda: setattr(server, "should_exit", True), mode)
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
            if session.learning:
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
