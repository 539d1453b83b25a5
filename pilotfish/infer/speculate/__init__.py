"""Speculation: a draft guesses tokens, the target checks several at once; exact, and never slower."""
