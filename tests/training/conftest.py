"""Options of a small run with texts."""

from training.cases import described, worded

__all__ = ["described", "worded"]
