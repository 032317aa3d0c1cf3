"""Tenants: whose presets, origins and limits apply to a caller."""

from collections.abc import Mapping
from dataclasses import dataclass

from switchboard.errors import OriginNotAllowed, UnknownPreset
from switchboard.presets import Preset


@dataclass(frozen=True, slots=True)
class Origins:
    """Web origins (RFC 6454) that browsers may call from."""

    listed: frozenset[str] = frozenset()
    everyone: bool = False

    def allow(self, origin: str) -> bool:
        return self.everyone or origin.lower() in self.listed

    def union(self, other: "Origins") -> "Origins":
        return Origins(self.listed | other.listed, self.everyone or other.everyone)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer or product, with everything that is decided for its users."""

    name: str
    provider: str
    origins: Origins
    presets: Mapping[str, Preset]
    default_preset: str
    suspended: bool = False
    claims_in_use: frozenset[str] = frozenset()
    """Claims that some preset refers to: all that a grant has to carry along."""

    def check_origin(self, origin: str | None) -> None:
        """Refuse a browser on a page that is not the tenant's. No Origin header means no browser (RFC 6454).

        Raises:
            OriginNotAllowed: the origin is not on this tenant's list.
        """
        if origin is not None and not self.origins.allow(origin):
            raise OriginNotAllowed

    def preset(self, name: str | None) -> Preset:
        """The preset of that name, or the default one.

        Raises:
            UnknownPreset: there is none of that name.
        """
        preset = self.presets.get(self.default_preset if name is None else name)
        if preset is None:
            raise UnknownPreset
        return preset
