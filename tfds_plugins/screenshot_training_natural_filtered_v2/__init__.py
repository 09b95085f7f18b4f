"""The screenshot retrieval set."""
