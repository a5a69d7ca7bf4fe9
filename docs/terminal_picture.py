"""Draw docs/images/terminal.svg: what commands of the tutorial print, run anew in an empty folder.

python docs/terminal_picture.py    takes some minutes, and needs the extra demo
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

DOCS = Path(__file__).resolve().parent
WIDTH = 92
DATA = "--data folder:pictures"
COMMANDS = {
    f"describe {DATA} --store pictures.db --describer replay:pictures.jsonl": False,
    "encode --store pictures.db --out pictures.emb": False,
    f"label {DATA} --embeddings pictures.emb --out text-labels.parquet": True,
    f"train {DATA} --text-labels text-labels.parquet --epochs 20 --out run": False,
    "evaluate run": True,
}
"""Commands in their order, and whether the picture shows them."""


def printed(command: str, folder: Path) -> str:
    """Run a command of gpt4image in a folder and return what it printed."""
    environment = os.environ | {"COLUMNS": str(WIDTH), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "gpt4image", *shlex.split(command)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.rstrip()


def main() -> None:
    """Run the commands and write the picture."""
    tutorial = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    pictures = re.findall(r"^```python\n(.*?)^```", tutorial, re.MULTILINE | re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as nowhere:
        folder, console = Path(name), Console(record=True, width=WIDTH, file=nowhere)
        subprocess.run([sys.executable, "-c", pictures], cwd=folder, check=True)
        for command, shown in COMMANDS.items():
            output = printed(command, folder)
            if shown:
                console.print(Text.assemble(("$ ", "bold green"), (f"gpt4image {command}", "bold")), soft_wrap=False)
                console.print(Text(f"{output}\n"))
        svg = console.export_svg(title="gpt4image", theme=MONOKAI, unique_id="gpt4image")
    # Fonts are those of the reader: nothing is loaded from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\n*", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
    (DOCS / "images" / "terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
