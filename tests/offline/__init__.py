"""No test reaches the network."""
