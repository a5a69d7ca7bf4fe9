"""What a comparison is made of: arms, regimes, measures, statistics."""
