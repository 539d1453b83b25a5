"""The page that shows what the gateway does: figures, and the latest requests."""
