"""Names of things that do not exist: unique, and none stands inside another.

Every name has one word of its own, its stem. Stems have seven letters, so that no stem is a part of another, and a
pair of consonants that European names hardly know (``zd``, ``vk``), so that a language model has not met them. The
other words of a name come from short lists and are no stems.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftkit.rag.world.draw import Draw

CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aeiou"
PAIRS = ("bv", "dv", "fn", "gv", "kd", "lz", "mv", "nv", "pv", "rz", "sg", "tv", "vk", "zd", "zg", "zm")
# c: a consonant, v: a vowel, p: a pair of consonants.
SHAPES = ("cvcvpv", "cvpvcv", "vpvcvc")

GIVEN = (
    "Adrun", "Belda", "Brivo", "Dolma", "Eskin", "Fenno", "Gisla", "Halvo", "Ilmet", "Jorva", "Kelza", "Lusko",
    "Melka", "Nivar", "Oksel", "Pelgo", "Rusmi", "Sovrin", "Tesma", "Uldic", "Vesna", "Wimar", "Yorun", "Zelko",
)  # fmt: skip
TRADES = ("Foundry", "Press", "Brewery", "Shipyard", "Tannery", "Glassworks", "Pottery", "Bindery", "Sawmill")


def stem(draw: Draw) -> str:
    """A word of seven letters that is no word."""
    kinds = {"c": tuple(CONSONANTS), "v": tuple(VOWELS), "p": PAIRS}
    return "".join(draw.one(kinds[letter]) for letter in draw.one(SHAPES)).capitalize()


class Names:
    """Hands out names that nobody has yet.

    Args:
        taken: Names that are in use.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._words = {word for name in taken for word in name.split()}

    def stem(self, draw: Draw) -> str:
        """A new stem."""
        while (word := stem(draw)) in self._words:
            pass
        self._words.add(word)
        return word

    def similar(self, name: str, draw: Draw) -> str:
        """A new name that differs from ``name`` in one letter of its stem."""
        old, _, rest = name.partition(" ")
        word = next((word for word in draw.shuffled(list(_one_letter_off(old))) if word not in self._words), None)
        if word is None:
            word = self.stem(draw)
        self._words.add(word)
        return f"{word} {rest}".strip()

    def person(self, draw: Draw) -> str:
        """A new given name and surname."""
        return f"{draw.one(GIVEN)} {self.stem(draw)}"

    def company(self, draw: Draw) -> str:
        """A new company, named with its trade."""
        return f"{self.stem(draw)} {draw.one(TRADES)}"


def _one_letter_off(word: str) -> Iterator[str]:
    # The first letter stays, as it does where people mix names up.
    for place in range(1, len(word)):
        letters = VOWELS if word[place] in VOWELS else CONSONANTS
        for letter in letters:
            if letter != word[place]:
                yield word[:place] + letter + word[place + 1 :]
