"""gpt4image: what large multimodal models know, moved into small vision models while they train."""

__version__ = "0.1.0"
