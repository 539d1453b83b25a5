"""Spend the large model only where it pays (survey, section 3.1.3)."""
