"""Published rule filters: C4, Gopher, FineWeb, CCNet.

Each set is one step whose thresholds have names and the published values; a text is dropped by the first
rule it breaks, and the rule is the reason. :mod:`~pilotfish.curate.rules.documents` finds words and lines
by array operations on the bytes of many texts at once.
"""
