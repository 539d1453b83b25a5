"""The loop behind an OpenAI-compatible HTTP server, and its dashboard."""
