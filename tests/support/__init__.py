"""Real servers and workers for tests, and ways to wait for what they do."""
