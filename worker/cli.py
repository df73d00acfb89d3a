"""``labelmill-worker``: make, look at, check and serve model files.

Exit codes: 0 done; 2 wrong command line; 10 to 29 what is wrong with the model, each with its own (see
:mod:`jobs.errors`); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from jobs.errors import LabelmillError, ModelUnsupportedError
from jobs.parser import Parser

__all__ = ["build_parser", "entry", "main"]

#: Commands that live in modules of their own, each with ``add_arguments(parser)`` and ``run(args) -> int``,
#: imported only when they are called: a worker for ONNX must not load what an export needs.
COMMANDS = {
    "bench": ("worker.commands.bench", "time a model over batch sizes and threads"),
    "check": ("worker.commands.check", "say whether a worker could serve a model file here"),
    "export": ("worker.commands.export", "make a model file from a PyTorch network"),
    "inspect": ("worker.commands.inspect", "show what a model file says of itself"),
    "prepare": ("worker.commands.prepare", "make a model of the house in the model folder"),
    "quantize": ("worker.commands.quantize", "make the INT8 form of an ONNX file and say whether to use it"),
    "serve": ("worker.serve", "start a worker with a warm model"),
    "tune": ("worker.commands.tune", "find the best pool, threads and batch size for a model on this machine"),
    "health": ("worker.health", "say whether the worker is ready"),
}
#: Those of them that make a model file.
MAKERS = ("export", "prepare", "quantize")
#: The same as where a model's runtime is not installed.
EXIT_NOT_INSTALLED = ModelUnsupportedError.exit_code
EXAMPLES = """examples:
  labelmill-worker prepare efficientnet-lite0
  labelmill-worker export --arch densenet161 --weights densenet161.pth --format onnx --output densenet161.onnx
  labelmill-worker check densenet161.onnx
  labelmill-worker serve --model efficientnet-lite0
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only ``command``, where it is given, gets its arguments."""
    parser = Parser(
        prog="labelmill-worker",
        description="Make, check and serve model files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        child = commands.add_parser(name, help=summary, description=summary)
        if name == command:
            called = importlib.import_module(module)
            called.add_arguments(child)
            child.epilog = getattr(called, "EPILOG", None)
            child.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error of ours is one line on stderr and its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((argument for argument in arguments if argument in COMMANDS), None)
    try:
        args = build_parser(command).parse_args(arguments)
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args))
    except LabelmillError as error:
        print(f"labelmill-worker: {error.message}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        extra = "export" if command in MAKERS else "onnx] or labelmill[torch"
        print(f"labelmill-worker: {command} needs {error.name}; install labelmill[{extra}]", file=sys.stderr)
        return EXIT_NOT_INSTALLED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); Python would complain again as it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"labelmill-worker: {error}", file=sys.stderr)
        return 74  # EX_IOERR: a full disk, a file that may not be read


def entry() -> None:
    """The console script."""
    sys.exit(main())
