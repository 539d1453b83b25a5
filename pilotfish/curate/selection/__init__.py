"""Steps that keep rows for what they are beside the others: like a target, spread out, still needed."""
