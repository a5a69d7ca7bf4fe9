"""What a trained model and the texts say of images, together: two views that correct each other.

Co-training (Blum and Mitchell 1998): the model has learned from what the texts say of all images, so it knows where a
text is unlike the picture; the text knows what the model cannot see yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

LEARNED_WEIGHT = 0.5
"""Weight of the model's say on an image whose text it was trained on: half of what it says there it has by heart."""
FLOOR = 1e-6


def combine(text: Floats, vision: Floats, learned: Bools) -> NDArray[np.float32]:
    """Return class probabilities of images by both views: the normalised product of what they say.

    Args:
        text: (n, K) probabilities by text; a row of zeros where there is none.
        vision: (n, K) probabilities by the model; a row of zeros where it has no say.
        learned: (n,) images whose text the model was trained on.

    Returns:
        (n, K); one view alone where the other says nothing, zeros where both do.
    """
    weight = np.where(learned, LEARNED_WEIGHT, 1.0)[:, None]
    product = np.maximum(text, FLOOR) * np.maximum(vision, FLOOR) ** weight
    product = product / product.sum(axis=1, keepdims=True)
    has_text, has_vision = text.any(axis=1)[:, None], vision.any(axis=1)[:, None]
    return np.where(has_text & has_vision, product, np.where(has_text, text, vision)).astype(np.float32)
