"""Text for people: how shares, times and names are written."""

from collections.abc import Sequence


def percent(share: float, digits: int = 1) -> str:
    """`98.6 %`: how a share is written everywhere."""
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[object], most: int = 5) -> str:
    """`a, b, c and 12 more`, of names as they are in files; `an empty text` for one."""
    shown = ", ".join(
        str(name)[:200].replace("\n", "\\n") or "an empty text" for name in names[:most]
    )
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def bullets(lines: Sequence[str], most: int = 5) -> str:
    """The first `most` lines as a bulleted list, each after a line break."""
    return "".join(f"\n  - {line}" for line in lines[:most])


def drawable(names: Sequence[str]) -> list[str]:
    """The names, for a picture; their numbers where one has letters that matplotlib's font lacks: it has
    Latin, Greek and Cyrillic ones."""
    if all(ord(letter) < 0x590 for name in names for letter in name):
        return [*names]
    return [str(number) for number in range(len(names))]


def printable(text: str, keep: str = "") -> str:
    """The text with unprintable characters escaped: no file's name or content commands the terminal."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )
