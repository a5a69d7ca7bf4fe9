"""Texts longer than the limit of an encoder: split into chunks, whose embeddings are averaged.

A chunk ends at the end of a sentence if one is near enough, else between words. So nothing of a description is lost,
unlike a text that is cut after 77 tokens. Descriptions name their subject first, which a later chunk would not know:
it begins with the beginning of the text, as passages begin with the title of their article in Karpukhin et al. 2020
(arXiv 2004.04906).
"""

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenLengths = Callable[[Sequence[str]], NDArray[np.int64]]
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """N texts as C >= N chunks.

    Attributes:
        texts: the C chunks.
        owner: (C,) int64, ascending: the text that a chunk belongs to.
        weight: (C,) float32: tokens of a chunk over those of its text; sums to 1 per text.
    """

    texts: list[str]
    owner: NDArray[np.int64]
    weight: NDArray[np.float32]

    def pool(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (N, D) unit-length embeddings of the texts: weighted means over their chunks (C, D)."""
        if len(vectors) == self.owner[-1] + 1:
            return vectors
        starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        sums = np.add.reduceat(vectors * self.weight[:, None], starts, axis=0)
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def whole(texts: Sequence[str]) -> Chunks:
    """Return every text as one chunk."""
    return Chunks(texts=list(texts), owner=np.arange(len(texts)), weight=np.ones(len(texts), np.float32))


def chunked(texts: Sequence[str], lengths: NDArray[np.int64], limit: int, token_lengths: TokenLengths) -> Chunks:
    """Return N texts of (N,) ``lengths`` in tokens as chunks of at most ``limit`` tokens, special tokens included."""
    if (lengths <= limit).all():
        return whole(texts)
    pairs = zip(texts, lengths, strict=True)
    parts = [[text] if length <= limit else split(text, limit, token_lengths) for text, length in pairs]
    flat = [chunk for chunks in parts for chunk in chunks]
    owner = np.repeat(np.arange(len(parts)), [len(chunks) for chunks in parts])
    tokens = token_lengths(flat).astype(np.float64)
    weight = tokens / np.bincount(owner, tokens)[owner]
    return Chunks(texts=flat, owner=owner, weight=weight.astype(np.float32))


def split(text: str, limit: int, token_lengths: TokenLengths) -> list[str]:
    """Return the chunks of one text, each of at most ``limit`` tokens; a single character is never split."""
    special = int(token_lengths([""])[0])
    sentences = [part for part in _SENTENCE_END.split(text) if part.strip()] or [text]
    lead = _lead(sentences[0], special + (limit - special) // 2, token_lengths)
    room = limit - int(token_lengths([lead])[0]) + special
    first, *others = _packed(_within(sentences, limit, token_lengths), limit - special, special, token_lengths)
    pieces = _within([piece for group in others for piece in group], room, token_lengths)
    later = _packed(pieces, room - special, special, token_lengths)
    chunks = [" ".join(first), *(" ".join([*filter(None, [lead]), *group]) for group in later)]
    # Joined pieces are rarely longer than the sum of their tokens; then they are split again.
    return _within(chunks, limit, token_lengths)


def _lead(sentence: str, limit: int, token_lengths: TokenLengths) -> str:
    """Return the longest beginning of a sentence, in whole words, of at most ``limit`` tokens; may be empty."""
    words = sentence.split()
    beyond = bisect.bisect_right(
        range(len(words) + 1), limit, key=lambda count: int(token_lengths([" ".join(words[:count])])[0])
    )
    return " ".join(words[: max(beyond - 1, 0)])


def _packed(pieces: list[str], room: int, special: int, token_lengths: TokenLengths) -> list[list[str]]:
    """Group neighbours so that each group has at most ``room`` tokens, special ones not counted."""
    groups: list[list[str]] = []
    left = -1
    if not pieces:  # a tokenizer may not take an empty list
        return groups
    for piece, length in zip(pieces, token_lengths(pieces) - special, strict=True):
        if length <= left:
            groups[-1].append(piece)
            left -= length
        else:
            groups.append([piece])
            left = room - length
    return groups


def _within(pieces: list[str], limit: int, token_lengths: TokenLengths) -> list[str]:
    """Halve pieces, between words if there are several, until each has at most ``limit`` tokens or one character."""
    while pieces:
        long = [length > limit and len(piece) > 1 for piece, length in zip(pieces, token_lengths(pieces), strict=True)]
        if not any(long):
            break
        parts: list[str] = []
        for piece, cut in zip(pieces, long, strict=True):
            if not cut:
                parts.append(piece)
            elif len(words := piece.split()) > 1:
                parts += [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
            else:
                parts += [piece[: len(piece) // 2], piece[len(piece) // 2 :]]
        pieces = parts
    return pieces
