"""What runs in a peer's own environment, written as its documentation says."""
