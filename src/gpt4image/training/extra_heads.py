"""The heads of objectives beside task and alignment: the words of descriptions, and views of an image."""

from __future__ import annotations

from torch import nn

from gpt4image.config.learning import ResolvedOptions
from gpt4image.models.feature_heads import Headed, Tapped
from gpt4image.parallel import processes
from gpt4image.training.objectives.views import VIEWS_HEAD, view_head
from gpt4image.training.objectives.words import WORDS_HEAD, WordTargets
from gpt4image.training.optimizers import Plain
from gpt4image.training.training_data import TrainingData


def words_of(config: ResolvedOptions, data: TrainingData) -> WordTargets | None:
    """Return the words that a run learns to predict, if any; texts that are only vectors have none."""
    text = data.text
    if config.weight_of_words == 0.0 or text is None or text.table is None:
        return None
    return processes.together(lambda: WordTargets.of(text, data.indices("train")))


def with_heads(model: Plain | Tapped, config: ResolvedOptions, words: WordTargets | None) -> Plain | Tapped:
    """Return a model with the heads that its objectives need; the same where they need none."""
    if words is None and config.compares_views is None:
        return model
    model = model if isinstance(model, Tapped) else Headed(model.backbone)
    if words is not None:
        model.heads[WORDS_HEAD] = nn.Linear(model.feature_width, len(words.words))
    if config.compares_views is not None:
        model.heads[VIEWS_HEAD] = view_head(config.compares_views, model.feature_width)
    return model
