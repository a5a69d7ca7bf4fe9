"""Renew docs/images/review.png from a finished demo: ``python docs/scripts/screenshots.py DEMO``.

It shows the page of `gpt4image review` about the packaged photographs, before any is labelled, with the answers of the
demo as proposals, in headless Chromium.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parents[1] / "images" / "review.png"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")
SWITCHES = "headless no-sandbox disable-gpu hide-scrollbars no-first-run disable-background-networking"
LOADING = "virtual-time-budget=15000"
"""Milliseconds that scripts of a page have, in the time of the page."""


def main(demo: Path) -> None:
    """Take the screenshot."""
    answers = demo / "answers.db"
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or not answers.is_file():
        sys.exit(f"needs Chromium (the package chromium) and {answers} (`gpt4image demo --out {demo}`)")
    with tempfile.TemporaryDirectory() as folder:
        words = f"review --data clothes-unlabelled --labels {folder}/labels.csv --answers".split()
        command = [sys.executable, "-m", "gpt4image", *words, str(answers)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                address = next(filter(None, map(ADDRESS.search, server.stderr or ())))[0]
                shot = [LOADING, f"screenshot={folder}/shot.png", f"user-data-dir={folder}/profile"]
                options = [f"--{each}" for each in (*SWITCHES.split(), "window-size=1280,900", *shot)]
                subprocess.run([browser, *options, address], check=True, capture_output=True, timeout=300)
            finally:
                server.terminate()
        with Image.open(f"{folder}/shot.png") as image:  # 256 colours keep it below 300 kB
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
