"""Everything that the tests make the service say, held against everything that it must never say.

Each test adds the secrets it plants and the texts it sees; the whole run is scanned once, at its end.
"""

import itertools
from dataclasses import dataclass, field


@dataclass
class Leaks:
    secrets: dict[str, str] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    pardons: set[tuple[str, str]] = field(default_factory=set)

    def plant(self, kind: str, value: str) -> str:
        """A value that must show up nowhere; returns it."""
        assert len(value) >= 8, f"too short to be told from chance: {value!r}"
        self.secrets[value] = kind
        return value

    def saw(self, place: str, text: str) -> None:
        """Something the service said."""
        if text:
            self.texts.append((place, text))

    def handed_out(self, place: str, value: str) -> None:
        """A credential: secret everywhere but in the one answer that is meant for it, also where it is cut short."""
        for part in (value, value[:40]):
            self.plant("client secret or grant", part)
            self.pardons.add((place, part))

    def found(self) -> list[str]:
        """Where something was said that must not be."""
        return [
            f"{kind} in {place}: …{text[max(0, text.find(value) - 60) : text.find(value)]}[HERE]"
            for (place, text), (value, kind) in itertools.product(self.texts, self.secrets.items())
            if value in text and (place, value) not in self.pardons
        ]


LEAKS = Leaks()
