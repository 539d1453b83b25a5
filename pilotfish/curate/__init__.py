"""Small models choose the data (survey, section 3.1.1)."""
