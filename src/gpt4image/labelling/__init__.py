"""How labels are predicted from descriptions."""
