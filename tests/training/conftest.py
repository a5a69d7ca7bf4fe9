"""Options of a small run with texts."""

from __future__ import annotations

from training_cases import described

__all__ = ["described"]
