"""What `switchboard dev` runs: emulator, service and demo page in one process, on 127.0.0.1."""

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ryaml

from switchboard import app, data, server
from switchboard.config import report
from switchboard.config.reading import check, parse
from switchboard.config.schema import Config
from switchboard.dev.issuer import DevIssuer, state_folder
from switchboard.dev.policy import PROVIDER_KEY, for_this_machine, kinds_of, shown_on_page
from switchboard.endpoints import demo
from switchboard.settings import Settings

HOST = "127.0.0.1"
EXAMPLE = "switchboard.example.yaml"


class CannotDevelop(Exception):
    """The policy has mistakes; the message lists them."""


async def serve_here(
    config_file: Path | None,
    *,
    port: int,
    ops_port: int,
    live: bool,
    command: str,
    echo: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
        config_file: a policy; None takes the example.
        port: public port, with the page; 0 takes a free one.
        ops_port: metrics and health; 0 takes a free one.
        live: use the policy's own providers.
        command: how the user called `switchboard`, for the lines to paste.
        echo: prints a line for the user.
    """
    public, ops = server.bind(HOST, port), server.bind(HOST, ops_port)
    url, ops_url = f"http://{HOST}:{server.port_of(public)}", f"http://{HOST}:{server.port_of(ops)}"
    async with AsyncExitStack() as stack:
        tree = ryaml.loads(data.text(EXAMPLE)) if config_file is None else parse(config_file)
        kinds = () if live else sorted(set(kinds_of(tree).values()))
        emulated = [await _emulator(stack, kind) for kind in kinds]
        issuer = DevIssuer(state_folder(os.environ))
        made = for_this_machine(
            tree,
            issuer,
            origins=[url, url.replace(HOST, "localhost")],
            emulators=None if live else dict(zip(kinds, [base_url for _, base_url in emulated], strict=True)),
        )
        config = _checked(made, str(config_file or EXAMPLE))
        listeners = [listener for listener, _ in emulated]
        service = await stack.enter_async_context(
            app.build(
                _settings(url),
                config,
                environ={**os.environ, PROVIDER_KEY: f"sk-dev-{secrets.token_hex(16)}"},
                extra_routes=demo.routes(
                    shown_on_page(config, live=live, ops_url=ops_url),
                    issuer.issue,
                    data.text("sample-offer.sdp"),
                ),
            )
        )
        listeners += [
            server.Listener(service.public, public, service.observe, takes_work=True),
            server.Listener(service.ops, ops),
        ]

        def on_ready() -> None:
            service.readiness.ready()
            echo(_welcome(config, url, ops_url, live=live, command=command))

        # Nobody has to be told: whoever stops it sits before it.
        stopping = server.Stopping(drain_seconds=1, on_drain=service.readiness.drain)
        await server.serve(listeners, stopping, on_ready=on_ready)


async def _emulator(stack: AsyncExitStack, kind: str) -> tuple[server.Listener, str]:
    """Where providers of this kind are emulated, and the base URL."""
    from switchboard import emulator  # noqa: PLC0415 - aiortc is an extra, and `--live` does without it

    emulated = emulator.create_app(emulator.Options(azure=kind == "azure"))
    await stack.enter_async_context(emulated.router.lifespan_context(emulated))
    listener = server.Listener(emulated, server.bind(HOST, 0), takes_sockets=True)
    return listener, f"http://{HOST}:{server.port_of(listener.socket)}{emulated.state.emulator.flavour.prefix}"


def _checked(tree: Mapping[str, Any], name: str) -> Config:
    checked = check(tree, today=datetime.now(UTC).date())
    if checked.config is None:
        raise CannotDevelop(report.as_text(checked, name, environ=os.environ))
    return checked.config


def _settings(url: str) -> Settings:
    # Secrets of this run alone: nothing that is sealed here has to be opened by another process.
    return Settings(
        public_url=url,
        signing_keys=secrets.token_hex(32),
        user_key_secret=secrets.token_hex(32),
        # Whole lines for people to follow; nobody will ask whether one is missing.
        audit="stdout",
        audit_key="none",
        audit_fsync=False,
        audit_anchors="off",
        # A page that is loaded again and again while it is being written is no flood; `demo` shows the users' limits.
        edge_exempt="127.0.0.0/8,::1/128",
    )


def _welcome(config: Config, url: str, ops_url: str, *, live: bool, command: str) -> str:
    tenant = next(iter(config.tenants))
    login = f'-H "Authorization: Bearer $({command} issue --tenant {tenant} --subject alice)"'
    provider = "the real provider (calls cost)" if live else "the emulator"
    return f"""
  Switchboard is ready, with {provider} behind it.

    Talk:     {url}/demo
    Contract: {url}/docs
    Metrics:  {ops_url}/metrics

  Or by hand (each line works when pasted into another terminal):

    curl -s {login} {url}/token

    curl -s {url}/demo/offer.sdp | curl -si {login} -H 'Content-Type: application/sdp' --data-binary @- {url}/sdp

    curl -s {ops_url}/metrics | grep ^switchboard_decisions

  The audit log follows, one line per decision. Stop with Ctrl-C.
"""
