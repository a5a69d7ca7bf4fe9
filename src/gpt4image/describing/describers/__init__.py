"""Captioning backends: ``registry.load_describer`` finds one by its SPEC; ``base`` says what each of them does."""
