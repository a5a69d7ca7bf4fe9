"""How many answers are not about their image, found without a label; and what the other sources say of these images.

A describer may be surer than it should be. Its answer may be of another class at random, or answer and text may be of
another image. What its texts and a classifier on the pictures say, both taught by the answers of other images, tells:
a wrong answer at random is not explained by them. Each image is one of several cases:

* sound: answer and text are about the image;
* the answer alone is not about it, or the text alone, or neither, each for itself;
* answer and text are of one other image, which only the picture shows.

The shares of the cases are fitted to how likely the answers are in each (maximum likelihood), together with one power
per classifier: what is taught by wrong answers is less sure than it should be. They count only where they explain the
answers clearly better than that all are sound (BIC, Schwarz 1978). Stated confidences are taken at their word in sound
answers, so that an answer that is wrong where the describer was unsure is no sign of anything.

Legend: N images, K classes, C cases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from gpt4image.artifacts.top_k_probs import Probabilities, built

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

MAX_IMAGES, MAX_CELLS = 5_000, 2_000_000  # images that shares are fitted to, and these times classes
POWER_WIDTH = 0.5  # standard deviation of the prior of the logarithm of a power; a power is one at least
MAX_POWER = 1.5  # logarithm of the largest power
# Share of the images with such an answer whose text is not about them either, where no picture tells. It costs little
# where the text is right (log loss .377 to .392 of photographs), and saves much where it is wrong (1.158 to .990).
TEXT_TOO = 0.1
RAREST = -9.0  # logarithm of the least share of a case to that of sound images


class Witness(NamedTuple):
    """Class probabilities (N, K) by a classifier that was taught by the answers of other images, and (N,) which images
    it knows."""

    probabilities: Probabilities
    known: Bools


class Cases(NamedTuple):
    """Shares (C,) of the cases, the sound one first, and the power of each witness."""

    shares: Floats
    powers: Floats

    @property
    def rate(self) -> float:
        """Share of the answers that are not about their image."""
        return float(1.0 - self.shares[0])


def find_cases(
    stated: Probabilities, usable: NDArray[np.int64], texts: Witness | None, pictures: Witness | None, seed: int
) -> Cases | None:
    """Return the cases of answers; None where all seem to be about their image, or where nothing can tell.

    ``stated`` are (N, K) probabilities of the answers, ``usable`` (n,) the images that are looked at.
    """
    n_classes = stated.shape[1]
    most = min(MAX_IMAGES, MAX_CELLS // n_classes)
    rows = usable
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    witnesses = [witness for witness in (texts, pictures) if witness is not None]
    if not witnesses or len(rows) < 2:
        return None
    common = _common(stated[rows])
    logs = [_logs(witness, rows) for witness in witnesses]
    ratio, few = stated[rows] / common, len(witnesses)

    def loss(values: Floats) -> float:
        found = _likelihoods(ratio, _said(logs, np.exp(values[:few]), common), common, texts is not None)
        shares = softmax(np.concatenate([[0.0], values[few:]]))
        prior = 0.5 * float((values[:few] ** 2).sum()) / POWER_WIDTH**2
        return prior - float(np.log(np.maximum(found @ shares, 1e-30)).sum())

    n_cases = 5 if few == 2 else 2
    power_bounds, share_bounds = [(0.0, MAX_POWER)] * few, [(RAREST, 2.0)] * (n_cases - 1)
    none = np.full(n_cases - 1, RAREST)

    def loss_if_sound(powers: Floats) -> float:
        return loss(np.concatenate([powers, none]))

    sound: Any = minimize(loss_if_sound, np.zeros(few), bounds=power_bounds)
    starts = (np.concatenate([np.full(few, 0.3), np.full(n_cases - 1, start)]) for start in (-3.0, -1.0))
    fits: list[Any] = [minimize(loss, start, bounds=power_bounds + share_bounds) for start in starts]
    best = min(fits, key=lambda fit: fit.fun)
    if sound.fun - best.fun <= 0.5 * np.log(len(rows)) * (n_cases - 1):
        return None
    return Cases(softmax(np.concatenate([[0.0], best.x[few:]])), np.exp(best.x[:few]))


def corrected(
    stated: Probabilities, cases: Cases, usable: NDArray[np.int64], texts: Witness | None, pictures: Witness | None
) -> Probabilities:
    """Return (N, K) class probabilities by answers and witnesses, each image being one of the cases.

    Arguments are as of ``find_cases``.
    """
    everyone = np.arange(len(stated))
    common = _common(stated[usable[:: 1 + len(usable) * stated.shape[1] // MAX_CELLS]])
    witnesses = [witness for witness in (texts, pictures) if witness is not None]

    def block(rows: slice) -> NDArray[np.float32]:
        own = stated[rows]
        said = _said([_logs(witness, everyone[rows]) for witness in witnesses], cases.powers, common)
        likely = _likelihoods(own / common, said, common, texts is not None) * cases.shares
        likely /= np.maximum(likely.sum(axis=1, keepdims=True), 1e-30)
        seen = said[-1] if pictures is not None else common
        if texts is None:
            by_case = [own, seen]
        elif pictures is None:
            by_case = [own, (1.0 - TEXT_TOO) * said[0] + TEXT_TOO * common]
        else:
            both = _normal(said[0] * seen / common)
            by_case = [own, both, _normal(own * seen / common), seen, seen]
        return np.einsum("cnk,nc->nk", np.stack(by_case), likely).astype(np.float32)

    return built(len(stated), stated.shape[1], block)


def _likelihoods(ratio: Floats, said: list[Floats], common: Floats, has_texts: bool) -> Floats:
    """Return (n, C) how likely answer and text are in each case, over how likely they are of any image."""
    ones = np.ones(len(ratio))
    if len(said) == 1:
        return np.stack([(said[0] * ratio).sum(axis=1), ones], axis=1)
    text, picture = said[0] / common, said[1]
    found = [(picture * ratio * text).sum(axis=1), (picture * text).sum(axis=1), (picture * ratio).sum(axis=1)]
    return np.stack([*found, ones, (common * ratio * text).sum(axis=1)], axis=1)


def _common(probabilities: Floats) -> Floats:
    """Return (K,) how common classes are."""
    total = probabilities.sum(axis=0, dtype=np.float64) + 1e-3 * len(probabilities) / probabilities.shape[1]
    return total / total.sum()


def _logs(witness: Witness, rows: NDArray[np.int64]) -> tuple[Floats, Bools]:
    return np.log(np.maximum(witness.probabilities[rows], np.float32(1e-6))), witness.known[rows][:, None]


def _said(logs: list[tuple[Floats, Bools]], powers: Floats, common: Floats) -> list[Floats]:
    """Return the (n, K) probabilities of each witness, raised to its power; ``common`` where it knows nothing."""
    return [
        np.where(known, softmax(power * log, axis=1), common) for power, (log, known) in zip(powers, logs, strict=True)
    ]


def _normal(values: Floats) -> Floats:
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-30)
