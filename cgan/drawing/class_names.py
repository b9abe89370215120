"""Which classes a text asks for: by their numbers, or by the names that a generator's file gives them."""

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cgan.errors import CganError

MAX_LISTED_NAMES = 12  # in a message
MAX_DIGIT_CLASSES = 10  # of which each has a digit of its own


def names_in(facts: Any, classes: int) -> list[str] | None:
    """The names that a file's facts give the classes; None where there is not one for each that can be
    printed: another would garble a page or a terminal."""
    names = facts.get("class_names")
    if not isinstance(names, list) or len(names) != classes:
        return None
    fit = all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
    return names if fit else None


class Classes:
    """Reads which of `count` classes is asked for, by number or, where they have `names`, by these."""

    def __init__(self, count: int, names: Sequence[str] | None = None) -> None:
        self.count = count
        self.beyond_digits = count > MAX_DIGIT_CLASSES
        self.names = [" ".join(name.split()) for name in names or ()]
        self.exact = {name: label for label, name in enumerate(self.names)}
        spellings = Counter(name.casefold() for name in self.names)
        self.folded = {
            name.casefold(): label
            for name, label in self.exact.items()
            if spellings[name.casefold()] == 1
        }
        numbers = [name for name in self.exact if _number(name) is not None]
        self.spelled = all(len(name) == 1 for name in numbers)  # else 60 is not 6 and 0
        # Where a 7 is the name of another class, or 12 are two names, a number would be ambiguous.
        self.numbered = all(self.exact[name] == int(name) for name in numbers)
        self.numbered &= not (self.beyond_digits and numbers and self.spelled)

    def labels(self, text: str) -> list[int]:
        """The labels that a text asks for. Raises CganError that names the first part that is no class.

        Up to 10 classes each digit is a label ("2024"; spaces and commas between them are skipped); beyond,
        numbers stand between commas or spaces ("12,3 40"). Classes with names are called by these, too
        ("cat, dog 3"), in capitals or not; those whose names are single characters also by a word ("HELLO").
        Around a name of several words there are commas.
        The page reads a text by the same rules (cgan/page/play_text.js).
        """
        parts = [words for part in text.split(",") if (words := part.split())]
        if not parts:
            raise CganError(f"the text to draw is empty. {self.listed()}")
        labels: list[int] = []
        for words in parts:
            label = self._label(" ".join(words))
            for word in words if label is None else [" ".join(words)]:
                labels += self._labels_of(word, text)
        return labels

    def _labels_of(self, word: str, text: str) -> list[int]:
        """The labels of a word: a name, a number, or single characters that are classes."""
        if (label := self._label(word)) is not None:
            return [label]
        label_of = self._by_name if self.beyond_digits else self._label
        labels = [label for character in word if (label := label_of(character)) is not None]
        if len(labels) == len(word) and (self.spelled or not word.isdecimal()):
            return labels
        place = ""
        if not self.names and self.beyond_digits:
            number = text.replace(",", " ").split().index(word) + 1
            place = f", number {number} of the text to draw,"
        elif not self.names:
            word = next(character for character in word if label_of(character) is None)
            place = f", character {text.index(word) + 1} of the text to draw,"
        raise CganError(f"{word[:40]!r}{place} is not a class. {self.listed()}")

    def label(self, position: int, item: int | str) -> int:
        """The label of an item of a list: the number of a class, or its name as a text. Raises CganError."""
        if isinstance(item, str):
            label = self._label(" ".join(item.split())) if self.names else None
        else:
            label = operator.index(item) if hasattr(item, "__index__") else None
        if label is None or not 0 <= label < self.count:
            words = f"label {item!r:.40} at index {position} is not a class."
            raise CganError(f"{words} {self.listed()}")
        return label

    def _label(self, word: str) -> int | None:
        """The label of a name or a number: up to 10 classes one of one digit, since "07" is two of them."""
        label = self._by_name(word)
        if label is None and self.numbered and (len(word) == 1 or self.beyond_digits):
            label = _number(word)
        return label if label is not None and label < self.count else None

    def _by_name(self, word: str) -> int | None:
        return self.exact.get(word, self.folded.get(word.casefold()))

    def listed(self) -> str:
        """Which classes there are, as a sentence."""
        if not self.names:
            separated = ', separated by commas or spaces ("12,3 40")' if self.beyond_digits else ""
            return f"The classes are 0 to {self.count - 1}{separated}."
        shown = ", ".join(self.names[:MAX_LISTED_NAMES])
        more = f", … ({self.count:,} in all)" if self.count > MAX_LISTED_NAMES else ""
        numbers = f", or their numbers, 0 to {self.count - 1}" if self.numbered else ""
        return f"The classes are {shown}{more}{numbers}; put commas between them."


def _number(word: str) -> int | None:
    # isdecimal() alone would let other scripts' digits through.
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 10 else None
