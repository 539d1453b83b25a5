"""Steps that score or label each text: language, perplexity, quality, toxicity, a large model's grade."""
