"""An embedding table and answers for the small comparisons."""

from __future__ import annotations

from comparing_cases import answers, table

__all__ = ["answers", "table"]
