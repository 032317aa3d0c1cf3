"""One policy after the other: made of what was loaded; what it shares with the one before is kept as it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from switchboard.admission import Policy
from switchboard.app.issuers import Issuers, Prepared
from switchboard.app.providers import Upstream, Upstreams, read
from switchboard.config import schema
from switchboard.config.loading import Loaded
from switchboard.config.secrets import Secrets
from switchboard.identity.verifier import Verifier
from switchboard.metrics import Metrics
from switchboard.providers import Provider


@dataclass(frozen=True, slots=True)
class Made:
    """All that a policy consists of, secrets included; nothing of it is used yet."""

    loaded: Loaded
    issuers: Prepared
    providers: Mapping[str, Upstream]


class PolicyMaker:
    """Makes policies.

    Args:
        issuers: those of the policy in use.
        upstreams: its providers.
        secrets: where their keys are.
        metrics: has labels for what is in them, in their order, as far as there is room.
    """

    def __init__(self, issuers: Issuers, upstreams: Upstreams, secrets: Secrets, metrics: Metrics) -> None:
        self._issuers = issuers
        self._upstreams = upstreams
        self._secrets = secrets
        self._metrics = metrics
        self._providers: Mapping[str, tuple[schema.Provider, Provider]] = {}

    def make(self, loaded: Loaded) -> Made:
        """What a policy consists of; reads files, so it belongs into a thread, and changes nothing.

        Raises:
            SecretMissing, CannotServe: a secret is not there, or is not what is needed.
        """
        return Made(loaded, self._issuers.prepare(loaded.issuers), read(loaded.providers, self._secrets))

    def policy_of(self, made: Made) -> Policy:
        """The policy, with everything running that it needs: it is going to be used."""
        loaded = made.loaded
        self._metrics.show(tenants=loaded.tenants, issuers=made.issuers.issuers, providers=loaded.providers)
        self._issuers.start(made.issuers)
        new = self._upstreams.of(made.providers)
        self._providers = {
            name: (written, self._as_before(name, written) or new[name]) for name, written in loaded.providers.items()
        }
        return Policy(
            verifier=Verifier(made.issuers.issuers),
            tenants=loaded.tenants,
            providers={name: provider for name, (_, provider) in self._providers.items()},
            origins=loaded.origins,
        )

    def let_go(self, made: Made) -> None:
        """End what no policy needs any more, now that this one is used."""
        self._issuers.leave(made.issuers)

    def _as_before(self, name: str, written: schema.Provider) -> Provider | None:
        before = self._providers.get(name)
        return before[1] if before is not None and before[0] == written else None
