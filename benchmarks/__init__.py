"""Measurements that anyone can repeat; ``README.md`` says what they are, and under which conditions."""
