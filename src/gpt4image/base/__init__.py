"""Foundations of every other package: errors, files, locks, interrupts, progress."""
