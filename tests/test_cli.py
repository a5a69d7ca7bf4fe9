"""The command line as a user meets it: by its output and exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gpt4image.cli import COMMANDS, main


def called(*words: str) -> int | str | None:
    """Return the exit code of a command that runs in this process."""
    try:
        return main(words)
    except SystemExit as ended:  # of the parser
        return ended.code


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from gpt4image.cli import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'timm', 'pydantic', 'PIL', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(command in result.stdout for command in COMMANDS)


def test_the_help_of_every_command_has_its_options_and_an_example_and_needs_no_torch() -> None:
    code = (
        "import sys; from gpt4image.cli import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    try: main([*command.split(), '--help'])\n"
        "    except SystemExit as ended: assert not ended.code, command\n"
        "sys.exit('torch' if 'torch' in sys.modules else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert [command for command in COMMANDS if f"Example: gpt4image {command} " not in shown] == []


WRONG_PATHS = """
train --data gone --out new
train --data folder:gone --out new
train --data coco:gone.json --out new
train --data photos --embeddings gone.emb --out new
train --data photos --targets gone.parquet --out new
train --data photos --self-train gone --out new
train --dta photos --out new
evaluate gone
evaluate photos
compare --data gone --out new
compare --data photos --answers gone.db --out new
report gone
export gone --format timm --out new
predict gone photos
predict model.onnx photos
search gone cat --data photos
distill gone --describer openai:m --classes cat,dog
describe --data gone --store new.db --describer openai:m
describe --data photos --store new.db --describer replay:gone.jsonl
descriptions import gone.jsonl --store new.db --data photos
descriptions export new.jsonl --store gone.db
descriptions stats --store gone.db
descriptions check --store gone.db --data photos
descriptions view --store gone.db --data photos
encode --store gone.db --encoder minilm --out new.emb
label --data gone --embeddings gone.emb --out new.parquet
label --data photos --embeddings gone.emb --out new.parquet
export-labels --data gone --targets gone.parquet --format csv --out new.csv
audit --data gone --targets gone.parquet
audit --data photos --model gone
discover --data photos --embeddings gone.emb
review --data gone --labels new.csv
review --data photos --labels new.csv --answers gone.db
doctor gone
"""
WITHOUT_INPUTS = {"demo"}


def test_a_wrong_path_is_told_before_torch_is_loaded_by_every_command(tmp_path: Path) -> None:
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), colour).save(tmp_path / "photos" / name / "1.png")
    lines = WRONG_PATHS.strip().splitlines()
    assert {name for name in COMMANDS if not any(line.startswith(name) for line in lines)} == WITHOUT_INPUTS
    code = (
        "import sys; from gpt4image.cli import main\n"
        "for line in sys.argv[1].strip().splitlines():\n"
        "    print(line, '->', main(line.split()), 'torch' if 'torch' in sys.modules else '')"
    )
    told = subprocess.run([sys.executable, "-c", code, WRONG_PATHS], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.splitlines() == [f"{line} -> 2 " for line in lines], told.stderr
    assert len(told.stderr.splitlines()) == len(lines), "one line each"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"], "nothing is left behind"


def test_json_output_is_one_object_and_set_aside_items_give_exit_code_1(
    colour_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (colour_folder / "red" / "broken.png").write_bytes(b"no picture")
    options = ["--epochs", "1", "--batch-size", "8", "--image-size", "16", "--test-fraction", "0"]
    options += ["--precision", "fp32", "--memory-format", "contiguous"]
    assert called("train", "--data", f"folder:{colour_folder}", "--out", str(tmp_path / "run"), *options, "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in answer["skipped"]] == ["red/broken.png"]
    assert answer["path"] == str(tmp_path / "run")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command whose stage raises an error, and return the exit code."""

    def run_failing(error: BaseException, *words: str) -> int:
        def stage(_config: object) -> None:
            raise error

        name = next(name for name in COMMANDS if " ".join(words).startswith(name))
        monkeypatch.setitem(sys.modules, "gpt4image.failing", types.SimpleNamespace(stage=stage))  # type: ignore[arg-type]
        monkeypatch.setitem(COMMANDS, name, replace(COMMANDS[name], stage="failing:stage"))
        return main(words)

    return run_failing


@pytest.mark.parametrize(
    ("error", "code", "parts"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/archive/page.html"), 2,
         ["Error: /archive/page.html: Read-only file system; choose a place that can be read or written.\n"]),
        (OSError(errno.ENOSPC, "No space left on device"), 2, ["Error: No space left on device; choose a place"]),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but unallocated"), 2,
         ["Error: the GPU has too little memory (CUDA out of memory. Tried to allocate 2.00 GiB).", "--batch-size"]),
        (ZeroDivisionError("a bug"), 70, ["ZeroDivisionError: a bug", "\nThis is a bug of gpt4image"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_error_of_a_stage_has_its_exit_code_and_only_a_bug_a_traceback(
    error: Exception, code: int, parts: list[str], failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error, "demo") == code
    shown = capsys.readouterr().err
    assert all(part in shown for part in parts) and ("Traceback" in shown) is (code == 70)


def test_what_a_file_is_called_does_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "a\x1b[2J\u202eb")]) == 2
    said = capsys.readouterr().err
    assert r"a\x1b[2J\u202eb" in said and "\x1b" not in said and "\u202e" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
@pytest.mark.parametrize("words", ["--version", "train --help"])
def test_output_that_cannot_be_written_is_a_plain_error(words: str) -> None:
    code = f"{sys.executable} -m gpt4image {words} >/dev/full"
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert "No space left on device" in result.stderr and "Traceback" not in result.stderr


KEPT = "what was finished is kept. Give the same command again"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--data", "openmoji", "--out", "run"], f"{KEPT} with --resume to go on."),
        (["train", "--data", "openmoji", "--out", "run", "--resume"], f"{KEPT} to go on."),
        (
            ["descriptions", "stats", "--store", "s.db"],
            "no partial file is left. Give the same command again to start over.",
        ),
    ],
)
def test_what_was_interrupted_goes_on_by_the_command_that_is_named(
    words: list[str], said: str, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(KeyboardInterrupt(), *words) == 130
    assert capsys.readouterr().err == f"Interrupted; {said}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a POSIX shell")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = f"{sys.executable} -m gpt4image train --help | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_letters_that_the_terminal_has_not_are_escaped() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gpt4image", "\u732b"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert result.returncode == 2 and rb"\u732b" in result.stderr
    code = "import sys; from gpt4image.cli import main; main(['--version']); print('\\u732b')"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert result.returncode == 0 and result.stdout.endswith(b"\\u732b\n"), result.stderr
