"""Small models grade large ones (survey, section 3.1.4)."""
