"""How labels are read off descriptions."""
