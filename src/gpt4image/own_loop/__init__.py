"""Bridges to training loops of others: alignment inside timm's training script and the Trainer of transformers."""
