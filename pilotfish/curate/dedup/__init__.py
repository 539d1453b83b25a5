"""Deduplication (survey, section 3.1.1): equal texts, nearly equal texts, texts that say the same.

Each is a fitted step: ``map`` turns a batch into row numbers and hashes or vectors, ``reduce`` finds the
groups of rows that are duplicates of one another and which row of each stays, and the step that results
looks rows up in a sorted file.
"""
