"""Tiny dense models of transformers: folders with their configuration, and random weights where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RT_DETR: dict[str, Any] = {
    "model_type": "rt_detr_v2",
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_indices": [2, 3, 4],
    },
    "encoder_in_channels": [16, 24, 32],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "hidden_expansion": 0.5,
    "d_model": 32,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_queries": 84,  # all cells of 64 pixels: no rounding decides which are taken
}
SEGFORMER: dict[str, Any] = {
    "model_type": "segformer",
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
}


def write_config(folder: Path, config: dict[str, Any]) -> str:
    """Write config.json, and return the name of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return f"{'rt-detr-v2' if config['model_type'] == 'rt_detr_v2' else 'segformer'}:{folder}"


def write_weights(folder: Path, config: dict[str, Any], classes: int) -> str:
    """Write a folder as transformers writes it, with random weights, and return the name of the model."""
    import transformers

    prefix = "RTDetrV2" if config["model_type"] == "rt_detr_v2" else "Segformer"
    head = "ForObjectDetection" if prefix == "RTDetrV2" else "ForSemanticSegmentation"
    own = getattr(transformers, f"{prefix}Config")(**config, num_labels=classes)
    getattr(transformers, f"{prefix}{head}")(own).save_pretrained(folder)
    return f"{'rt-detr-v2' if prefix == 'RTDetrV2' else 'segformer'}:{folder}"
