import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import SCHEMES, fits
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.config import ReportConfig
from gpt4image.reporting.report import report
from synthetic_records import comparison_record, data_url, descriptions, examples, write_comparison, write_run
from trained_runs import rewrite_config

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\n`{{ 7*7 }}` \x00"


def write_report(folder: Path) -> Path:
    path = report(ReportConfig(dir=folder)).path
    assert path == folder / "report.html"
    return path


class Elements(HTMLParser):
    """Collects elements, ids and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def words(page: str) -> str:
    return " ".join("".join(Elements(page).text).split())


def full_record() -> dict[str, Any]:
    """Return a record of two comparisons, as the demo writes it."""
    few = comparison_record()
    every = comparison_record(means={"baseline": 0.602, "aligned": 0.609, "text-labels": 0.611})
    every |= {"question": "And with all labels?", "data": every["data"] | {"labels_per_class": None, "labelled": 1007}}
    for arm in every["arms"].values():
        arm["runs"] = [run.replace("runs/", "all/") for run in arm["runs"]]
    return {**few, "comparisons": {"5 labels a category": few, "all labels": every}}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The report of a comparison with every optional file."""
    folder = write_comparison(tmp_path_factory.mktemp("comparison"), full_record())
    pictures = examples(6)
    write_json(folder / "examples.json", pictures)
    doubts = [{"key": p["key"], "picture": p["picture"], "given": "flag", "text": "sign"} for p in pictures]
    write_json(folder / "doubtful-labels.json", [doubt | {"probability": 0.93} for doubt in doubts])
    write_json(folder / "descriptions.json", descriptions())
    return report(ReportConfig(dir=folder))


@pytest.fixture(scope="module")
def page(outcome: Outcome) -> str:
    return outcome.path.read_text(encoding="utf-8")


def test_the_page_answers_first_and_then_shows_why(page: str) -> None:
    text = words(page)
    places = [
        text.index(part)
        for part in (
            "What do descriptions buy with 5 labels a category?",
            "With 5 labels per class, text labels raised test accuracy from 35.1 % to 49.4 % (+14.3 points",
            "1,600 descriptions; 1,240,000 tokens in, 72,000 out; $0.61",
            " together, on cpu",
            "Dashed line with a grey band: mean and interval of oracle; control and reference arms are bounds",
            "Points over baseline",
            "48.6 49.1 50.6",
            "How the numbers were measured",
            "p, seeds only",
            "validation score after it",
            "the text arm with the best mean",
            "n: number of test pictures of the class, where it is below 30.",
            "predicted as another class, summed over seeds",
            "With all 1,007 training images labelled, text labels made no significant difference",
            "What was done, and at what cost Pictures1,549, 1,524 of them described",
            "minilm: 384 numbers per text; 1.2 % are longer than 256 tokens and pooled from chunks",
            "A random sample, drawn across classes.",
            "Held-out pictures and their predictions",
            "Suspected label errors The description",
            "with a flaw16 (1.0 %): loop 16",
            "Describe this image.",
            "gpt4image compare --data openmoji --labels-per-class 5 --seeds 3 --out cmp",
            "Machine and versions",
            "broken.png: cannot identify image file",
        )
    ]
    assert places == sorted(places)


def test_the_page_is_one_file_without_scripts_whose_links_lead_somewhere(page: str) -> None:
    elements = Elements(page)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(elements.tags)
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    links = [value or "" for name, value in elements.attributes if name in ("src", "href", "xlink:href", "action")]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\((?!#)", page)
    ids = [value for name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    labels = [value or "" for name, value in elements.attributes if name == "aria-labelledby"]
    assert {link[1:] for link in links if link.startswith("#")} | set(" ".join(labels).split()) <= set(ids)


def test_pictures_have_text_alternatives_marks_and_options_per_arm(page: str) -> None:
    assert 'class="wrong"><span class="mark"><span aria-hidden="true">✗</span>' in page
    text = words(page)
    assert "✓right: text-labels" in text.replace("✓ ", "✓") and "✗wrong: baseline sign 34 %" in text
    images = re.findall(r"<img (?!class=.chart)[^>]*>", page)
    assert len(images) == 12, "suspected errors and examples"
    assert all(re.search(r'alt="Picture [^"]+"', image) for image in images)
    differing = text[text.index("What differs between the arms") : text.index("Chosen from the data")]
    assert "align weight" in differing and "5 labels a category: aligned0.3" in differing and "lr" not in differing
    assert "Chosen from the data epochs24" in text


@pytest.fixture(scope="module")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pages of a comparison and of a run in whose records every text tries to become a script."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    record = comparison_record(means={"baseline": 0.3, "text-labels": 0.5, HOSTILE: 0.4})
    for arm in record["arms"].values():
        arm["runs"] = []
        arm["description"] = HOSTILE
    record |= {"question": HOSTILE, "command": HOSTILE, "notes": [HOSTILE], "metric": HOSTILE}
    record["data"]["spec"] = HOSTILE
    record = {**record, "comparisons": {HOSTILE: record}}
    record["comparisons"][HOSTILE]["arms"]["baseline"]["runs"] = ["run"]
    write_json(tmp_path / "comparison.json", record)
    run = write_run(tmp_path / "run", HOSTILE)
    write_json(run / "environment.json", read_json(run / "environment.json") | {HOSTILE: HOSTILE})
    skipped = [{"name": HOSTILE, "reason": "x"}]
    rewrite_config(run, read_json(run / "config.json") | {HOSTILE: HOSTILE}, **{HOSTILE: HOSTILE, "set_aside": skipped})
    evaluation = read_json(run / "evaluation-test.json")
    write_json(run / "evaluation-test.json", evaluation | {"classes": [HOSTILE, *evaluation["classes"][1:]]})
    guess = {"class": HOSTILE, "probability": 0.5}
    example = {"key": HOSTILE, "label": HOSTILE, "split": "test", "picture": data_url(), "descriptions": [HOSTILE]}
    more = {"text_label": guess, "predictions": {HOSTILE: guess}}
    write_json(tmp_path / "examples.json", [example | more])
    doubt = {"key": HOSTILE, "picture": data_url(), "given": HOSTILE, "text": HOSTILE, "probability": 0.5}
    write_json(tmp_path / "doubtful-labels.json", [doubt | {"description": HOSTILE, "truth": HOSTILE}])
    asked = {"name": HOSTILE, "version": 1, "text": HOSTILE, "class_conditioned": True}
    by = {"prompt": HOSTILE, "describer": HOSTILE}
    known = descriptions() | {"prompts": [asked], "describers": [by], "flaws": {HOSTILE: {"descriptions": 1}}}
    for place_of_it in (tmp_path, run):
        write_json(place_of_it / "descriptions.json", known | {"encoding": known["encoding"] | {"encoder": HOSTILE}})
    return [path.read_text(encoding="utf-8") for path in (write_report(tmp_path), write_report(run))]


def test_hostile_texts_are_shown_not_run(hostile_pages: list[str]) -> None:
    for page in hostile_pages:
        elements = Elements(page)
        assert "script" not in elements.tags
        assert "onerror" not in dict(elements.attributes)
        assert "x" not in [value for name, value in elements.attributes if name == "src"]
        assert "<script>alert(1)</script>" in "".join(elements.text)
        assert "7*7" in page


def test_what_cannot_be_shown_is_named_and_the_grey_line_after_the_reference(tmp_path: Path) -> None:
    record = comparison_record(means={"baseline": 0.3, "text-labels": 0.5})
    write_comparison(tmp_path, json.loads(json.dumps(record).replace('"baseline"', '"plain"')))
    good = {"key": "good", "split": "test", "picture": data_url()}
    write_json(tmp_path / "examples.json", [good])
    (tmp_path / "runs/text-labels-seed1/run.json").unlink()
    outcome = report(ReportConfig(dir=tmp_path))
    assert {item.name for item in outcome.skipped} == {"runs/text-labels-seed1"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'alt="Picture good"' in page and "runs/text-labels-seed1" in words(page)
    assert "Grey line in every row: plain." in page and "the baseline." not in page
    assert "validation score after it" in page


def test_without_facts_and_optional_files_the_rest_is_shown(tmp_path: Path) -> None:
    for data in ({"spec": None, "train": 1007}, {}):
        record = comparison_record() | {"data": data, "question": "", "command": "", "notes": []}
        for arm in record["arms"].values():
            arm |= {"runs": [], "peak_memory_bytes": None, "seconds": None}
        write_json(tmp_path / "comparison.json", record)
        assert report(ReportConfig(dir=tmp_path)).skipped == ()
    text = words((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Text labels raised test accuracy from 35.1 % to 49.4 %" in text
    for absent in ("Pictures", "Suspected", "Training losses", "Machine and versions", "To do it again", "Skipped"):
        assert absent not in text
    assert report(ReportConfig(dir=write_run(tmp_path / "run"))).skipped == ()


def test_the_outcome_has_findings_and_table(outcome: Outcome) -> None:
    assert list(outcome.findings) == ["5 labels a category", "all labels"]
    json.dumps(outcome.facts, allow_nan=False)
    assert re.search(r"^text-labels +49\.4 %", outcome.text, re.MULTILINE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was evaluated, with pictures and descriptions, and its report."""
    folder = write_run(tmp_path_factory.mktemp("of-a-run") / "run", "aligned", top1=0.437)
    config = {"model": "resnet10t", "embeddings": "/data/photos.emb", "targets": "labels.parquet"}
    rewrite_config(folder, read_json(folder / "config.json") | config)
    pictures = examples(12)
    for picture, arm in zip(pictures, ("baseline", "text-labels") * 6, strict=True):
        picture["predictions"] = {"predicted": picture["predictions"][arm]} if picture["predictions"] else {}
    write_json(folder / "examples.json", pictures)
    write_json(folder / "descriptions.json", descriptions() | {"store": "/data/photos.db"})
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def run_page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_of_a_run_has_a_title_curves_and_wrong_and_right_pictures(run: Path, run_page: str) -> None:
    outcome = report(ReportConfig(dir=run))
    assert outcome.path.read_text(encoding="utf-8") == run_page, "the same records give the same page"
    assert outcome.scores == {"top1": 0.437}
    code = re.search(r"To do it again</h3>\s*<pre><code>(.*?)</code>", run_page, re.DOTALL)
    assert code and html.unescape(code[1]).split("\n")[:-1] == ["gpt4image train --out run"]
    assert outcome.text.startswith("Test accuracy 43.7 % on 430 pictures (top-5 accuracy 90.0 %; calibration error ")
    text = words(run_page)
    places = [
        text.index(part)
        for part in (
            "Run aligned resnet10t on openmoji, alignment to the descriptions, seed 0 Test accuracy 43.7 % on 430",
            "validation score after it.",
            "n: number of test pictures of the class, where it is below 30.",
            "were predicted as another class",
            "Held-out pictures with a wrong prediction",
            "✗wrong: predicted sign",
            "Held-out pictures with a right prediction",
            "✓right: predicted",
            "Training pictures, their descriptions and text labels",
        )
    ]
    assert places == sorted(places)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match=r"neither comparison\.json nor run\.json"):
            report(ReportConfig(dir=folder))
    folder = write_run(tmp_path / "run")
    (folder / "run.json").unlink()
    with pytest.raises(RunError, match="--resume"):
        report(ReportConfig(dir=folder))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_pages_fit_every_screen_and_hostile_texts_do_nothing(
    page: str, run_page: str, hostile_pages: list[str], tmp_path: Path, scheme: str
) -> None:
    fits([page, run_page, *hostile_pages], tmp_path, scheme)


@pytest.mark.slow
def test_long_names_and_many_seeds_fit_a_phone(tmp_path: Path) -> None:
    record = comparison_record(seeds=9, means={"baseline": 0.3, "aligned-with-a-heavier": 0.4, "text-labels": 0.99})
    record |= {"question": "Q" * 300, "command": "gpt4image compare " + "x" * 300}
    write_comparison(tmp_path, record)
    pictures = [
        {"key": "k" * 200, "label": "l" * 90, "split": "test", "picture": data_url(), "descriptions": ["d" * 400]}
        | {"predictions": {"aligned-with-a-heavier": {"class": "c" * 90, "probability": 1.0}}}
    ]
    write_json(tmp_path / "examples.json", pictures)
    fits(write_report(tmp_path).read_text(encoding="utf-8"), tmp_path, "light")
