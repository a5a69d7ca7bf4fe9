"""What all HTML pages share: one base page with its style, one picture card, numbers in words."""
