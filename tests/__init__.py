"""Tests mirror the package; what several share is imported from here (``tests.models.tiny_gguf``)."""
