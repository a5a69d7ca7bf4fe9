"""After the first model: new images, what is new in them, whom to ask about which, and a better model."""
