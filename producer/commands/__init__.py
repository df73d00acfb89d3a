"""The commands of ``labelmill``, one module each."""
