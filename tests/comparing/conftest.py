"""An embedding table for the small comparisons."""

from __future__ import annotations

from comparing_cases import table

__all__ = ["table"]
