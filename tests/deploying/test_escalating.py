"""The images that a model is least sure of get the answer of a describer, which is kept and not paid for twice."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt4image
from distilling_cases import TINY, Paid, bare, good, paid, photos
from gpt4image import cli
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.deploying.escalating import forecast
from openai_cases import openai_settings
from openai_stub import serve
from worlds import COLOURS, noisy

__all__ = ["bare", "openai_settings", "paid", "photos"]


def test_the_least_sure_images_are_asked_about_and_their_answers_stay_beside_the_model(
    photos: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given, rng = photos(12), np.random.default_rng(7)
    (tmp_path / "new").mkdir()
    lines = [given.answers.read_text(encoding="utf-8")]
    for name, colour in COLOURS.items():
        for number in range(5):
            noisy(colour, rng).save(tmp_path / "new" / f"new-{name}{number}.png")
            lines.append(
                json.dumps({"key": f"new/new-{name}{number}.png", "class": name if number else None, "confidence": 0.8})
            )
    given.answers.write_text("\n".join(lines), encoding="utf-8")
    gpt4image.distill(data="photos", describer=given.replay, out=Path("model"), **TINY)
    options: dict[str, Any] = {"model": "model/model", "images": "new", "ask_when_unsure": given.replay}
    made = gpt4image.predict(**options, ask_share=1.0, out="rows.csv")
    told = capsys.readouterr().err
    assert "Asking about the 15 least sure of 15 images is expected to give about 70 to 90 % right" in told
    assert made.predicted == 15 and made.asked == 15 and made.none_of_these in (3, None)
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    colours = {Path(row["image"]).stem.removeprefix("new-"): row["class"] for row in rows}
    assert all(name[:-1] == said for name, said in colours.items() if name[-1] != "0")
    assert {said for name, said in colours.items() if name[-1] == "0"} == {"none of these"}
    with DescriptionStore(Path("model/answers.db")) as store:
        assert len({item.digest for item in store.answers()}) > 15 and store.dataset == "photos"
    few = gpt4image.predict(**options, ask_share=0.2)
    assert few.asked == 3 and "0 requests" in capsys.readouterr().err and sum(row["asked"] for row in few.rows) == 3
    with pytest.raises(ConfigError, match="store is needed"):
        options["model"] = Path("model/model").rename("elsewhere")
        gpt4image.predict(**options)


def test_the_forecast_adds_what_is_sure_and_what_is_asked(tmp_path: Path) -> None:
    with DescriptionStore(tmp_path / "s.db", write=True):
        pass
    sure = np.array([0.9, 0.9, 0.9, 0.5])
    said = forecast(sure, np.array([3]), tmp_path / "s.db")
    assert "the 1 least sure of 4 images is expected to give about 89 to 91 % right (now 80 %)" in said


@pytest.mark.usefixtures("openai_settings")
def test_the_server_of_the_model_is_asked_as_then_and_improve_pays_for_no_answer_again(
    paid: Paid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(7)
    (tmp_path / "new").mkdir()
    for name, colour in COLOURS.items():
        for number in range(4):
            noisy(colour, rng).save(tmp_path / "new" / f"{name}{number}.png")
    with serve(good) as stub:
        words = paid(stub)
        words[words.index("blue, green, red")] = "blue\ngreen\nred: like blood, say\n"
        assert cli.main([*words, "--out", "model", "--yes", "--max-side", "64"]) == 0
        before = stub.count
        assert (
            cli.main(["predict", "model/model", "new", "--ask-when-unsure", "openai:tiny", "--ask-share", "0.5"]) == 2
        )
        assert "--max-cost is needed" in capsys.readouterr().err and stub.count == before
        limit = ["--max-cost", "5"]
        asked = ["--ask-when-unsure", "openai:tiny", "--ask-share", "0.5", "--out", "rows.csv"]
        assert cli.main(["predict", "model/model", "new", *asked, *limit]) == 0 and stub.count == before + 6
        assert "like blood" in stub.calls[-1].content.decode()
        assert cli.main(["improve", "model", "new", "--ask", "9", "--looks", "3", "--force", *limit]) == 0
        assert stub.count == before + 12, "six of the twelve have an answer"
