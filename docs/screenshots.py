"""Renew the screenshots in docs/images from a finished demo: ``python docs/screenshots.py DEMO``.

They show the packaged pictures and the real numbers of that demo, in headless Chromium, 1280 pixels wide.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
PAGES = {"report.html": ("report.png", 1800), "text-labels.html": ("label-page.png", 1300)}
"""File and height in pixels of each screenshot, by the page of the demo that it is of."""
COLOURS = 128
"""As many as keep a screenshot of small pictures below 300 kB."""


def screenshot(page: Path, out: Path, height: int) -> None:
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
        command = [browser, *(f"--{switch}" for switch in switches.split()), f"--window-size=1280,{height}"]
        command += [f"--screenshot={shot}", f"--user-data-dir={folder}/profile", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            out.parent.mkdir(exist_ok=True)
            small.save(out, optimize=True)


def main() -> None:
    """Take both screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of `gpt4image demo`")
    demo = parser.parse_args().demo
    if missing := [name for name in PAGES if not (demo / name).is_file()]:
        sys.exit(f"{demo} lacks {', '.join(missing)}: run `gpt4image demo --out {demo}` first")
    for name, (picture, height) in PAGES.items():
        screenshot(demo / name, IMAGES / picture, height)
        print(f"{IMAGES / picture}: {(IMAGES / picture).stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
