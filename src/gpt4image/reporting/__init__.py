"""What tables and pages are made of."""
