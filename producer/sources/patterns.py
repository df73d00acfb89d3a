"""Patterns of names: ``photos/**/*.jpg``."""

from __future__ import annotations

import re

__all__ = ["IMAGE_SUFFIXES", "Pattern", "is_pattern"]

_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".jpe", ".jfif")  # frequent ones first
IMAGE_SUFFIXES = frozenset(_SUFFIXES)

_MAGIC = re.compile(r"[*?\[]")


def is_pattern(name: str) -> bool:
    """True where a name has ``*``, ``?`` or ``[`` in it."""
    return bool(_MAGIC.search(name))


class Pattern:
    """A pattern, split into ``folder``, which has no magic in it, and what names below it must look like.

    ``*`` and ``?`` stay within one folder, ``**`` goes through any number of them. A pattern whose last part names no
    suffix takes image files only.
    """

    def __init__(self, pattern: str) -> None:
        parts = pattern.split("/")
        plain = next(i for i, part in enumerate(parts) if is_pattern(part))
        self.folder = "/".join(parts[:plain]) or ("/" if pattern.startswith("/") else "")
        self._any_suffix = "." in parts[-1]
        self._regex = re.compile(_translate(parts[plain:]))
        #: How many folders deep a match can lie; None where there is no end to it.
        self.depth = None if "**" in parts else len(parts) - plain

    def matches(self, name: str) -> bool:
        """True for a name below the folder that fits."""
        return bool(self._regex.fullmatch(name)) and (self._any_suffix or is_image(name))


def is_image(name: str) -> bool:
    """True where a name has an image's suffix."""
    return name.endswith(_SUFFIXES) or name.lower().endswith(_SUFFIXES)


def _translate(parts: list[str]) -> str:
    pieces = []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            pieces.append(".*" if last else "(?:.*/)?")
        else:
            pieces.append(_translate_part(part) + ("" if last else "/"))
    return "(?s:" + "".join(pieces) + ")"


def _translate_part(part: str) -> str:
    out, i = "", 0
    while i < len(part):
        char = part[i]
        end = part.find("]", i + 2) if char == "[" else -1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif end > 0:
            inner = part[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]"
            i = end
        else:
            out += re.escape(char)
        i += 1
    return out
