"""Options of a small run with texts."""

from __future__ import annotations

from training.cases import described, worded

__all__ = ["described", "worded"]
