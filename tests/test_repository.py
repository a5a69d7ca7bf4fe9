"""What the project says of itself: cards, floors and limits."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from packaging.requirements import Requirement

from gpt4image.base import files
from gpt4image.data import coco, decode, file_source, video, voc, yolo
from gpt4image.deploying.model_card import front_matter
from gpt4image.describing.describers import batch
from gpt4image.describing.describers.openai import server as reply
from gpt4image.reviewing import server
from gpt4image.tasks.classification import Classification, Video
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.segmentation import Segmentation
from project_file import EXTRAS, PROJECT

ROOT = Path(__file__).parents[1]
FLOORS = runpy.run_path(str(ROOT / ".ci" / "floors.py"))
LICENCES = {"apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "mit", "other", "unknown"}
TASKS_OF_THE_HUB = {"image-classification", "object-detection", "image-segmentation", "video-classification"}
"""Names that the hub knows, of those that are of use here: it refuses others in a card."""


def test_the_hub_accepts_the_cards_of_models_and_datasets() -> None:
    for task in (Classification, Detection, MultiLabel, Segmentation, Video):
        for licence in (None, "CC BY 4.0"):
            card = ModelCard(f"---\n{front_matter('timm', licence, task.hub_task)}\n---\n# A model\n")
            assert card.data.license in LICENCES and (card.data.license != "other" or card.data.license_name)
            assert card.data.pipeline_tag in TASKS_OF_THE_HUB and card.data.library_name == "timm"
    for path in (ROOT / "src" / "gpt4image" / "packaged").rglob("README.md"):
        data = DatasetCard.load(path).data
        assert data.license in LICENCES and set(data.task_categories) <= TASKS_OF_THE_HUB, path


def test_every_dependency_has_a_floor_and_its_constraint_fits() -> None:
    lines = FLOORS["constraints"](list(EXTRAS)).splitlines()
    pinned = {line.partition("==")[0]: line.partition("==")[2] for line in lines if "==" in line}
    for text in [*PROJECT["dependencies"], *(part for parts in EXTRAS.values() for part in parts)]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[requirement.name]), text
    assert "ray" in FLOORS["constraints"](["demo"]).splitlines()[-1], "what is not tried is named"
    with pytest.raises(ValueError, match="has no floor"):
        FLOORS["floors"](["torch"])


def test_no_module_needs_one_of_posix_to_be_imported() -> None:
    only_posix = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios"}
    for path in (ROOT / "src").rglob("*.py"):
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        assert names.isdisjoint(only_posix), path


def test_the_limits_of_the_page_are_those_that_are_used() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    limits = dict(re.findall(r"(?m)^\| ([\w ,']+) \| ([\d,]+(?: [KMG]B)?)", page))
    used = {
        "answer, body of the Batch API, line of a batch file, after decompression": f"{reply.MAX_BODY >> 20} MB",
        "body of an error": f"{reply.MAX_ERROR >> 20} MB",
        "file of a batch": f"{batch.MAX_FILE >> 30} GB",
        "text that is kept": f"{reply.MAX_TEXT:,}",
        "finish reason": f"{reply.MAX_NAME}",
        "error text": f"{reply.MAX_MESSAGE}",
        "id of a file or batch": f"{batch._MAX_ID}",
    }
    assert limits == used
    for text in (
        f"more than {decode.MAX_PIXELS // 10**6} megapixels or {file_source.MAX_FILE_BYTES >> 20} MiB",
        f"{video.MAX_FRAMES:,} frames, {video.MAX_STREAMS} streams, 512 MiB or {video.MAX_SECONDS:.0f} seconds",
        f"XML above {voc.MAX_XML // 10**6} MB, with a document type",
        f"`data.yaml` above {yolo.MAX_YAML // 10**6} MB",
        f"outlines above {coco.MAX_OUTLINE // 10**6} million pixels",
        f"beyond {files.MOST_NESTED} levels",
        f"requests above {server.MOST_BYTES // 10**6} MB",
    ):
        assert text in page
