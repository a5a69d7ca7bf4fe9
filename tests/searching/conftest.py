"""A run on colours, trained once for all tests of the search."""

from __future__ import annotations

from search_cases import copied, decoded, trained

__all__ = ["copied", "decoded", "trained"]
