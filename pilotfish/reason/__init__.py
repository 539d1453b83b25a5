"""Small models add what the large one lacks (survey, section 3.1.2)."""
