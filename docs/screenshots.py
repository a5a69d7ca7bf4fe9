"""Renew the screenshots in docs/images from a finished demo: ``python docs/screenshots.py DEMO``.

They show the packaged photographs and the real numbers of that demo, in headless Chromium, 1280 pixels wide: the first
screen of the report, and the page of `gpt4image review` with the answers of the demo as proposals.
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

IMAGES = Path(__file__).parent / "images"
REPORT, REVIEW = "report.html", "review.png"
HEIGHTS = {"report.png": 1100, REVIEW: 900}
"""In pixels, of each screenshot."""
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
        size = f"--window-size=1280,{HEIGHTS[out.name]}"
        command = [browser, *(f"--{switch}" for switch in switches.split()), size]
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
        words = [
            "--data",
            "clothes-unlabelled",
            "--labels",
            f"{folder}/labels.csv",
            "--answers",
            str(demo / "answers.db"),
        ]
        command = [sys.executable, "-m", "gpt4image", "review", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                lines = iter(server.stderr or ())
                address = next(filter(None, map(ADDRESS.search, lines)))[0]
                screenshot(address, out)
            finally:
                server.terminate()


def main() -> None:
    """Take both screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of `gpt4image demo`")
    demo = parser.parse_args().demo
    if not (demo / REPORT).is_file():
        sys.exit(f"{demo} lacks {REPORT}: run `gpt4image demo --out {demo}` first")
    screenshot((demo / REPORT).resolve().as_uri(), IMAGES / "report.png")
    of_review(demo, IMAGES / REVIEW)
    for picture in HEIGHTS:
        print(f"{IMAGES / picture}: {(IMAGES / picture).stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
