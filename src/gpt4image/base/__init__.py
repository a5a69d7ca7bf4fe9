"""What every other package stands on: errors, files, locks, interrupts, progress."""
