"""What is on disk, typed once: description store, embedding table, text labels, run records."""
