"""The command line as a user meets it: by its output and exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt4image.cli import COMMANDS, main


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gpt4image", *words], capture_output=True, text=True, cwd=cwd)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["descriptions", "imprt"], "Did you mean 'descriptions import'"),
        (["train", "--data", "folder:missing", "--out", "run"], "missing"),
        (["train", "--data", "folders:x", "--out", "run"], "Did you mean 'folder'"),
        (["train", "--data", "folder:x", "--out", "run", "--lr", "-1"], "--lr = -1"),
        (["train", "--data", "folder:x", "--out", "run", "--oops"], "--oops"),
        (["train", "missing.toml", "--out", "run"], "missing.toml does not exist"),
        (["evaluate", "missing"], "missing does not exist"),
        (["report", "missing"], "missing"),
        (["encode", "--store", "missing.db", "--out", "e"], "missing.db"),
        (["compare", "--data", "openmoji", "--out", "c", "--embeddings", "missing"], "missing"),
        (["compare", "--data", "openmoji", "--out", "c", "--text-labels", "t.parquet"], "an arm must not see"),
        (["descriptions", "stats", "--store", "missing.db"], "missing.db"),
    ],
)
def test_a_mistake_gives_one_message_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called(*words) == 2
    said = capsys.readouterr()
    assert message in said.err + said.out
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == [], "nothing is left behind by a mistake"


def test_a_mistake_ends_the_process_with_its_message_and_no_traceback(tmp_path: Path) -> None:
    result = run("train", "--data", "folder:missing", "--out", "run", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ") and "missing" in result.stderr and "Traceback" not in result.stderr


def test_json_output_is_one_object_and_set_aside_items_give_exit_code_1(colour_folder: Path, tmp_path: Path) -> None:
    (colour_folder / "red" / "broken.png").write_bytes(b"no picture")
    options = ["--epochs", "1", "--batch-size", "8", "--image-size", "16", "--test-fraction", "0"]
    result = run("train", "--data", f"folder:{colour_folder}", "--out", str(tmp_path / "run"), *options, "--json")
    assert result.returncode == 1, result.stderr
    answer = json.loads(result.stdout)
    assert [item["name"] for item in answer["set_aside"]] == ["red/broken.png"]
    assert answer["path"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ((errno.EROFS, "Read-only file system", "/archive/page.html"), "/archive/page.html: Read-only file system"),
        ((errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_without_a_traceback(
    error: tuple[int | str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_config: object) -> None:
        raise OSError(*error)

    monkeypatch.setitem(sys.modules, "gpt4image.refusing", types.SimpleNamespace(stage=refuse))  # type: ignore[arg-type]
    monkeypatch.setitem(COMMANDS, "report", replace(COMMANDS["report"], stage="refusing:stage"))
    assert main(["report", "x"]) == 2
    assert capsys.readouterr().err == f"Error: {said}; choose a place that can be read or written.\n"


def test_a_gpu_without_room_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_config: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but unallocated")

    monkeypatch.setitem(sys.modules, "gpt4image.refusing", types.SimpleNamespace(stage=refuse))  # type: ignore[arg-type]
    monkeypatch.setitem(COMMANDS, "report", replace(COMMANDS["report"], stage="refusing:stage"))
    assert main(["report", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: the GPU has too little memory (CUDA out of memory. Tried to allocate 2.00 GiB).")
    assert "--batch-size" in said and "Traceback" not in said


def test_a_bug_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(_config: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(sys.modules, "gpt4image.crashing", types.SimpleNamespace(stage=crash))  # type: ignore[arg-type]
    monkeypatch.setitem(COMMANDS, "report", replace(COMMANDS["report"], stage="crashing:stage"))
    assert main(["report", "x"]) == 70
    said = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in said and said.splitlines()[-1].startswith("This is a bug of gpt4image")


def test_what_a_file_is_called_does_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "a\x1b[2J\u202eb")]) == 2
    said = capsys.readouterr().err
    assert r"a\x1b[2J\u202eb" in said and "\x1b" not in said and "\u202e" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "predict --help"])
def test_output_that_cannot_be_written_is_a_plain_error(words: str) -> None:
    code = f"{sys.executable} -m gpt4image {words} >/dev/full"
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert "No space left on device" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="streams of a POSIX shell")
def test_a_closed_output_is_a_plain_error(tmp_path: Path) -> None:
    for words in ("predict run photos", "--help"):
        code = f"{sys.executable} -m gpt4image {words} >&-"
        result = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert result.stderr.startswith("Error: standard output is closed")
    code = f"{sys.executable} -m gpt4image trian 2>&- <&-"
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, ""), "errors do not go among the output"


KEPT = "what was finished is kept. Give the same command again"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--data", "folder:x", "--out", "run"], f"{KEPT} with --resume to go on."),
        (["train", "--data", "folder:x", "--out", "run", "--resume"], f"{KEPT} to go on."),
        (["descriptions", "stats", "--store", "s.db"], "no half of a file is left. The same command begins anew."),
    ],
)
def test_what_was_interrupted_goes_on_by_the_command_that_is_named(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "gpt4image.waiting", types.SimpleNamespace(stage=interrupted))  # type: ignore[arg-type]
    for name in ("train", "descriptions stats"):
        monkeypatch.setitem(COMMANDS, name, replace(COMMANDS[name], stage="waiting:stage"))
    assert main(words) == 130
    assert capsys.readouterr().err == f"Interrupted; {said}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a POSIX shell")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = f"{sys.executable} -m gpt4image train --help | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_letters_that_the_terminal_has_not_are_escaped(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gpt4image", "train", "--data", "folder:\u732b", "--out", str(tmp_path / "run")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert result.returncode == 2 and rb"\u732b" in result.stderr
    code = "import sys; from gpt4image.cli import main; main(['--version']); print('\\u732b')"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert result.returncode == 0 and result.stdout.endswith(b"\\u732b\n"), result.stderr
