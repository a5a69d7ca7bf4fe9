"""What describing and the store of descriptions are made of."""
