"""A headless Chromium that a test uses as a person does: it opens an address, presses keys, clicks, and reads.

``fits`` looks at pages at four widths, light and dark.
"""

import atexit
import contextlib
import functools
import html
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import pytest

CODES = {"Enter": 13, "Backspace": 8, "Tab": 9, "Escape": 27, " ": 32, "PageDown": 34, "End": 35, "Home": 36}
CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
SWITCHES = (
    "headless=new no-sandbox disable-gpu no-first-run hide-scrollbars disable-quic disable-background-networking "
    "mute-audio disable-component-update disable-sync disable-extensions remote-debugging-port=0 disable-dev-shm-usage"
)
PATIENCE = 60.0  # seconds; the machine may be busy
WIDTHS = (320, 390, 768, 1280)
SCHEMES = ("light", "dark")
BACKGROUND = {"light": "rgb(253, 253, 251)", "dark": "rgb(20, 23, 26)"}
CHECK = """
[...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, root = page.documentElement;
  const sticksOut = e => e.getBoundingClientRect().right > frame.clientWidth + 0.5 && !e.closest("svg g, .hidden");
  const cards = [...page.querySelectorAll(".large > .card > img")].map(e => e.getBoundingClientRect());
  return {
    width: frame.clientWidth, scroll: root.scrollWidth,
    outside: [...page.querySelectorAll("body *")].filter(sticksOut).map(e => e.outerHTML.slice(0, 80)),
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    broken: [...page.images].filter(image => !image.complete || !image.naturalWidth).length,
    smallest: Math.min(...cards.map(box => Math.min(box.width, box.height)), 9999),
  };
})
"""


class Browser:
    """One page. Use as a context manager. ``messages`` are what its console, its policy and its scripts complain of."""

    def __init__(self, folder: Path) -> None:
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program is None:
            pytest.skip("no Chromium on this machine: install the package chromium to use the page in a browser")
        profile = folder / "profile"
        switches = [f"--{switch}" for switch in SWITCHES.split()]
        self._process = subprocess.Popen(
            [program, *switches, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.messages: list[str] = []
        self._number = 0
        self._opened = contextlib.ExitStack()
        try:
            self._connect(profile / "DevToolsActivePort")
        except BaseException:
            self._end()
            raise

    def _connect(self, port_file: Path) -> None:
        from websockets.sync.client import connect

        end = time.monotonic() + PATIENCE
        while not (port_file.exists() and port_file.read_text().count("\n") >= 1):
            assert time.monotonic() < end, "Chromium does not start"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
            [target] = [target for target in json.load(answer) if target["type"] == "page"]
        address = target["webSocketDebuggerUrl"]
        self._socket = self._opened.enter_context(connect(address, max_size=None, open_timeout=PATIENCE))
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def _end(self) -> None:
        self._opened.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **params: Any) -> Any:
        """Send one command of the DevTools protocol and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(params["exceptionDetails"])[:500])
        if message.get("method") == "Log.entryAdded":
            self.messages.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def read(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.read(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never: {expression}; {self.messages}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        code = CODES.get(key, ord(key.upper()[0]))
        event = {"key": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        """Click the middle of the first element that matches."""
        place = self.read(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, touch: bool = False) -> None:
        """Drag from one place of the screen to another, by mouse or finger."""
        places = [start, ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), end]
        if touch:
            for kind, place in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
                self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": place[0], "y": place[1]}])
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        kinds = ("mousePressed", "mouseMoved", "mouseMoved", "mouseReleased")
        for kind, (x, y) in zip(kinds, [*places, end], strict=True):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screen(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the screen in CSS pixels, and whether the person prefers light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


@functools.cache
def shared() -> Browser:
    """One for all tests of this process that leave nothing in it."""
    browser = Browser(Path(tempfile.mkdtemp()))
    atexit.register(browser.__exit__)
    return browser


def fits(pages: str | list[str], folder: Path, scheme: str) -> None:
    """Check that pages fit every width, show all of themselves and fetch nothing."""
    pages = [pages] if isinstance(pages, str) else pages
    # A frame per width: its content keeps its own policy.
    contents = (html.escape(page.replace("<details", "<details open").replace('loading="lazy"', "")) for page in pages)
    frames = (
        f'<iframe style="border:0;height:3000px;width:{width}px" srcdoc="{content}"></iframe>'
        for content in contents
        for width in WIDTHS
    )
    path, browser = folder / f"page-{scheme}.html", shared()
    path.write_text("<!doctype html><body>" + "".join(frames), encoding="utf-8")
    browser.messages.clear()
    browser.screen(1400, 1000, scheme)
    browser.open(path.as_uri())
    browser.wait_for(f"location.href === {json.dumps(path.as_uri())} && document.readyState === 'complete'")
    found = browser.read(CHECK)
    assert browser.messages == [], "a script that the page's policy had to stop would be named here"
    assert [one["width"] for one in found] == list(WIDTHS) * len(pages)
    for one in found:
        assert one["scroll"] == one["width"], one
        assert (one["outside"], one["broken"], one["fetched"]) == ([], 0, []), one
        assert one["smallest"] >= 160, f"large cards show large pictures: {one}"
        assert one["background"] == BACKGROUND[scheme], one
