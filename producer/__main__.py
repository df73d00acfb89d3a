"""``python -m producer`` is ``labelmill``."""

from producer.cli import entry

if __name__ == "__main__":
    entry()
