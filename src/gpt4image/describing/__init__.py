"""Descriptions and answers: what is asked, of whom, and what is kept of it."""
