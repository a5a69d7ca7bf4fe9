"""Comparisons: arms, settings, plan, jobs, results, statistics."""
