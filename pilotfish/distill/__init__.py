"""The large model teaches small ones (survey, section 3.2)."""
