"""The server of an export, as a process of its own without gpt4image: many clients, bad bodies, limits, a stop."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from packaging.requirements import Requirement
from PIL import Image

from deploying.small_models import small_model
from gpt4image.config import ExportConfig
from gpt4image.deploying.applications import SERVER, write_server
from gpt4image.deploying.export import export
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.preprocessing import as_images
from repository import values

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

ALONE = """import runpy, sys
for name in ("gpt4image", "torch", "timm", "pydantic"):
    sys.modules[name] = None
runpy.run_path("app.py", run_name="__main__")
"""


class Served:
    """A running server."""

    def __init__(self, folder: Path, **settings: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {"PORT": str(self.port), "THREADS": "1", **{name: str(value) for name, value in settings.items()}}
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | own
        options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", ALONE], cwd=folder, env=environment, **options)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                self.client.get("/health")
                return
            time.sleep(0.05)
        raise AssertionError(self.process.communicate()[1])

    def predict(self, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}/predict", content=body, headers=headers, timeout=60)

    def end(self) -> str:
        self.client.close()
        self.process.terminate()
        return self.process.communicate(timeout=60)[1]


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(folder: Path, **settings: object) -> Served:
            write_server(folder)
            served = Served(folder, **settings)
            stack.callback(served.end)
            return served

        yield start


def picture(colour: Any, size: tuple[int, int] = (90, 60), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def test_every_task_is_answered_as_the_document_says(tmp_path: Path, serve: Serve) -> None:
    expected: dict[str, dict[str, Any]] = {
        "classification": {"known": 0.0, "none_of_these": True},
        "multilabel": {"present": []},
        "detection": {"predictions": [
            {"class": "red", "probability": pytest.approx(0.9), "box": [9, 6, 45, 30]},
            {"class": "blue", "probability": pytest.approx(0.7), "box": [54, 36, 81, 54]},
        ]},
        "segmentation": {"predictions": [{"class": "red", "area": 1.0}]},
    }  # fmt: skip
    for task, facts in expected.items():
        folder = small_model(tmp_path / task, task, share=0.5 if task == "classification" else None)
        served = serve(folder)
        document, answer = served.client.get("/openapi.json").json(), served.predict(picture("black")).json()
        reply = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = {"additionalProperties": False, "required": list(reply["properties"])}
        Draft202012Validator(reply | whole).validate(answer)
        assert answer | facts == answer, task
        assert served.client.get("/health").json() == {"status": "ok", "classes": 3, "in_work": 0}


def test_64_clients_at_once_are_all_answered_rightly_and_in_batches(tmp_path: Path, serve: Serve) -> None:
    served = serve(small_model(tmp_path, "classification", share=0.5))
    colours = {"red": "red", "lime": "green", "blue": "blue", "white": "red"}

    def ask(number: int) -> bool:
        colour = list(colours)[number % 4]
        answer = served.predict(picture(colour, (300, 200), "JPEG")).json()
        return answer["predictions"][0]["class"] == colours[colour] and not answer["none_of_these"]

    with ThreadPoolExecutor(64) as clients:
        assert all(clients.map(ask, range(640)))


def bomb(side: int) -> bytes:
    """A small PNG file whose header claims side x side pixels."""
    data = bytearray(picture("black", (8, 8)))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def chunks(count: int) -> Iterator[bytes]:
    yield from (b"x" * 100_000 for _ in range(count))


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "the body is empty"),
        (b"no picture", 400, "no picture of JPEG"),
        (picture("red")[:60], 400, "damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "no picture"),
        (picture("red", kind="TIFF"), 400, "no picture"),
        (bomb(20_000), 413, "20000 x 20000 pixels are more than 50,000,000"),
        (bomb(2**31 - 1), 413, "pixels are more than"),
        (b"x" * 1_000_001, 413, "larger than 1,000,000 bytes"),
        (11, 413, "larger than 1,000,000 bytes"),
    ],
    ids=["empty", "text", "cut", "svg", "tiff", "bomb", "largest bomb", "length", "chunked"],
)
def test_what_is_no_picture_or_too_large_is_refused_and_the_next_one_answered(
    body: Any, status: int, reason: str, colours: Served
) -> None:
    found = colours.predict(chunks(body) if isinstance(body, int) else body)
    assert found.status_code == status and reason in found.json()["error"]
    assert colours.predict(picture("red")).json()["predictions"][0]["class"] == "red"


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = small_model(tmp_path_factory.mktemp("served"), "classification")
    write_server(folder)
    served = Served(folder, MAX_BYTES=1_000_000, MAX_WAITING=2, BODY_SECONDS=0.5)
    yield served
    served.end()


def test_slow_bodies_and_too_many_requests_are_refused(colours: Served) -> None:
    held = [socket.create_connection(("127.0.0.1", colours.port)) for _ in range(2)]
    for each in held:
        each.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nslow")
    time.sleep(0.2)
    refused = colours.predict(picture("red"))
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    for each in held:
        assert each.recv(100).startswith(b"HTTP/1.1 408")
        each.close()
    assert colours.predict(picture("red")).status_code == 200


def test_requests_that_have_begun_are_answered_after_sigterm(tmp_path: Path, serve: Serve) -> None:
    served = serve(small_model(tmp_path, "classification"))
    begun, answers = threading.Barrier(17), list[int]()

    def slow_body() -> Iterator[bytes]:
        whole = picture("red")
        yield whole[:50]
        begun.wait()
        time.sleep(0.5)
        yield whole[50:]

    def ask() -> None:
        answers.append(served.predict(slow_body()).status_code)

    clients = [threading.Thread(target=ask) for _ in range(16)]
    for client in clients:
        client.start()
    begun.wait()
    time.sleep(0.2)
    served.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    assert answers == [200] * 16 and served.process.wait(30) in (0, -signal.SIGTERM)
    with pytest.raises(httpx.ConnectError):
        served.predict(picture("red"))


def test_unsure_pictures_are_kept_as_they_came_each_once(tmp_path: Path, serve: Serve) -> None:
    kept = tmp_path / "unsure"
    served = serve(small_model(tmp_path / "model", "classification", share=0.2), UNSURE_DIR=kept, UNSURE_MOST=3)
    grey, black = picture("grey", kind="JPEG"), picture("black")  # all classes alike; none of these
    for body in (grey, grey, black, picture("red")):
        assert served.predict(body).status_code == 200
    assert sorted(path.read_bytes() for path in kept.iterdir()) == sorted([grey, black])
    assert {path.suffix for path in kept.iterdir()} == {".jpg", ".png"}
    for shade in range(50, 60):
        served.predict(picture((shade,) * 3))
    assert len(list(kept.iterdir())) == 3


@pytest.mark.parametrize(
    ("task", "settings", "reason"),
    [
        ("classification", {"PORT": "http"}, "PORT=http: give a number of at least 0"),
        ("classification", {"MAX_PIXELS": "-5"}, "MAX_PIXELS=-5"),
        ("segmentation", {"UNSURE_DIR": "unsure"}, "a mask has no probability"),
    ],
)
def test_wrong_settings_end_in_one_line(task: str, settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    write_server(small_model(tmp_path, task))
    done = subprocess.run([sys.executable, "app.py"], cwd=tmp_path, env={**os.environ, **settings}, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1 and reason in done.stderr and "Traceback" not in done.stderr


def test_the_dockerfile_holds_all_that_the_server_needs(tmp_path: Path) -> None:
    write_server(small_model(tmp_path, "classification"))
    says = partial(values, file=tmp_path / "Dockerfile")
    copied = [name for rest in says("COPY") for name in rest.split()[:-1]]
    assert set(copied) == {path.name for path in tmp_path.iterdir()} - {"Dockerfile"}
    assert re.fullmatch(r"python:3\.1[1-9]\.\d+-slim-\w+", says("FROM")[0]) and says("USER") == ["server"]
    assert json.loads(says("CMD")[0]) == ["python", "app.py"], "SIGTERM reaches the server, not a shell"
    needs = {need.name: need for need in map(Requirement, (SERVER / "requirements.txt").read_text().split())}
    assert all(version(name) in need.specifier for name, need in needs.items())
    imported = set(re.findall(r"^(?:import|from) (\w+)", (SERVER / "app.py").read_text(), re.MULTILINE))
    assert {name.lower() for name in imported - sys.stdlib_module_names} == {
        "pil" if name == "pillow" else name for name in needs
    }


@pytest.mark.slow
def test_the_server_of_a_run_says_what_the_run_says(
    run_of: Callable[[str], Path], tmp_path: Path, serve: Serve
) -> None:
    run, folder = run_of("vit-small-stem"), tmp_path / "server"
    export(ExportConfig(run_dir=run, format="server", out=folder))
    assert {"app.py", "Dockerfile", "requirements.txt", "README.md", "example.py"} <= {p.name for p in folder.iterdir()}
    classifier, served = load_classifier(folder), serve(Path(shutil.copytree(folder, tmp_path / "moved")), TOP=100)
    files = sorted((run.parent / "pictures").rglob("*.png"))[::5]
    photo, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6
    Image.open(files[0]).convert("RGB").resize((1400, 900)).save(photo, "JPEG", exif=turned)
    for data in (*(file.read_bytes() for file in files), photo.getvalue()):
        (expected,) = classifier.probabilities(as_images(classifier.preprocessing.pixels(data)[None]))
        answer = {row["class"]: row["probability"] for row in served.predict(data).json()["predictions"]}
        np.testing.assert_allclose([answer[name] for name in classifier.classes], expected, atol=1e-5)
