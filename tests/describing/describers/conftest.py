"""The tiny model, and a server of it, for the describers."""

from __future__ import annotations

from tiny_vlm import tiny_vlm
from transformers_server import transformers_serve

__all__ = ["tiny_vlm", "transformers_serve"]
