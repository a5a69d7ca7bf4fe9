"""One run measured: its outputs and metrics, retrieval between images and texts, pictures for its report."""
