"""Text encoders: ``registry.load_text_encoder`` finds one by its SPEC; ``base`` says what each of them does."""
