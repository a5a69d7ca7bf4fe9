"""Pictures and the command that pays a server for answers about them."""

from __future__ import annotations

from distilling_cases import paid, photos
from openai_cases import openai_settings

__all__ = ["openai_settings", "paid", "photos"]
