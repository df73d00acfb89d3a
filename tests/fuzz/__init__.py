"""Damaged image files by the thousand, through decoding in processes of their own: see :mod:`tests.fuzz.run`."""
