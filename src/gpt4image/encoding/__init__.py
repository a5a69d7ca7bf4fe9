"""Text encoders, and the stage that turns descriptions into embeddings."""
