"""`clips:PATH`: video files in class folders, as `folder:` reads images, or a table of them, as `manifest:` does.

    clips/train/walk/1.mp4        clips:clips
    clips/test/fall/2.avi         clips:clips.csv   (columns path or key, label, split)

Digests are those of the files. Which frames are read is an option of the stages (``--frames``).
"""

from __future__ import annotations

from dataclasses import replace

from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.file_source import expanded
from gpt4image.data.folder import load_folder
from gpt4image.data.image_set import ImageSet
from gpt4image.data.manifest import load_manifest
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder


def load_clips(argument: str) -> ImageSet:
    """Load the clips below a folder, or those that a table lists.

    Raises:
        MissingExtraError: PyAV is not installed.
        ConfigError, DataError: as ``load_folder`` and ``load_manifest``.
    """
    require_decoder("clips:")
    if expanded(argument.partition(IMAGE_ROOT)[0]).suffix in (".csv", ".parquet"):
        images = load_manifest(argument, "clips")
    else:
        images = load_folder(argument, "clips", VIDEO_EXTENSIONS)
    return replace(images, clips=True)
