"""Nothing is paid for before somebody agrees, and nothing twice."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distilling_cases import Photos, good
from gpt4image import cli
from openai_stub import Stub, serve

pytestmark = pytest.mark.usefixtures("openai_settings")


class Terminal(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


def test_nothing_is_asked_or_written_where_nobody_can_agree_to_pay(
    bare: Photos,
    paid: Callable[[Stub], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with serve(good) as stub:
        assert cli.main([*paid(stub), "--out", str(out)]) == cli.USER_MISTAKE
        told = capsys.readouterr().err
        assert "36 images may cost money" in told
        command = told.strip().splitlines()[-1].strip()
        assert command.startswith(f"gpt4image distill {bare.folder} --describer openai:tiny --base-url {stub.url}")
        assert "--max-cost 5" in command and "--epochs 2" in command
    assert stub.count == 0 and not out.exists()


def test_the_answer_at_a_terminal_or_a_limit_decides_and_nothing_is_paid_for_twice(
    paid: Callable[[Stub], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with serve(good) as stub:
        words = [*paid(stub), "--out", str(out), "--max-tokens", "20", "--json"]
        for said in ("n\n", ""):  # also where the input ends
            monkeypatch.setattr(sys, "stdin", Terminal(said))
            assert cli.main(words) == cli.INTERRUPTED
            told = capsys.readouterr().err
            assert "The rest: 28 requests" in told and "$0.01" in told and "Go on? [y/N]" in told
            assert "Give the same command again" in told
        assert stub.count == 8, "the sample is kept"
        assert cli.main([*words, "--max-cost", "0.0030"]) == cli.OK
        first = json.loads(capsys.readouterr().out)
        assert 8 < first["answered"] < 36 and first["without_answer"] and first["cost_usd"] <= 0.003
        assert stub.count == first["answered"] and "max-cost 0.003" in first["stages"]["describe"]["stopped_by"]
        monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
        assert cli.main(words) == cli.OK
        told = capsys.readouterr()
        second = json.loads(told.out)
    assert "Go on? [y/N]" in told.err
    assert stub.count == second["answered"] == 36 and "without_answer" not in second
    assert second["cost_usd"] < 0.0056, "of this run; the others were paid for before"
    assert (out / "model").is_dir() and (out / "earlier-1" / "run").is_dir()
