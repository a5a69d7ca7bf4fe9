"""A model and new pictures: looked at, asked about, learned from, compared, taken over or not; the line of models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt4image
from distilling_cases import TINY, photos
from gpt4image import cli
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, RunError
from gpt4image.base.files import read_json
from gpt4image.base.locks import acquire_lock
from gpt4image.config.results import ImproveResult
from gpt4image.data import load_dataset
from gpt4image.improving.compared import against
from gpt4image.improving.line import Compared, next_folder
from gpt4image.selecting.drift import drift, shares
from worlds import COLOURS, noisy

__all__ = ["photos"]
EACH = 12  # new pictures of each colour


@pytest.fixture
def world(photos: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of two colours, new pictures of three, one of them known and one broken; return the describer."""
    monkeypatch.chdir(tmp_path)
    given, rng = photos(12), np.random.default_rng(5)
    new, lines = tmp_path / "new", [given.answers.read_text(encoding="utf-8")]
    shutil.rmtree(given.folder / "red")
    new.mkdir()
    for name, colour in COLOURS.items():
        for number in range(EACH):
            noisy(colour, rng).save(new / f"new-{name}{number:02}.png")
            lines.append(json.dumps({"key": f"new-{name}{number:02}.png", "class": name, "confidence": 0.9}))
    shutil.copy(next((given.folder / "blue").iterdir()), new / "old.png")
    (new / "broken.png").write_bytes(b"\x89PNG nothing")
    given.answers.write_text("\n".join(lines), encoding="utf-8")
    gpt4image.distill(data="photos", describer=given.replay, out=Path("model"), **TINY)
    return given.replay


def improved(**more: Any) -> ImproveResult:
    given: dict[str, Any] = {"run": "model", "new": "new", "classes": ["blue", "green", "red"], "force": True}
    return gpt4image.improve(**given | more)


def answered(store: Path) -> set[str]:
    with DescriptionStore(store) as opened:
        return {one.digest for one in opened.descriptions()}


def test_new_pictures_become_a_report_a_few_questions_and_a_model_that_names_its_parent(
    world: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = improved(looks=8, ask=10)
    assert (made.path, made.new_images, made.known_images) == (Path("model-2"), 3 * EACH, 1)
    assert (made.looks, made.asked, made.taken_over) == (8, 10, True)
    assert [(one.name, one.reason) for one in made.skipped] == [("broken.png", "cannot be decoded")]
    old, new = load_dataset("photos"), load_dataset("new")
    assert len((answered(made.path / "answers.db") - {*old.digests}) & {*new.digests}) == 18, "and nobody else"
    assert not answered(Path("model/answers.db")) & {*new.digests} - {*old.digests}, "the parent stays as it was"
    both = load_dataset("joined:model-2/images.parquet")
    is_new = ~np.isin(both.digests, old.digests)
    assert len(both) == len(old) + 3 * EACH and (both.splits[is_new] == "test").sum() == 8
    assert Targets.load(made.path / "targets.parquet").classes == ("blue", "green", "red")
    assert made.compared["new"]["images"] == 8 and made.compared["new"]["by_people"] == 0
    assert made.compared["old"]["images"] == made.compared["old"]["by_people"] > 0
    page = (made.path / "improve.html").read_text(encoding="utf-8")
    assert "Is the new model better?" in page and "What is new" in page and 'src="data:image/webp' in page
    before = {path: path.read_bytes() for path in made.path.rglob("*.safetensors")}
    again = improved(looks=8, ask=10)
    assert again.compared == made.compared and before == {path: path.read_bytes() for path in before}
    assert capsys.readouterr().err.count("as before") >= 5
    shown = gpt4image.history(run="model-2")
    assert [row["model"] for row in shown.rows] == ["model", "model-2"]
    assert shown.rows[1]["asked"] == 18 and shown.rows[1]["new"] == made.compared["new"]["difference"]
    assert improved(run="model-2").new_images == 0, "all are known to a model that has learned from them"


def test_what_cannot_be_improved_is_named_before_long_work(world: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    exported = tmp_path / "exported"
    shutil.copytree("model/model", exported)
    (tmp_path / "sorted" / "2026-05").mkdir(parents=True)
    shutil.copy("new/new-red00.png", tmp_path / "sorted" / "2026-05")
    cases: list[tuple[type[Gpt4ImageError], str, dict[str, Any]]] = [
        (RunError, "exported model.*Give the folder that `gpt4image distill` made", {"run": exported}),
        (RunError, "does not exist", {"run": "nowhere"}),
        (DataError, "no images|holds no|without images", {"new": tmp_path / "empty"}),
        (ConfigError, r"'2026-05' is no class.*put the images into one folder", {"new": tmp_path / "sorted"}),
        (ConfigError, "lacks 'green'", {"classes": ["blue", "red"]}),
    ]
    for kind, says, options in cases:
        with pytest.raises(kind, match=says):
            improved(**options)
    assert not Path("model-2").exists()
    lock = acquire_lock(tmp_path / "busy" / ".lock", 1.0, RuntimeError) if (tmp_path / "busy").mkdir() is None else None
    assert lock is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gpt4image.artifacts.runs.PATIENCE", 0.1)
        with pytest.raises(RunError, match="wait until it is done"):
            improved(out=tmp_path / "busy")
    lock.release()


def test_one_new_picture_is_enough(world: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy("new/new-blue00.png", tmp_path / "one" / "new-blue00.png")
    made = improved(new=tmp_path / "one", classes=None)
    assert (made.new_images, made.looks, made.asked) == (1, 0, 1) and "new" not in made.compared


def test_a_model_that_is_worse_is_not_taken_over_and_the_next_one_begins_before_it(
    world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4image.improving.improve.against", lambda *_: "it is 9.0 points worse")
    assert cli.main(["improve", "model", "new", "--looks", "8", "--classes", "blue,green,red"]) == 1, "one is broken"
    record = read_json(Path("model-2/improved.json"))
    assert record["taken_over"] is False and record["parent"] == "model" and not Path("model-2/model").exists()
    with pytest.raises(RunError, match=r"was not taken over, as it is 9\.0 points worse\. Improve model"):
        improved(run="model-2", force=False)
    made = improved(looks=8)
    assert made.taken_over and Path("model-2/model").exists(), "--force takes the same one over"


def test_only_a_loss_beyond_the_margin_on_enough_images_counts_against_a_model() -> None:
    def one(difference: float, images: int) -> dict[str, Compared]:
        return {"old": Compared(images=images, by_people=0, before=0.5, after=0.5, difference=difference, ci95=(0, 0))}

    assert not against(one(-0.02, 100), 0.02) and not against(one(0.1, 100), 0.02)
    assert "3.0 points worse on 100 old test images" in against(one(-0.03, 100), 0.02)
    assert not against(one(-0.5, 19), 0.02), "one image moves it too far"
    assert [next_folder(Path(name)).name for name in ("a", "a-2", "b-9")] == ["a-2", "a-3", "b-10"]


def test_drift_is_found_where_it_is_and_seldom_where_it_is_not() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(200, 16))
    moved = drift(before, rng.normal(size=(100, 16)) + 0.5)
    assert moved is not None and moved.p == 0.001 and moved.auc > 0.7
    p_values = [found.p for seed in range(20) if (found := drift(before, rng.normal(size=(100, 16)), seed))]
    assert len(p_values) == 20 and sum(p < 0.05 for p in p_values) <= 4
    assert drift(before, before[:5]) is None


def test_shares_of_classes_are_compared_with_a_correction_for_their_number() -> None:
    then, now = np.repeat([0, 1, 2], [50, 49, 1]), np.repeat([0, 1, 2], [50, 30, 20])
    found = shares(["a", "b", "c"], then, now)
    assert [one.now for one in found] == [0.5, 0.3, 0.2] and found[0].p == 1.0
    assert found[2].p < 1e-4 < found[1].p < 0.05 and found[2].then_ci95[1] < found[2].now_ci95[0]
