"""A Batch API on loopback and what is described through it."""

from __future__ import annotations

from batch_cases import config, pictures, quick, server

__all__ = ["config", "pictures", "quick", "server"]
