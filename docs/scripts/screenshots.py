"""Renew docs/images/review.png from a finished demo: ``python docs/scripts/screenshots.py DEMO``.

It shows the page of `gpt4image review` about the packaged photographs, with the answers of the demo as proposals, in
headless Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parents[1] / "images" / "review.png"
ANSWERS = "answers.db"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")
LOADING = 15_000
"""Milliseconds that scripts of a page have, in the time of the page."""
COLOURS = 256
"""As many as keep a screenshot of small pictures below 300 kB."""


def screenshot(address: str, out: Path) -> None:
    """Write a picture of the top of a page.

    Raises:
        FileNotFoundError: there is no Chromium on this machine.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise FileNotFoundError("no Chromium on this machine: install the package chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        switches = "headless no-sandbox disable-gpu hide-scrollbars no-first-run disable-background-networking"
        command = [browser, *(f"--{switch}" for switch in switches.split()), "--window-size=1280,900"]
        command += [
            f"--virtual-time-budget={LOADING}",
            f"--screenshot={shot}",
            f"--user-data-dir={folder}/profile",
            address,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with Image.open(shot) as image:
            small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            out.parent.mkdir(exist_ok=True)
            small.save(out, optimize=True)


def of_review(demo: Path, out: Path) -> None:
    """Write a picture of the page of `gpt4image review` about the packaged photographs, before any is labelled."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--data", "clothes-unlabelled", "--labels", f"{folder}/labels.csv", "--answers", str(demo / ANSWERS)]
        command = [sys.executable, "-m", "gpt4image", "review", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                lines = iter(server.stderr or ())
                address = next(filter(None, map(ADDRESS.search, lines)))[0]
                screenshot(address, out)
            finally:
                server.terminate()


def main() -> None:
    """Take the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of `gpt4image demo`")
    demo = parser.parse_args().demo
    if not (demo / ANSWERS).is_file():
        sys.exit(f"{demo} lacks {ANSWERS}: run `gpt4image demo --out {demo}` first")
    of_review(demo, PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
