"""The stage as a person meets it: a command, a page in Chromium, a file, and a model that learns from it."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from browser import Browser
from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.base.visible import in_one_line
from gpt4image.config import ReviewConfig
from gpt4image.data import load_dataset
from gpt4image.reviewing.review import review
from reviewing.hostile_names import HOSTILE
from tables import made_of

pytest.importorskip("uvicorn", reason="the page: pip install 'gpt4image[review]'")


@contextmanager
def served(*words: object, cwd: Path, command: str = "review") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a command with a page; yield the process and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt4image", command, *map(str, words)],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"COLUMNS": "500"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines: list[str] = []
        while not (found := re.search(r"Open (http://127\.0\.0\.1:\d+/\?token=\S+)", "".join(lines))):
            line = process.stderr.readline()
            assert line, "".join(lines)
            lines.append(line)
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def send(address: str, path: str, value: Any = None) -> Any:
    """Post a value, or get what is there."""
    base, _, token = address.partition("/?token=")
    headers = {"Origin": base, "Cookie": f"gpt4image-review-{base.rpartition(':')[2]}={token}"}
    body = None if value is None else json.dumps(value).encode()
    with urlopen(Request(base + path, data=body, headers=headers), timeout=60) as answer:
        return json.load(answer)


def labels_of(path: Path) -> dict[str, str]:
    images = load_dataset(f"manifest:{path}")
    return {key: "".join(images.label_names(row)) for row, key in enumerate(images.keys)}


def test_a_killed_server_loses_no_click_and_finish_ends_the_command(pictures: Path, tmp_path: Path) -> None:
    words, key = ("--data", f"folder:{pictures}", "--labels", "my labels.csv"), f"unlabelled/{HOSTILE[0]}"
    images, path = load_dataset(f"folder:{pictures}"), tmp_path / "my labels.csv"
    digest = images.digests[images.keys.index(key)]
    with served(*words, cwd=tmp_path) as (process, address):
        send(address, "/marks", {digest: {"label": "dog", "note": "checked"}})
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert labels_of(path)[key] == "dog"
    with served(*words, "--json", cwd=tmp_path) as (process, address):
        answer = send(address, "/marks", {digest: {"label": "cat", "note": "checked"}})
        assert answer["before"][digest] == {"label": "dog", "note": "checked"}
        with pytest.raises(ConfigError, match=rf"is written by another process \(id {process.pid}\)"):
            review(ReviewConfig(data=f"folder:{pictures}", labels=path))
        port = int(address.partition("/?")[0].rpartition(":")[2])
        with pytest.raises(ConfigError, match=rf"--port {port} cannot be used \(Address already in use\)"):
            review(ReviewConfig(data=f"folder:{pictures}", labels=tmp_path / "other.csv", port=port))
        send(address, "/finish", {})
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and labels_of(path)[key] == "cat"
    facts = json.loads(printed)
    assert (facts["path"], facts["total"], facts["labelled"]) == ("my labels.csv", 11, 6)
    assert facts["next"] == "gpt4image train --data 'manifest:my labels.csv' --out run"


def test_a_missing_server_is_named_before_anything_is_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"data": f"folder:{pictures}", "labels": tmp_path / "labels.csv"}
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"page of gpt4image review needs .*\[review\]'"):
        review(ReviewConfig(**options))
    assert not (tmp_path / "labels.csv").exists()


# ---- in a browser

FOCUSED = "document.activeElement?.closest?.('.card')?.querySelector('.key')?.textContent"


@pytest.mark.slow
def test_hostile_names_stay_text_on_every_screen(pictures: Path, tmp_path: Path) -> None:
    words = ("--data", f"folder:{pictures}", "--labels", "labels.csv")
    with served(*words, cwd=tmp_path) as (process, address), Browser(tmp_path) as browser:
        for width, scheme in ((320, "light"), (320, "dark"), (1280, "dark")):
            browser.screen(width, 800, scheme)
            browser.open(address)
            browser.wait_for("document.querySelectorAll('.card').length === 6")
            browser.wait_for("[...document.images].filter(i => i.complete && i.naturalWidth).length > 0")
            assert browser.read("location.pathname + location.search + document.cookie") == "/"
            assert browser.read("document.documentElement.scrollWidth") == width
            shown = browser_texts(browser, ".card .key")
            assert {f"unlabelled/{in_one_line(name)}" for name in HOSTILE} < set(shown)
            assert browser.read("document.querySelectorAll('.card .key *, [onerror]').length") == 0
            assert (
                browser.read("Math.min(...[...document.querySelectorAll('.picture')].map(e => e.offsetWidth))") >= 160
            )
            dark = browser.read("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
            assert dark == (scheme == "dark")
            unnamed = "[...document.querySelectorAll('button, input, dialog, article')].filter(e => !(e.ariaLabel || "
            unnamed += "e.getAttribute('aria-labelledby') || e.textContent.trim())).map(e => e.outerHTML)"
            assert browser.read(unnamed) == []
            small = "[...document.querySelectorAll('button')].filter(e => e.offsetWidth && e.offsetHeight < 24).length"
            assert browser.read(small) == 0
            assert browser.messages == []
        process.kill()
        process.wait()
        browser.press("1")
        browser.wait_for("document.querySelector('#fault').textContent.includes('does not answer')")
        assert browser.read("document.querySelectorAll('.card.done').length") == 0


@pytest.mark.slow
def test_keys_alone_type_a_new_class_undo_and_see_another_tab(pictures: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (pictures / name).rename(pictures / "unlabelled" / name)
    words = ("--data", f"folder:{pictures}", "--labels", "labels.csv")
    with served(*words, cwd=tmp_path) as (_, address), Browser(tmp_path) as browser:
        browser.screen(1280, 900)
        browser.open(address)
        browser.wait_for(FOCUSED)
        first = browser.read(FOCUSED)
        for key in ("<", "b", ">", " ", "x", "Enter"):
            browser.press(key)
        browser.wait_for("document.querySelectorAll('.card.done').length === 1")
        assert labels_of(tmp_path / "labels.csv")[first] == "<b> x"
        second = browser.read(FOCUSED)
        assert second not in (None, first)
        browser.press("1")
        browser.wait_for("document.querySelectorAll('.card.done').length === 2")
        assert labels_of(tmp_path / "labels.csv")[second] == "<b> x"
        browser.press("Backspace")
        browser.wait_for("document.querySelectorAll('.card.done').length === 1")
        assert labels_of(tmp_path / "labels.csv")[second] == ""
        assert browser.read(FOCUSED) == second
        browser.press("0")
        browser.wait_for("document.querySelectorAll('.card.unsure').length === 1")
        browser.press("ArrowLeft")
        browser.press(" ")
        browser.wait_for("document.querySelector('#large[open] img').naturalWidth")
        browser.press("Escape")
        browser.wait_for(f"{FOCUSED} !== undefined")
        images = load_dataset(f"folder:{pictures}")
        digest = images.digests[images.keys.index(first)]
        send(address, "/marks", {digest: {"label": "", "note": "unsure"}})
        browser.wait_for("document.querySelectorAll('.card.unsure').length === 2")
        browser.press("PageDown")
        # Those that somebody was not sure of come last.
        browser.wait_for("[...document.querySelectorAll('.card')].slice(-2).every(e => e.matches('.unsure'))")
        shown = browser_texts(browser, ".card .key")
        assert (len(shown), set(shown[-2:])) == (11, {first, second})
        assert browser.messages == []


@pytest.mark.slow
def test_ten_classes_have_buttons_in_an_audit_and_after_the_last_card_a_word_is_for_none(
    pictures: Path, tmp_path: Path
) -> None:
    images, names = load_dataset(f"folder:{pictures}"), ("cat", "dog", *"abcdefgh")
    made_of(images, names, np.full((len(images), 10), 0.1, np.float32)).save(tmp_path / "t.parquet")
    words = ("--data", f"folder:{pictures}", "--labels", "labels.csv", "--targets", "t.parquet")
    with served(*words, cwd=tmp_path) as (_, address), Browser(tmp_path) as browser:
        browser.open(address)
        browser.wait_for(FOCUSED)
        assert browser.read("document.querySelectorAll('.card').length") == 6
        assert "at random: measures the model" in browser_texts(browser, ".reason")
        for count in range(1, 7):
            last = browser.read(FOCUSED)
            for key in ("d", "o", "Enter"):
                browser.press(key)
            browser.wait_for(f"document.querySelectorAll('.card.done').length === {count}")
        for key in ("c", "a", "Enter"):
            browser.press(key)
        browser.wait_for("!document.querySelector('#empty').hidden")
        assert labels_of(tmp_path / "labels.csv")[last] == "dog"
        browser.click("[data-mode=audit]")
        browser.wait_for("document.querySelectorAll('.card').length === 11")
        assert {"1 cat", "9 g", "h"} <= set(browser_texts(browser, ".card:first-child .choices button"))
        assert browser.messages == []


def boxes_of(path: Path, key: str) -> list[list[Any]] | None:
    with path.open(encoding="utf-8", newline="") as file:
        [cell] = [row["boxes"] for row in csv.DictReader(file) if row["key"] == key]
    return json.loads(cell) if cell else None


@pytest.mark.slow
def test_boxes_are_drawn_moved_renamed_and_deleted_by_mouse_keys_and_finger(pictures: Path, tmp_path: Path) -> None:
    words = ("--data", f"folder:{pictures}", "--labels", "labels.csv", "--task", "detection", "--classes", "cat,dog")
    with served(*words, cwd=tmp_path) as (_, address), Browser(tmp_path) as browser:
        browser.screen(1280, 900)
        browser.open(address)
        browser.wait_for(FOCUSED)
        key = browser.read(FOCUSED)
        browser.press(" ")
        browser.wait_for("document.querySelector('#drawing').viewBox.baseVal?.width")

        def at(x: float, y: float) -> tuple[float, float]:
            """Return where a place of the picture is on the screen."""
            point = f"new DOMPoint({x:f} * b.width, {y:f} * b.height).matrixTransform(s.getScreenCTM())"
            found = browser.read(
                f"(() => {{ const s = document.querySelector('#drawing'), b = s.viewBox.baseVal, p = {point}; "
                "return [p.x, p.y]; })()"
            )
            return found[0], found[1]

        def saved(count: int) -> list[list[Any]]:
            browser.wait_for(f"document.querySelectorAll('#boxes button').length === {count}")
            browser.wait_for("![...document.querySelectorAll('.state')].some(e => e.textContent.includes('saving'))")
            found = boxes_of(tmp_path / "labels.csv", key)
            assert found is not None and len(found) == count
            return found

        def near(box: list[Any], name: str, *sides: float) -> bool:
            return box[0] == name and bool(np.allclose(box[1:], sides, atol=0.02))

        browser.drag(at(0.1, 0.1), at(0.5, 0.4))
        browser.wait_for("document.querySelector('#choose[open] li')")
        browser.press("1")
        assert near(saved(1)[0], "cat", 0.1, 0.1, 0.5, 0.4), saved(1)
        browser.drag(at(0.3, 0.3), at(0.5, 0.5))
        assert near(saved(1)[0], "cat", 0.3, 0.3, 0.7, 0.6), "moved"
        browser.drag(at(0.7, 0.6), at(0.9, 0.9))
        assert near(saved(1)[0], "cat", 0.3, 0.3, 0.9, 0.9), "resized"
        browser.press("2")
        assert near(saved(1)[0], "dog", 0.3, 0.3, 0.9, 0.9), "renamed"
        browser.press("ArrowLeft")
        assert near(saved(1)[0], "dog", 0.29, 0.3, 0.89, 0.9)
        browser.press("n")
        assert near(saved(2)[1], "dog", 0.3, 0.3, 0.7, 0.7)
        browser.press("Delete")
        saved(1)
        browser.press("Backspace")
        saved(2)
        names = "[...document.querySelectorAll('#large button')].filter(e => !(e.ariaLabel || e.textContent.trim()))"
        assert browser.read(f"{names}.length") == 0
        browser.press("Enter")
        browser.wait_for("document.querySelector('#large .key').textContent !== " + json.dumps(key))
        key = browser.read("document.querySelector('#large .key').textContent")
        browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
        browser.wait_for("document.querySelector('#large img').complete && innerWidth === 390")
        assert browser.read("document.querySelector('#large').scrollWidth <= 390")
        browser.drag(at(0.2, 0.2), at(0.8, 0.7), touch=True)
        assert near(saved(1)[0], "dog", 0.2, 0.2, 0.8, 0.7), "drawn by a finger"
        assert browser.messages == []
    read = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert (read.classes, int(read.regions.known.sum())) == (("dog",), 2)  # pyright: ignore


@pytest.mark.slow
def test_tags_and_an_audit_are_tabs_of_5000_images_that_answer_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number:04}.ppm").write_bytes(b"P6 4 4 255 " + bytes([number % 256, number // 256, 0]) * 16)
    images = load_dataset(f"folder:{folder}")
    made_of(images, ("cat", "dog"), np.full((5000, 2), 0.6, np.float32), "multilabel").save(tmp_path / "t.parquet")
    words = ("--data", f"folder:{folder}", "--labels", "labels.csv", "--targets", "t.parquet")
    with served(*words, cwd=tmp_path) as (_, address), Browser(tmp_path) as browser:
        browser.screen(1280, 900)
        browser.open(address)
        browser.wait_for(FOCUSED)
        assert browser.read("document.querySelectorAll('.card img').length") == 24
        key = browser.read(FOCUSED)
        browser.press("1")
        browser.wait_for("document.querySelector('.card.done')")
        with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
            cells = {row["key"]: row["labels"] for row in csv.DictReader(file)}
        assert cells[key] == "dog" and len(cells) == 5000, "one of the two proposed tags is gone"
        browser.click("[data-mode=audit]")
        browser.wait_for("document.querySelector('#intro').textContent.startsWith('Images at random')")
        browser.wait_for("document.querySelector('.card') && !document.querySelector('.card.done')")
        for count in range(1, 6):
            browser.press("1")
            browser.press("Enter")
            browser.wait_for(f"document.querySelectorAll('.card.done').length === {count}")
        browser.wait_for("document.querySelector('#gain').textContent.includes('targets that are right 50.0%')")
        digest = images.digests[0]
        took: list[float] = []
        for path, sent in (("/cards?mode=label&count=24", None), ("/news?since=0", None), ("/marks?mode=label", 1)):
            for turn in range(5):
                body = None if sent is None else {digest: {"label": ["cat"] * (turn % 2), "note": "checked"}}
                started = time.perf_counter()
                send(address, path, body)
                took.append(time.perf_counter() - started)
        assert np.median(took) < 0.1, took
        assert browser.messages == []
    assert (tmp_path / "audit.csv").read_text(encoding="utf-8").count(",checked,") == 5


def browser_texts(browser: Browser, selector: str) -> list[str]:
    browser.wait_for(f"document.querySelector({json.dumps(selector)})")
    return browser.read(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def raw(address: str, request: str) -> bytes:
    """Send bytes that no browser would send, and return what comes back."""
    port = int(address.partition("/?")[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request.replace("\n\n", "\nConnection: close\n\n", 1).replace("\n", "\r\n").encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_real_server_keeps_out_sockets_other_users_and_its_token_in(pictures: Path, tmp_path: Path) -> None:
    with served("--data", f"folder:{pictures}", "--labels", "labels.csv", cwd=tmp_path) as (process, address):
        base, _, token = address.partition("/?token=")
        host = base.removeprefix("http://")
        cookie = f"Cookie: gpt4image-review-{host.rpartition(':')[2]}={token}"
        own = f"Host: {host}\n{cookie}\n"
        upgrade = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
        upgrade += "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\n"
        refused = [f"GET /news HTTP/1.1\nHost: {host}\n\n", f"GET /news HTTP/1.0\n{cookie}\n\n"]
        refused += [f"GET /news HTTP/1.1\nHost: {host}\nHost: evil.example\n{cookie}\n\n"]
        refused += [f"GET /news HTTP/1.1\nHost: evil.example\nHost: {host}\n{cookie}\n\n"]
        refused += [f"GET http://evil.example/news HTTP/1.1\nHost: evil.example\n{cookie}\n\n"]
        refused += [f"{word} /marks HTTP/1.1\n{own}\n" for word in ("OPTIONS", "TRACE", "PUT", "DELETE", "PATCH")]
        form = "Content-Type: application/x-www-form-urlencoded\nContent-Length: 5\n\na=b&c"
        refused += [f"POST /marks HTTP/1.1\n{own}{origin}{form}" for origin in ("", f"Origin: {base}\n")]
        outside = ("/../../../etc/passwd", "//etc/passwd", "/image/%00", "/page.js%2f..%2fserver.py")
        refused += [f"GET {path} HTTP/1.1\n{own}\n" for path in outside]
        answers = [raw(address, request) for request in refused]
        for request, answer in zip(refused, answers, strict=True):
            status = answer.split(b"\r\n")[0].split(b" ")[1:2]
            assert status in ([b"400"], [b"403"], [b"404"], [b"405"]), (request, answer[:200])
        assert not any(token.encode() in answer or b"root:" in answer for answer in answers)
        assert b"200 OK" in raw(address, f"GET /news HTTP/1.1\n{own}{upgrade}\n"), "no socket is opened"

        digests = load_dataset(f"folder:{pictures}").digests
        users = {"cat": digests[: len(digests) // 2], "dog": digests[len(digests) // 2 :]}

        def click(name: str) -> None:
            for digest in users[name]:
                send(address, "/marks", {digest: {"label": name, "note": "checked"}})

        with ThreadPoolExecutor(2) as both:
            list(both.map(click, users))
        labelled = labels_of(tmp_path / "labels.csv")
        assert sorted(labelled.values()) == sorted(name for name, marked in users.items() for _ in marked)
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "wrote: labels.csv\nnext: gpt4image train --data manifest:labels.csv --out run\n" in out
    assert token not in out + told, "the address that was printed at the beginning is the only place"
    assert "Traceback" not in told and "ERROR" not in told, told
