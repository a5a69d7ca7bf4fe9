"""The limits that docs/security.md names are those of src; tests of the rooms show what happens beyond them."""

from __future__ import annotations

import re
from pathlib import Path

from gpt4image.base import files
from gpt4image.data import coco, decode, file_source, video, voc, yolo
from gpt4image.describing.describers import batch
from gpt4image.describing.describers.openai import describer
from gpt4image.describing.describers.openai import server as reply
from gpt4image.reviewing import server

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_limits_of_the_page_are_those_that_are_used() -> None:
    limits = dict(re.findall(r"(?m)^\| ([\w ,']+) \| ([\d,]+(?: [KMG]B)?)", PAGE))
    used = {
        "answer, body of the Batch API, line of a batch file, after decompression": f"{reply.MAX_BODY >> 20} MB",
        "body of an error": f"{reply.MAX_ERROR >> 20} MB",
        "file of a batch": f"{batch.MAX_FILE >> 30} GB",
        "text that is kept": f"{reply.MAX_TEXT:,}",
        "finish reason": f"{reply.MAX_NAME}",
        "error text": f"{reply.MAX_MESSAGE}",
        "id of a file or batch": f"{batch._MAX_ID}",
        "tries of a paid call whose answer cannot be read": f"{describer._MOST_WASTED}",
    }
    assert limits == used
    for text in (
        f"more than {decode.MAX_PIXELS // 10**6} megapixels or {file_source.MAX_FILE_BYTES >> 20} MiB",
        f"{video.MAX_FRAMES:,} frames, {video.MAX_STREAMS} streams, 512 MiB or {video.MAX_SECONDS:.0f} seconds",
        f"XML above {voc.MAX_XML // 10**6} MB, with a document type",
        f"or deeper than {voc.MAX_DEPTH} levels",
        f"`data.yaml` above {yolo.MAX_YAML // 10**6} MB",
        f"outlines above {coco.MAX_OUTLINE // 10**6} million pixels",
        f"beyond {files.MOST_NESTED} levels",
        f"requests above {server.MOST_BYTES // 10**6} MB",
    ):
        assert text in PAGE
