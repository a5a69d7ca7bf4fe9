"""Files in a folder of images that are none: counted by extension; pictures that cannot be read count as skipped."""

from __future__ import annotations

from collections.abc import Mapping

from gpt4image.base.errors import install_command
from gpt4image.base.outcome import Skipped
from gpt4image.data.decode import HEIF, PICTURES
from gpt4image.data.labels import note_once


def other_files(counts: Mapping[str, int], spec: str) -> tuple[Skipped, ...]:
    """Return kinds of pictures that are left out as skipped items, and note other files; ``counts`` is by extension."""
    pictures = sorted(kind for kind in counts if kind in PICTURES)
    if rest := {kind or "no extension": counts[kind] for kind in sorted(counts) if kind not in PICTURES}:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in rest.items())
        note_once(f"{spec}: files left out, since they are no images: {listed}.")
    return tuple(Skipped(name=f"{counts[kind]:,} *{kind}", reason=_reason(kind)) for kind in pictures)


def _reason(kind: str) -> str:
    way = f"are read after `{install_command('heic')}`" if kind in HEIF else "cannot be read: save them as JPEG or PNG"
    return f"left out: pictures of this kind {way}"
