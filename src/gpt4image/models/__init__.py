"""Backbones, projection heads and the alignment losses."""
