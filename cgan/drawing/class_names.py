"""Labels of the classes that a text asks for, by number, or by the names that a generator's file has."""

import operator
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cgan.base.errors import CganError

MAX_LISTED_NAMES = 12  # in a message
MAX_DIGIT_CLASSES = 10  # of which each has a digit of its own


def names_in(facts: Any, classes: int) -> list[str] | None:
    """The names that a file's facts give the classes; None where there is not one for each that prints."""
    names = facts.get("class_names")
    if not isinstance(names, list) or len(names) != classes:
        return None
    fit = all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
    return names if fit else None


class Classes:
    """Reads which of `count` classes is asked for, by number or, where they have `names`, by these.

    `table`: the label of each spelling, of names also in small letters where that is of one class alone.
    `joins_digits`: whether digits can stand together, 2024. The page reads a text by both (play_text.js).
    """

    def __init__(self, count: int, names: Sequence[str] | None = None) -> None:
        self.count = count
        beyond_digits = count > MAX_DIGIT_CLASSES
        self.names = [" ".join(name.split()) for name in names or ()]
        exact = {name: label for label, name in enumerate(self.names)}
        spellings = Counter(name.lower() for name in self.names)
        lone = [name for name in exact if spellings[name.lower()] == 1]
        small = {name.lower(): exact[name] for name in lone}
        numbers = [name for name in exact if name.isascii() and name.isdecimal()]
        # Else 60 is not 6 and 0.
        self.joins_digits = {*map(len, numbers)} == {1} if numbers else not beyond_digits
        # Where a 7 is the name of another class, or 12 are two names, a number would be ambiguous.
        self.takes_numbers = all(str(exact[name]) == name for name in numbers)
        self.takes_numbers &= not (beyond_digits and numbers and self.joins_digits)
        own = {str(label): label for label in range(count)} if self.takes_numbers else {}
        self.table = own | small | exact

    def labels(self, text: str) -> list[int]:
        """The labels that a text asks for. Raises CganError that names the first part that is no class.

        Up to 10 classes each digit is a label ("2024"); beyond, numbers stand between commas or spaces
        ("12,3 40"). Classes with names are called by these, too ("cat, dog 3"), in capitals or not; those of
        single characters also by a word ("HELLO"). Around a name of several words there are commas.
        """
        labels = list[int]()
        for part in text.split(","):
            words = part.split()
            if (label := self._label(" ".join(words))) is not None:
                labels.append(label)
            else:
                labels += [label for word in words for label in self._labels_of(word)]
        if not labels:
            raise CganError(f"the text to draw is empty. {self.listed()}")
        return labels

    def _labels_of(self, word: str) -> list[int]:
        if (label := self._label(word)) is not None:
            return [label]
        labels = [label for one in word if (label := self._label(one)) is not None]
        if len(labels) == len(word) and (self.joins_digits or not re.search("[0-9]", word)):
            return labels
        raise CganError(f"{word[:40]!r} is not a class. {self.listed()}")

    def label(self, position: int, item: int | str) -> int:
        """The label of an item of a list: a class's number, or its name. Raises CganError."""
        if isinstance(item, str):
            label = self._label(" ".join(item.split())) if self.names else None
        else:
            label = operator.index(item) if hasattr(item, "__index__") else None
        if label is None or not 0 <= label < self.count:
            words = f"label {item!r:.40} at index {position} is not a class."
            raise CganError(f"{words} {self.listed()}")
        return label

    def _label(self, word: str) -> int | None:
        return self.table.get(word, self.table.get(word.lower()))

    def listed(self) -> str:
        if not self.names:
            separated = "" if self.joins_digits else ', separated by commas or spaces ("12,3 40")'
            return f"The classes are 0 to {self.count - 1}{separated}."
        shown = ", ".join(self.names[:MAX_LISTED_NAMES])
        more = f", … ({self.count:,} in all)" if self.count > MAX_LISTED_NAMES else ""
        numbers = f", or their numbers, 0 to {self.count - 1}" if self.takes_numbers else ""
        return f"The classes are {shown}{more}{numbers}; put commas between them."
