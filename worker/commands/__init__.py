"""One module a command of labelmill-worker: ``add_arguments(parser)`` and ``run(args) -> int``."""
