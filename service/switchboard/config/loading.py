"""A policy that is read again and again: only files that have changed, each by itself, and only what they hold is made
anew. Everything here blocks, so it belongs into a thread.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from switchboard.config import schema
from switchboard.config.compile import all_origins, tenant_of, tenants_of
from switchboard.config.mistakes import Mistake, shown
from switchboard.config.reading import Unreadable, bytes_of, files_of, is_policy, mistakes_of, tree_of
from switchboard.config.rules import Head, between, head_of, within
from switchboard.config.secrets import FILE, SecretMissing, Secrets
from switchboard.tenants import Origins, Tenant

MOST_LOOKS = 5  # at files that change while they are read
SECTIONS = ("providers", "issuers", "tenants")

Stamp: TypeAlias = tuple[int, ...]
"""What differs when a file has been written, replaced, or its symbolic link leads elsewhere."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy without mistakes: providers and issuers as they were written, tenants as requests see them."""

    providers: Mapping[str, schema.Provider]
    issuers: Sequence[schema.Issuer]
    tenants: Mapping[str, Tenant]
    origins: Origins
    read: Sequence[str] = ()
    """The names of the files that had to be read for this; the others were as before."""

    @classmethod
    def of(cls, config: schema.Config, secrets: Secrets) -> "Loaded":
        """A policy that has been checked as a whole.

        Raises:
            SecretMissing: an MCP tool refers to a secret that is not there.
        """
        tenants = tenants_of(config, secrets)
        return cls(config.providers, config.issuers, tenants, all_origins(tenants.values()))


class Mistaken(Exception):
    """A policy has mistakes; the message says how many."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = mistakes
        super().__init__(f"{len(mistakes)} mistake{'' if len(mistakes) == 1 else 's'}")


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one file holds. What is written and the heads are there even if something about it is wrong."""

    digest: bytes
    sections: frozenset[str] = frozenset()
    providers_written: Mapping[str, Any] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    issuers_written: Sequence[Any] = ()
    providers: Mapping[str, schema.Provider] = field(default_factory=dict)
    issuers: Sequence[schema.Issuer] = ()
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    references: Mapping[str, bytes] = field(default_factory=dict)
    """Digests of the secrets that went into its tenants, by their references."""


class Source:
    """The policy in a file or folder.

    Args:
        path: a YAML file, or a folder whose YAML files are read as one policy.
        secrets: what its tenants refer to.
    """

    def __init__(self, path: Path, secrets: Secrets) -> None:
        self._path = path
        self._secrets = secrets
        self._pieces: dict[str, tuple[Stamp, _Piece]] = {}
        self._secret_files: frozenset[str] = frozenset()
        self._looked_up: set[str] = set()
        self.seen = 0
        """What `look` gave for the files that were loaded last, whether they were good or not."""

    def look(self) -> int:
        """A number that changes when a file of the policy, or a secret that it was made with, has changed.

        Costs one `stat` per file, and works on any file system: nothing has to tell of changes.
        """
        return self._look_at_files() + self._look_at_secrets()

    def load(self) -> Loaded:
        """The policy as it is now.

        Raises:
            Mistaken: it has mistakes; what was loaded before is still the last good one.
            SecretMissing: a tenant refers to a secret that is not there.
        """
        self._looked_up.clear()
        before = self._look_at_files()
        try:
            for _ in range(MOST_LOOKS):
                pieces, read = self._read_pieces()
                after = self._look_at_files()
                # A folder that is being exchanged would be read half before and half after.
                if after == before:
                    break
                before = after
            loaded = _assembled(pieces)
            self._secret_files = frozenset(_secret_files(pieces.values(), loaded.issuers))
        except (Mistaken, SecretMissing):
            # What was missing may appear.
            self._secret_files |= {name.removeprefix(FILE) for name in self._looked_up if name.startswith(FILE)}
            raise
        finally:
            self.seen = before + self._look_at_secrets()
        return replace(loaded, read=read)

    def _look_at_files(self) -> int:
        return sum(hash((name, stamp)) for name, stamp in self._stamps())

    def _look_at_secrets(self) -> int:
        return sum(hash((name, _stamp_of(name))) for name in self._secret_files)

    def _stamps(self) -> Iterator[tuple[str, Stamp]]:
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if is_policy(entry.name):
                        yield entry.name, _stamp_of(entry)
        except NotADirectoryError:
            yield self._path.name, _stamp_of(self._path)
        except OSError as error:
            yield "", (error.errno or 0,)

    def _read_pieces(self) -> tuple[dict[str, _Piece], Sequence[str]]:
        try:
            files = files_of(self._path)
        except Unreadable as error:
            raise Mistaken([error.mistake]) from None
        known, read = {}, []
        for file in files:
            name, stamp = file.name, _stamp_of(file)
            before = self._pieces.get(name)
            if before is None or before[0] != stamp or not self._has_same_secrets(before[1]):
                piece = self._read(file, before[1] if before else None)
                if before is None or piece is not before[1]:
                    read.append(name)
                before = stamp, piece
            known[name] = before
        self._pieces = known
        return {name: piece for name, (_, piece) in known.items()}, read

    def _read(self, file: Path, before: _Piece | None) -> _Piece:
        try:
            content = bytes_of(file)  # after its stamp was taken, so that a later change is seen
            digest = blake2b(content, digest_size=16).digest()
            # Touched, copied anew or linked elsewhere, with nothing changed.
            if before is not None and before.digest == digest and self._has_same_secrets(before):
                return before
            tree = tree_of(file, content)
        except Unreadable as error:
            return _Piece(b"", mistakes=[error.mistake])
        return self._piece(digest, tree)

    def _piece(self, digest: bytes, tree: Mapping[str, Any]) -> _Piece:
        written = {section: tree.get(section) for section in SECTIONS}
        issuers = written["issuers"] if isinstance(written["issuers"], list) else []
        tenants = _mapping(written["tenants"])
        piece = _Piece(
            digest,
            sections=frozenset(tree),
            providers_written=_mapping(written["providers"]),
            heads={name: head_of(tenant) for name, tenant in tenants.items()},
            issuers_written=[_head_of_issuer(one) for one in issuers],
        )
        mistakes: list[Mistake] = []
        part = None
        try:
            part = schema.Part.model_validate(tree)
        except ValidationError as error:
            mistakes += mistakes_of(error)
        at_fault = {mistake.path for mistake in mistakes}
        mistakes += [mistake for mistake in within(tenants) if mistake.path not in at_fault]
        if part is None or mistakes:
            return replace(piece, mistakes=mistakes)
        noting = _Noting(self._secrets, self._looked_up)
        return replace(
            piece,
            providers=part.providers,
            issuers=part.issuers,
            tenants={name: tenant_of(name, tenant, noting) for name, tenant in part.tenants.items()},
            references=noting.noted,
        )

    def _has_same_secrets(self, piece: _Piece) -> bool:
        try:
            return all(_digest(self._secrets.resolve(name)) == digest for name, digest in piece.references.items())
        except SecretMissing:
            return False


class _Noting(Secrets):
    """Secrets that remember which of them were asked for."""

    def __init__(self, secrets: Secrets, looked_up: set[str]) -> None:
        self._secrets = secrets
        self._looked_up = looked_up
        self.noted: dict[str, bytes] = {}

    def resolve(self, reference: str) -> str:
        """See `Secrets.resolve`."""
        self._looked_up.add(reference)
        value = self._secrets.resolve(reference)
        self.noted[reference] = _digest(value)
        return value


def _assembled(pieces: Mapping[str, _Piece]) -> Loaded:
    """One policy of several files.

    Raises:
        Mistaken: with every mistake of every file, and of all together.
    """
    mistakes: list[Mistake] = []
    names: dict[str, dict[str, str]] = {"providers": {}, "tenants": {}}
    issuers_written: list[Any] = []
    for file, piece in pieces.items():
        mistakes += [_shifted(mistake, len(issuers_written)) for mistake in piece.mistakes]
        issuers_written += piece.issuers_written
        for section, in_file in (("providers", piece.providers_written), ("tenants", piece.heads)):
            for name in in_file:
                if names[section].setdefault(name, file) != file:
                    place, found = (section, name), f"a second time in {file}"
                    mistakes.append(Mistake(place, found, "a name that stands in one file"))
    providers = {name: one for piece in pieces.values() for name, one in piece.providers_written.items()}
    heads = {name: head for piece in pieces.values() for name, head in piece.heads.items()}
    sections: dict[str, Any] = {**names, "issuers": issuers_written}
    written = {section for piece in pieces.values() for section in piece.sections}
    if any(not piece.digest for piece in pieces.values()):
        raise Mistaken(mistakes)  # what is missing elsewhere may stand in a file that cannot be read
    at_fault = {mistake.path for mistake in mistakes}
    mistakes += [
        mistake
        for mistake in (*_empty(sections, written), *between(providers, issuers_written, heads))
        if mistake.path not in at_fault
    ]
    if mistakes:
        raise Mistaken(mistakes)
    tenants = {name: tenant for piece in pieces.values() for name, tenant in piece.tenants.items()}
    return Loaded(
        providers={name: provider for piece in pieces.values() for name, provider in piece.providers.items()},
        issuers=[issuer for piece in pieces.values() for issuer in piece.issuers],
        tenants=tenants,
        origins=all_origins(tenants.values()),
    )


def _empty(sections: Mapping[str, Any], written: Collection[str]) -> Iterator[Mistake]:
    for section in SECTIONS:
        if section not in written:
            yield Mistake((section,), None, "a value; this is required")
        elif not sections[section]:
            yield Mistake((section,), shown((section,), sections[section]), "at least 1 of them")


def _shifted(mistake: Mistake, issuers_before: int) -> Mistake:
    """A mistake of one file, placed as in all of them together."""
    match mistake.path:
        case ("issuers", int(index), *rest):
            return replace(mistake, path=("issuers", index + issuers_before, *rest))
        case _:
            return mistake


def _secret_files(pieces: Iterable[_Piece], issuers: Iterable[schema.Issuer]) -> Iterator[str]:
    for piece in pieces:
        yield from (name.removeprefix(FILE) for name in piece.references if name.startswith(FILE))
    for issuer in issuers:
        for reference in (issuer.secret, issuer.public_key):
            if reference is not None and reference.startswith(FILE):
                yield reference.removeprefix(FILE)


def _head_of_issuer(issuer: object) -> Mapping[str, Any]:
    """What of an issuer has to fit to the rest."""
    return {name: _mapping(issuer).get(name) for name in ("issuer", "tenant", "tenants")}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _stamp_of(file: "str | Path | os.DirEntry[str]") -> Stamp:
    try:
        found = file.stat() if isinstance(file, os.DirEntry) else os.stat(file)  # noqa: PTH116 - half as slow
    except OSError as error:
        return (error.errno or 0,)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _digest(value: str) -> bytes:
    return blake2b(value.encode(), digest_size=16).digest()
