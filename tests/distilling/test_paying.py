"""Nothing is paid for before somebody agrees, and nothing twice."""

import io
import json
import sys
from pathlib import Path

import pytest

import gpt4image.distilling.distill
from distilling_cases import Paid, Photos, colour_of, good
from gpt4image import cli
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.outcome import Outcome
from gpt4image.config import TrainConfig
from gpt4image.training.train import train
from openai_stub import Call, Reply, answer, failure, serve

pytestmark = pytest.mark.usefixtures("openai_settings")


class Terminal(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


def test_nothing_is_asked_or_written_where_nobody_can_agree_to_pay(
    bare: Photos, paid: Paid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    paid: Paid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
        assert stub.count == first["answered"] and first["stages"]["describe"]["stopped_by"] == "max_cost"
        monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
        assert cli.main(words) == cli.OK
        told = capsys.readouterr()
        second = json.loads(told.out)
    assert "Go on? [y/N]" in told.err
    assert stub.count == second["answered"] == 36 and "without_answer" not in second
    assert second["cost_usd"] == pytest.approx(36 * 0.0002) and second["cost_usd_earlier"] == first["cost_usd"]
    assert (out / "model").is_dir() and (out / "earlier-1" / "run").is_dir()


def test_what_was_left_unanswered_is_asked_again_only_when_told_and_the_run_is_kept(
    paid: Paid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server fails for three images; then training is interrupted."""
    out, bad = tmp_path / "out", set[bytes]()

    def fails(call: Call) -> Reply:
        if call.image in bad or (len(bad) < 3 and colour_of(call) == "red"):
            bad.add(call.image)
            return failure(400, "no")
        return good(call)

    def interrupted(config: TrainConfig) -> Outcome:
        train(config)
        raise KeyboardInterrupt

    with serve(fails) as stub:
        words = [*paid(stub), "--out", str(out), "--max-cost", "1", "--json"]
        with monkeypatch.context() as patch:
            patch.setattr(gpt4image.distilling.distill, "train", interrupted)
            assert cli.main(words) == cli.INTERRUPTED
        asked, begun = stub.count, (out / "run" / "config.json").stat().st_ino
        bad.clear()
        assert cli.main([*words, "--max-cost", "0.5"]) == cli.ITEMS_SKIPPED
        facts = json.loads(capsys.readouterr().out)
        assert stub.count == asked and facts["without_answer"] == 3
        assert (out / "run" / "config.json").stat().st_ino == begun and not (out / "earlier-1").exists()
        stub.handler = good
        assert cli.main([*words, "--ask-again"]) == cli.OK
        assert stub.count == asked + 3 and "without_answer" not in json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_class_that_was_forgotten_is_added_without_paying_for_all_again(
    paid: Paid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def offered(call: Call) -> Reply:
        known = colour_of(call) if f"- {colour_of(call)}" in call.content.decode("latin-1") else "none of these"
        said = {"description": f"A {colour_of(call)} sheet.", "class": known, "second": None, "confidence": 0.95}
        asked = (
            said
            if "description" in call.body["response_format"]["json_schema"]["schema"]["properties"]
            else {name: said[name] for name in ("class", "second", "confidence")}
        )
        return answer(json.dumps(asked))

    with serve(offered) as stub:
        words = [*paid(stub), "--out", str(out), "--max-cost", "1", "--json", "--classes"]
        assert cli.main([*words, "blue, green"]) == cli.OK
        assert cli.main([*words, "blue, green, red"]) == cli.OK
    told = capsys.readouterr()
    assert stub.count == 36 + 12 and "12 may be of an added class and are asked again" in " ".join(told.err.split())
    with DescriptionStore(out / "answers.db") as store:
        latest = {item.digest: item.answer.class_name for item in store.answers() if len(item.classes) == 3}
    assert len(latest) == 12 and set(latest.values()) == {"red"}


def test_a_second_describer_is_agreed_to_and_paid_once(
    paid: Paid, bare: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with serve(good) as stub:
        words = [*paid(stub), "--out", str(tmp_path / "out"), "--json", "--describer", bare.replay]
        assert cli.main([*words, "--second-describer", "openai:tiny"]) == cli.USER_MISTAKE
        assert "may cost money" in capsys.readouterr().err and stub.count == 0
        for _ in range(2):
            assert cli.main([*words, "--second-describer", "openai:tiny", "--max-cost", "1"]) == cli.OK
            facts = json.loads(capsys.readouterr().out)
            found = facts["stages"]["describe"]["details"]
            assert stub.count == found["second_answered"] == 36, "fewer images than the pilot has"
            assert facts["cost_usd"] == pytest.approx(36 * 0.0002)
