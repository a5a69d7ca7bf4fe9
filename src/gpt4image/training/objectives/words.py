"""The words of an image's descriptions as its classes: SuperClass (Huang et al. 2024, arXiv 2411.03313).

The paper takes the tokens of a tokenizer; here the classes are words, without stop words, that at least two training
images have. The head that predicts them is dropped after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import TableError
from gpt4image.config.learning import ResolvedOptions
from gpt4image.encoding.text_encoders.bag_of_words import WORD
from gpt4image.tasks.classification import soft_cross_entropy
from gpt4image.training.objectives.base import Batch, Outputs
from gpt4image.training.table_texts import stored_texts
from gpt4image.training.text_targets import TextTargets

WORDS_HEAD = "words"
"""Name of the head in the model."""
MOST_WORDS = 8_192
_CHUNK = 65_536  # texts in memory at once


@dataclass(frozen=True, kw_only=True, eq=False)
class WordTargets:
    """The words of the descriptions of a dataset, V of them.

    Attributes:
        shares: (N, V) sparse float32: what part of the target of an image each word is; rows sum to 1, or to 0 for an
            image without one of the words.
        words: V words.
    """

    shares: Any
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: TextTargets, train: NDArray[np.int64]) -> WordTargets:
        """Return the words of the descriptions of ``text``, chosen and weighted by those of the images ``train``.

        The target of an image, from equation 2 of the paper and its code (``ClsLoss``), with n training images, n_c of
        which have word c::

            w_c = log((n + 1) / (n_c + 1));    y_c = w_c if the image has word c else 0;    target = y / sum(y)

        Raises:
            TableError: the texts cannot be read, or share no word.
        """
        from scipy.sparse import csr_matrix, diags
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.preprocessing import normalize

        if text.table is None:
            raise TableError("The words of descriptions are read through their embedding table, and there is none.")
        store, stored = stored_texts(text.table, "Learning the words of descriptions")
        counter: Any = CountVectorizer(binary=True, stop_words="english", token_pattern=WORD)
        with DescriptionStore(store) as descriptions:
            chunks = (stored[start : start + _CHUNK].tolist() for start in range(0, len(stored), _CHUNK))
            try:
                of_text = counter.fit_transform(each for rows in chunks for each in descriptions.texts_at(rows))
            except ValueError:  # of scikit-learn: not one word is left
                raise TableError(f"The texts of {text.table.path} have no words but stop words.") from None
        ones = np.ones(len(text.rows), np.float32)
        of_image: Any = csr_matrix((ones, text.rows, text.offsets), shape=(len(text.offsets) - 1, of_text.shape[0]))
        has = (of_image @ of_text).astype(bool).astype(np.float32)
        images = np.asarray(has[train].sum(axis=0)).ravel()
        order = np.argsort(-images, kind="stable")[:MOST_WORDS]
        kept = np.sort(order[images[order] >= 2])
        if not len(kept):
            raise TableError(f"No two training images share a word in the texts of {text.table.path}.")
        weights = np.log((len(train) + 1) / (images[kept] + 1)).astype(np.float32)
        names = counter.get_feature_names_out()[kept]
        shares: Any = normalize(has[:, kept] @ diags(weights), norm="l1")
        return cls(shares=shares.tocsr(), words=tuple(names.tolist()))

    def take(self, images: NDArray[np.int64]) -> Tensor:
        """Return the targets (B, V) float32 of images."""
        return torch.from_numpy(self.shares[images].toarray().astype(np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class WordsObjective:
    """Predicting the words of descriptions; see ``objectives.base.Objective``."""

    config: ResolvedOptions
    targets: WordTargets
    name: str = WORDS_HEAD

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return the cross-entropy of a softmax over all words against the targets, the paper's equation 1."""
        logits = outputs.heads[WORDS_HEAD][: len(batch.images)]
        targets = self.targets.take(batch.images).to(logits.device).masked_fill(batch.broken[:, None], 0.0)
        return soft_cross_entropy(logits, targets if batch.mixing is None else batch.mixing @ targets)

    def weight(self, step: int, task: Tensor, own: Tensor, outputs: Outputs) -> float:
        """Return the weight that was asked for."""
        return self.config.weight_of_words
