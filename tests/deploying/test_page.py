"""The page of an export, in Chromium: what it shows is what the model says, on a phone too, and nothing is fetched."""

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Browser
from deploying.small_models import small_model
from gpt4image.base.errors import ConfigError, ExportError
from gpt4image.config import ExportConfig
from gpt4image.deploying import applications
from gpt4image.deploying.applications import WebRuntime, web_runtime, write_page
from gpt4image.deploying.export import export
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.preprocessing import as_images

ROWS = "[...document.querySelectorAll('figure:first-child li')].map(e => e.innerText.replace(/\\s+/g, ' ').trim())"


@pytest.fixture(scope="session")
def runtime() -> WebRuntime:
    try:
        return web_runtime(None)
    except ExportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


Opened = Callable[[Path], str]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """A function that serves a folder as `python -m http.server` does, and opens it on a phone."""
    servers: list[http.server.ThreadingHTTPServer] = []

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def open_folder(folder: Path) -> str:
        handler = functools.partial(Silent, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{servers[-1].server_port}/"
        browser.messages.clear()
        browser.screen(360, 740)
        browser.open(address)
        browser.wait_for(f"location.href === '{address}' && document.getElementById('controls')?.hidden === false")
        return address

    yield open_folder
    for server in servers:
        server.shutdown()
        server.server_close()


def choose(browser: Browser, *files: Path) -> list[str]:
    """Choose files in the page, and return the lines about the last one."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    before = browser.read("document.querySelectorAll('figure').length")
    browser.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)
    browser.wait_for(f"document.querySelectorAll('figure').length === {before + len(files)}")
    assert browser.read("document.documentElement.scrollWidth") <= 360
    return browser.read(ROWS)


def coloured(path: Path, *colours: str) -> Path:
    """Write a picture of stripes."""
    picture = Image.new("RGB", (60 * len(colours), 80))
    for number, colour in enumerate(colours):
        picture.paste(colour, (60 * number, 0, 60 * (number + 1), 80))
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("task", "colours", "rows"),
    [
        ("classification", ("blue",), ["blue 100 %", "red 0.0 %", "green 0.0 %"]),
        ("classification", ("black",), ["none of these"]),
        ("multilabel", ("red", "red"), ["red 100 %", "green 0.0 %", "blue 0.0 %"]),
        ("detection", ("black",), ["red 90.0 %", "blue 70.0 %"]),
        ("segmentation", ("red", "blue"), ["red 50.0 %", "blue 50.0 %"]),
    ],
)
def test_a_page_shows_what_the_model_says(
    task: str, colours: tuple[str, ...], rows: list[str], tmp_path: Path, runtime: WebRuntime, browser: Browser,
    opened: Opened
) -> None:  # fmt: skip
    folder = small_model(tmp_path / "page", task, share=0.5 if task == "classification" else None)
    write_page(folder, "<i>Mine</i>", runtime)
    address = opened(folder)
    assert browser.read("document.title") == browser.read("document.querySelector('h1').innerText") == "<i>Mine</i>"
    picture = coloured(tmp_path / "picture.png", *colours)
    assert choose(browser, picture) == rows
    assert browser.read("[...document.querySelectorAll('.present')].map(e => e.innerText.split('\\n')[0])") == (
        ["red"] if task == "multilabel" else []
    )
    at = "document.querySelector('figure canvas').getContext('2d').getImageData(5, 40, 1, 1).data.slice(0, 3).join()"
    drawn = browser.read(at) != ",".join(map(str, np.asarray(Image.open(picture))[40, 5]))
    assert drawn is (task in ("detection", "segmentation")), "boxes and masks are drawn over the picture"
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    assert choose(browser, picture, tmp_path / "notes.txt") == ["notes.txt: is no picture that this browser reads"]
    fetched = browser.read("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith((address, "data:", "blob:")) for name in fetched) and browser.messages == []


def test_a_camera_and_dropped_pictures_are_predicted(
    tmp_path: Path, runtime: WebRuntime, browser: Browser, opened: Opened
) -> None:
    write_page(small_model(tmp_path, "classification"), "colours", runtime)
    opened(tmp_path)
    browser.read("""(() => {
      const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 48});
      window.pen = canvas.getContext("2d");
      window.shown = "lime";
      setInterval(() => { window.pen.fillStyle = window.shown; window.pen.fillRect(0, 0, 64, 48); }, 20);
      navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(30);
    })()""")
    browser.click("#camera")
    browser.wait_for("document.querySelector('#seen li')?.innerText.startsWith('green')")
    browser.read("window.shown = 'red'")
    browser.wait_for("document.querySelector('#seen li').innerText.startsWith('red')")
    assert browser.read("document.documentElement.scrollWidth") <= 360
    browser.click("#camera")
    browser.wait_for("document.getElementById('live').hidden")
    browser.read("""new Promise(done => window.pen.canvas.toBlob(blob => {
      const data = new DataTransfer();
      data.items.add(new File([blob], "dropped.png", {type: "image/png"}));
      document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
      done();
    }))""")
    browser.wait_for(f"{ROWS}[0]?.startsWith('red')")
    browser.read("navigator.mediaDevices.getUserMedia = async () => { throw new Error('no camera here'); }")
    browser.click("#camera")
    browser.wait_for("document.getElementById('said').innerText.includes('no camera here. Choose pictures')")
    assert browser.messages == []


def test_a_page_that_is_opened_as_a_file_says_what_to_do(tmp_path: Path, runtime: WebRuntime, browser: Browser) -> None:
    write_page(small_model(tmp_path, "classification"), "colours", runtime)
    browser.open((tmp_path / "index.html").as_uri())
    browser.wait_for("location.protocol === 'file:' && document.readyState === 'complete'")
    assert "python -m http.server" in browser.read("document.getElementById('start').innerText")


@pytest.mark.slow
def test_the_page_of_a_run_agrees_with_the_run_and_is_small(
    run_of: Callable[[str], Path], tmp_path: Path, runtime: WebRuntime, browser: Browser, opened: Opened
) -> None:
    run, page = run_of("vit-small-stem"), tmp_path / "page"
    outcome = export(ExportConfig(run_dir=run, format="page", out=page))
    assert "python -m http.server" in outcome.needs
    names = {path.name for path in page.iterdir()}
    assert {"README.md", "LICENSE-onnxruntime.txt", "ThirdPartyNotices-onnxruntime.txt", "index.html"} <= names
    assert set(json.loads((page / "manifest.json").read_text())["files"]) == names - {"manifest.json"}
    model = (page / "model.onnx").stat().st_size
    assert sum(path.stat().st_size for path in page.iterdir()) - model < 5e6
    address = opened(page)
    classifier = load_classifier(page)
    for number, file in enumerate(sorted((run.parent / "pictures").rglob("*.png"))[::9]):
        Image.open(file).convert("RGBA").resize((97 + 40 * number, 130)).save(page / f"{number}.webp", lossless=True)
        data = (page / f"{number}.webp").read_bytes()
        found = browser.read(f"""(async () => {{
          const {{ load, pixels }} = await import("{address}model.js");
          window.model ??= await load();
          const blob = await (await fetch("{address}{number}.webp")).blob();
          const found = await window.model.predict(await pixels(blob));
          return Object.fromEntries(found.classes.map(row => [row.name, row.probability]));
        }})()""")
        (expected,) = classifier.probabilities(as_images(classifier.preprocessing.pixels(data)[None]))
        assert [found[name] for name in classifier.classes] == pytest.approx(expected.tolist(), abs=2e-3)


def test_onnxruntime_web_is_taken_only_as_it_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"lacks ort\.wasm.*npm install onnxruntime-web@"):
        web_runtime(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "other.tgz").write_bytes(b"other")
    monkeypatch.setattr(applications, "URL", (tmp_path / "other.tgz").as_uri())
    with pytest.raises(ExportError, match=r"its sha512 differs\. Nothing was kept"):
        web_runtime(None)
    monkeypatch.setattr(applications, "URL", "http://127.0.0.1:9/x.tgz")
    with pytest.raises(ExportError, match=r"cannot be fetched .*network, or .*--onnxruntime-web"):
        web_runtime(None)
    for name in (applications.SCRIPT, applications.WASM):
        (tmp_path / "dist").mkdir(exist_ok=True)
        (tmp_path / "dist" / name).touch()
    assert web_runtime(tmp_path).script.parent == tmp_path / "dist"
    assert not (tmp_path / "cache").exists()
