"""Files in and out: lines, tables and texts in any packing, read in blocks and written in shards."""
