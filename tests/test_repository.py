"""What the places that host the project and its models read: workflows, templates, citation, addresses and cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from box_cases import write_squares
from gpt4image.data import load_dataset
from gpt4image.data.box_files import write_hf
from gpt4image.deploying.model_card import front_matter
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification, Video
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.segmentation import Segmentation
from project_file import PROJECT

ROOT = Path(__file__).parents[1]
HUB = ROOT / ".github"
LICENCES = {"apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "mit", "other", "unknown"}
TASKS_OF_THE_HUB = {"image-classification", "object-detection", "image-segmentation", "video-classification"}
"""Names that the hub knows, of those that are of use here: it refuses others in a card."""


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in load(HUB / "workflows" / workflow)["jobs"].values() for step in job["steps"]]


def test_workflows_run_what_contributors_run_and_may_only_read() -> None:
    assert ".ci/run" in [step.get("run") for step in steps("tests.yml")]
    commands = " ".join(step.get("run", "") for step in steps("build.yml"))
    assert "pip wheel" in commands and "make site" in commands
    for path in (HUB / "workflows").glob("*.yml"):
        assert load(path)["permissions"] == {"contents": "read"}, path.name
        used = [step["uses"] for step in steps(path.name) if "uses" in step]
        assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used), "only GitHub's own"


def test_issue_templates_have_what_github_requires() -> None:
    for name in ("bug.yml", "idea.yml"):
        form = load(HUB / "ISSUE_TEMPLATE" / name)
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert form["name"] and form["description"] and all(field["attributes"]["label"] for field in fields)
        assert fields and len(fields) == len({field["id"] for field in fields})


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    cited = load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [paper["url"] for paper in cited["references"]] == ["https://arxiv.org/abs/2306.00693"]


def test_every_address_of_the_repository_is_that_of_the_project_file() -> None:
    own = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    files = [ROOT / "README.md", *ROOT.glob("*.cff"), ROOT / "SECURITY.md", *HUB.rglob("*.*"), *ROOT.glob("examples/*")]
    shown = {
        (path.name, name)
        for path in files
        if path.is_file()
        for name in re.findall(r"(?:github\.com|com/github)/([\w.-]+/gpt4image)\b", path.read_text(encoding="utf-8"))
    }
    assert {path for path, _ in shown} >= {"README.md", "SECURITY.md", "CITATION.cff", "config.yml"}
    assert {name for _, name in shown} == {own}, "change it in pyproject.toml, then `make docs`"


@pytest.mark.parametrize("task", [Classification, Detection, MultiLabel, Segmentation, Video])
@pytest.mark.parametrize("licence", [None, "CC BY 4.0"])
def test_the_hub_accepts_the_card_of_a_model(task: type[Task], licence: str | None) -> None:
    card = ModelCard(f"---\n{front_matter('timm', licence, task.hub_task)}\n---\n# A model\n")
    assert card.data.license in LICENCES and (card.data.license != "other" or card.data.license_name)
    assert card.data.pipeline_tag in TASKS_OF_THE_HUB and card.data.library_name == "timm"


def test_the_hub_accepts_the_cards_of_datasets(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the extra 'hf'")
    write_hf(tmp_path / "table", load_dataset(write_squares(tmp_path / "squares")))
    for path in (tmp_path / "table" / "README.md", *(ROOT / "src" / "gpt4image" / "packaged").rglob("README.md")):
        data = DatasetCard.load(path).data
        assert data.license in LICENCES and set(data.task_categories) <= TASKS_OF_THE_HUB, path
