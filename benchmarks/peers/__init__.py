"""The same work by other queues, servers and data pipelines: ``make bench-peers``."""
