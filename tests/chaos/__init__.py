"""Faults on real processes and a real Redis, and what each of them must show: ``python -m tests.chaos``.

One module a fault; :mod:`tests.chaos.faults` lists them with their doses.
"""
