"""What is put around an exported ONNX file: a web page for any browser, or a server.

The page computes in the browser, by onnxruntime-web, and fetches nothing from elsewhere. That package comes from the
registry of npm, once, in one version whose sha512 is known; only the two files that the page needs are kept. It does
not lie in the wheel of gpt4image: its WebAssembly has 15 MB, and 4 MB compressed, as the page has it.

The server is one file, ``app.py``, of Starlette, onnxruntime and Pillow.
"""

import base64
import gzip
import hashlib
import html
import importlib.metadata
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from gpt4image.base.errors import ConfigError, ExportError
from gpt4image.base.files import atomic_path, write_text
from gpt4image.base.progress import say

PAGE, SERVER = (Path(__file__).with_name(name) for name in ("page", "server"))
VERSION = "1.31.1"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "5GeH+bWQ+HxM10z7erGlsWqryrwMbSvm/1tkIsKTT48g0fI19VXVVC435t4t7VsPdSQeS7NmuZPXrQ73k82URw=="
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SECONDS = 60  # that the registry may be silent


class WebRuntime(NamedTuple):
    """The files of onnxruntime-web that a page needs."""

    script: Path
    wasm: Path


def web_runtime(folder: Path | None) -> WebRuntime:
    """Return onnxruntime-web from ``folder``, the package of npm or its ``dist``; else from the cache or from npm.

    Raises ConfigError: the folder lacks a file. ExportError: npm does not answer, or sends something else.
    """
    if folder is None:
        folder = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"gpt4image/onnxruntime-web-{VERSION}"
        )
        if not all((folder / name).is_file() for name in (SCRIPT, WASM)):
            _fetch(folder)
    for place in (folder, folder / "dist"):
        if all((place / name).is_file() for name in (SCRIPT, WASM)):
            return WebRuntime(place / SCRIPT, place / WASM)
    raise ConfigError(
        f"{folder} lacks {SCRIPT} or {WASM}; give the folder that `npm install onnxruntime-web@{VERSION}` writes: "
        "node_modules/onnxruntime-web.",
        field="onnxruntime_web",
    )


def _fetch(folder: Path) -> None:
    """Put the two files of the pinned version into ``folder``."""
    say(f"Fetching onnxruntime-web {VERSION} from registry.npmjs.org, once (35 MB)")
    digest = hashlib.sha512()
    with tempfile.TemporaryFile() as archive:
        try:
            with urlopen(URL, timeout=SECONDS) as answer:
                while part := answer.read(1 << 20):
                    digest.update(part)
                    archive.write(part)
        except (URLError, OSError) as error:
            raise ExportError(
                f"{URL} cannot be fetched ({getattr(error, 'reason', error)}). Give the command again with network, or "
                f"put the package there by hand (`npm pack onnxruntime-web@{VERSION}`, unpacked) and give its folder: "
                "--onnxruntime-web package."
            ) from None
        if base64.b64encode(digest.digest()).decode() != SHA512:
            raise ExportError(f"{URL} is not the file of that version: its sha512 differs. Nothing was kept.")
        archive.seek(0)
        with tarfile.open(fileobj=archive) as package:
            for name in (SCRIPT, WASM):
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None  # noqa: S101  (the digest is that of an archive that has it)
                with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(member, file)


def write_page(folder: Path, title: str, runtime: WebRuntime) -> None:
    """Put a web page into a folder with ``model.onnx`` and ``model.json``."""
    for name in ("page.js", "model.js", "page.css"):
        shutil.copyfile(PAGE / name, folder / name)
    page = (PAGE / "index.html").read_text(encoding="utf-8").replace("TITLE", html.escape(title))
    write_text(folder / "index.html", page)
    shutil.copyfile(runtime.script, folder / "onnxruntime.mjs")
    (folder / "onnxruntime.wasm.gz").write_bytes(gzip.compress(runtime.wasm.read_bytes(), mtime=0))
    ours = importlib.metadata.distribution("onnxruntime")  # of the same sources as onnxruntime-web
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.copyfile(str(ours.locate_file(f"onnxruntime/{name}")), folder / f"{Path(name).stem}-onnxruntime.txt")


def write_server(folder: Path) -> None:
    """Put a server into a folder with ``model.onnx`` and ``model.json``."""
    for name in ("app.py", "requirements.txt", "Dockerfile"):
        shutil.copyfile(SERVER / name, folder / name)
