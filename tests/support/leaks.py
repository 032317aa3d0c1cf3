"""Everything that the tests make the service say, held against everything that it must never say.

Each test adds the secrets it plants and the texts it sees; the whole run is scanned once, at its end.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

SHORT_LIVED = ("JWT", "client secret or grant")  # encoded already, and too many to be looked for in other forms


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

    def _without_what_was_meant(self) -> Iterator[tuple[str, str]]:
        """What was said, less each credential in its own answer: a user's own token holds the user's name."""
        meant: dict[str, list[str]] = {}
        for place, value in sorted(self.pardons, key=lambda pardon: -len(pardon[1])):
            meant.setdefault(place, []).append(value)
        for place, text in self.texts:
            left = text
            for value in meant.get(place, ()):
                left = left.replace(value, "")
            yield place, left

    def found(self) -> list[str]:
        """Where something was said that must not be, in whatever form."""
        said = list(self._without_what_was_meant())
        texts = "\n".join(text for _, text in said)
        words = "\n".join({word for _, text in said for word in text.split()})  # most of it is said again and again
        forms = [
            (form, value, kind)
            for value, kind in self.secrets.items()
            for form in _forms(value, kind)
            if form in (texts if any(map(str.isspace, form)) else words)
        ]
        return [
            f"{kind} in {place}: …{text[max(0, text.find(form) - 60) : text.find(form)]}[HERE]"
            for place, text in said
            for form, value, kind in forms
            if form in text and (place, value) not in self.pardons
        ]


def _forms(value: str, kind: str) -> Iterator[str]:
    """The value itself; and as a URL, JSON, hexadecimal digits and base64 write it, wherever in them it begins."""
    yield value
    if kind.startswith(SHORT_LIVED):
        return
    encoded = value.encode()
    others = {quote(value, safe=""), value.encode("unicode_escape").decode(), encoded.hex(), encoded.hex().upper()}
    for shift in range(3):
        # The characters that depend on what stands before and behind are left out.
        inner = base64.b64encode(b"\0" * shift + encoded)[4 if shift else 0 : -4].decode()
        others |= {inner, inner.replace("+", "-").replace("/", "_")}
    yield from others - {value}


LEAKS = Leaks()
