"""What to ask about or audit next: order, doubt, estimates, gain per price. Arrays only."""
