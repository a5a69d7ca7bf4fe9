"""The page on which a person labels a little, and corrects."""
