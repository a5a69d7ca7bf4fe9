"""How good descriptions are: flaws of one text, and texts that nearly repeat another."""
