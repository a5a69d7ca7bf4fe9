"""Secrets in variables and addresses reach no record, page, log, output or command, whatever a command meets.

What servers answer, with every fault, is in describing/describers/openai/test_server_faults.py, under the same watch.
"""

import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from batch_server import BatchServer, Fault, serving
from canaries import KEY, Watch, with_secrets
from distilling_cases import Photos, bare, good, paid, photos
from gpt4image import cli
from openai_stub import Call, Reply, Stub, failure, serve

__all__ = ["bare", "paid", "photos"]
ASK = ("describe", "--data", "photos", "--store", "a.db", "--describer", "openai:tiny")


@pytest.fixture
def give(
    watched: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., int]:
    """Give a command in the folder of the test, as from a shell, and return its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt4image.describing.describers.openai.describer.UNREACHABLE_S", 0.0)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None, time=time.time))

    def command(*words: object) -> int:
        given = list(map(str, words))
        monkeypatch.setattr(sys, "argv", ["gpt4image", *given])
        code = cli.main(given)
        watched.texts += capfd.readouterr()
        return code

    return command


@pytest.mark.slow
def test_distill_and_all_that_reads_its_folder_keep_no_login_and_no_key(
    give: Callable[..., int], watched: Watch, photos: Callable[[int], Photos], paid: Callable[[Stub], list[str]]
) -> None:
    with serve(good) as stub:
        shutil.rmtree("photos")  # those of ``paid`` have no label
        photos(6)
        words = paid(stub)
        words[words.index(stub.url)] = with_secrets(stub.url)
        assert give(*words, "--out", "out") == cli.USER_MISTAKE, "nobody agreed to pay"
        assert give(*words, "--out", "out", "--max-cost", "1") == cli.OK
        assert all(call.headers["authorization"].startswith("Basic ") for call in stub.calls)
    assert "--base-url 'http://***@127.0.0.1" in Path("out/run/environment.json").read_text(encoding="utf-8")
    for command in (("report", "out/run"), ("predict", "out/model", "photos"), ("doctor",), ("doctor", "out")):
        assert give(*command) == cli.OK, command
    assert give("inspect", "out/answers.db", "--data", "photos", "--page", "v.html") == cli.OK
    assert any(watched.folder.rglob("*.html"))


def broken(call: Call) -> Reply:
    """Quote whatever was sent."""
    return failure(400, f"no {call.path} {call.headers}", "invalid_request_error")


def redirect(call: Call) -> Reply:
    return Reply(302, b"", {"location": f"http://user:{KEY}@elsewhere.example{call.path}"})


@pytest.mark.parametrize("kind", ["redirect", "400", "closed", "crash"])
def test_a_description_that_ends_badly_shows_no_secret(
    kind: str, give: Callable[..., int], photos: Callable[[int], Photos], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(2)
    with serve(redirect if kind == "redirect" else broken) as stub:
        url = with_secrets(stub.url)
        if kind == "closed":
            with socket.create_server(("127.0.0.1", 0)) as free:
                url = with_secrets(f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        if kind == "crash":

            def crash(*_: object) -> None:
                raise RuntimeError(f"a library quotes {url} and {KEY}")

            monkeypatch.setattr("gpt4image.describing.describers.openai.describer.OpenAIDescriber.describe", crash)
        code = give(*ASK, "--retries", 0, "--limit", 1, "--base-url", url)
    assert code == {"crash": cli.CRASH, "redirect": cli.USER_MISTAKE}.get(kind, code) != cli.OK


@pytest.mark.parametrize("status", [401, 500, None])
def test_a_batch_keeps_no_secret(
    status: int | None, give: Callable[..., int], photos: Callable[[int], Photos], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(2)
    monkeypatch.setattr("gpt4image.describing.describers.batch.SETTLING_S", 0.2)
    with serving(BatchServer()) as server:
        body = {"error": {"message": f"wrong key {KEY} at {with_secrets(server.url)}", "code": "x", "type": "y"}}
        if status is not None:
            server.faults = [Fault("POST /v1/files", status, body=body) for _ in range(9)]
        url = with_secrets(server.url, login=False)
        code = give(*ASK, "--batch", "--retries", 1, "--poll-seconds", 0.01, "--base-url", url)
    assert (code == cli.OK) == (status is None)
    assert not any(KEY.encode() in content for content in server.files.values()), "bodies go without the key"


@pytest.mark.parametrize("kind", ["refused", "gone"])
def test_the_hub_s_token_stays_out_of_errors_and_folders(
    kind: str, give: Callable[..., int], small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(lambda call: failure(401, f"no {call.headers}")) as hub:
        address = f"http://127.0.0.1:{hub.port}" if kind == "refused" else with_secrets("http://127.0.0.1:9")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert give("export", small_run, "--format", "timm", "--out", "m", "--push-to-hub", "me/model") != cli.OK
    assert give("train", "--data", "hf:me/photos", "--out", "run") == cli.USER_MISTAKE
