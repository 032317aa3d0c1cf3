"""The command line: reads settings and files, starts what `app` builds, decides nothing."""

import asyncio
import os
import shlex
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
import orjson

from switchboard import __version__

CONFIG_ARGUMENT = click.Path(path_type=Path, exists=True, readable=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="switchboard")
def main() -> None:
    """The front door between an app's end users and realtime voice APIs.

    \b
    Start here:
      switchboard dev                     everything on this machine, with a demo page; needs no key
      switchboard check switchboard.yaml  every mistake in a policy, and what would be right
      switchboard serve                   the service; settings come from SWITCHBOARD_* variables
    """  # noqa: D301 - click takes the backspace as "leave these lines as they are"


@main.command()
@click.argument("file", type=CONFIG_ARGUMENT, required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="For people or for machines.",
)
def check(file: Path | None, form: str) -> None:
    """Check a policy FILE, or a folder of files (default: $SWITCHBOARD_CONFIG).

    Prints every mistake with its path, what was found and what would be right, and exits with 1; or, if there is none,
    what will stop working soon and the effective session of each preset, secrets masked.
    """
    from switchboard.config import report
    from switchboard.config.reading import read

    path = file or _settings().config
    checked = read(path, today=datetime.now(UTC).date())
    if form == "json":
        click.echo(orjson.dumps(report.as_json(checked), option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo(report.as_text(checked, str(path), environ=os.environ), nl=False)
    sys.exit(1 if checked.mistakes else 0)


@main.command()
def schema() -> None:
    """Print the JSON Schema of a policy file, for editors: sessions included, field by field."""
    from switchboard.config.schema import Config

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


@main.command()
@click.option("--tenant", required=True, help="The tenant that the token leads to.")
@click.option("--subject", required=True, help="The user: the claim `sub`.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="A further claim; may be given again.")
@click.option("--seconds", type=click.IntRange(1, 86400), default=3600, show_default=True, help="How long it is valid.")
def issue(tenant: str, subject: str, claims: tuple[str, ...], seconds: int) -> None:
    """Print a JWT from the dev issuer, which only `switchboard dev` on this machine accepts."""
    from switchboard.dev.issuer import DevIssuer, state_folder

    pairs = {}
    for claim in claims:
        name, equals, value = claim.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{claim!r} is not of the form NAME=VALUE", param_hint="--claim")
        pairs[name] = value
    click.echo(DevIssuer(state_folder(os.environ)).issue(tenant, subject, pairs, seconds)[0])


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--key", "keys", multiple=True, metavar="sk-…", help="An accepted standard key (default: any `sk-…`).")
@click.option("--no-media", is_flag=True, help="Answer offers without WebRTC: for load, and without aiortc.")
def emulate(host: str, port: int, keys: tuple[str, ...], no_media: bool) -> None:
    """Run the provider emulator alone: OpenAI's realtime endpoints, answered with real WebRTC.

    Its faults are switched at run time: PUT /_emulator/faults, described by GET /_emulator/faults.
    """
    from switchboard import emulator, server

    _log_to_stderr("info")
    options = emulator.Options(keys=frozenset(keys), media=not no_media)

    async def run() -> None:
        listening = server.bind(host, port)
        app = emulator.create_app(options)
        async with app.router.lifespan_context(app):
            await server.serve(
                [server.Listener(app, listening)],
                drain_seconds=1,
                on_ready=lambda: click.echo(f"base URL: http://{host}:{server.port_of(listening)}/v1"),
                on_drain=lambda: None,
            )

    _run(run())


@main.command()
@click.option("--config", "config_file", type=CONFIG_ARGUMENT, help="A policy of your own (default: the example).")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Public port, with the page.",
)
@click.option("--ops-port", type=click.IntRange(0, 65535), default=9090, show_default=True, help="Metrics and health.")
@click.option(
    "--live", is_flag=True, help="Use the real provider of the policy; its key has to be set, and calls cost."
)
def dev(config_file: Path | None, port: int, ops_port: int, live: bool) -> None:
    """Run everything on this machine and open a voice call from the demo page.

    Needs no key, no Redis and no network: an embedded provider emulator, a dev issuer, state in memory. The policy's
    tenants are served as they are; its issuers and, without --live, its providers are replaced.
    """
    from switchboard.dev import run

    _log_to_stderr("warning")
    command = _called_as()
    _run(run.serve_here(config_file, port=port, ops_port=ops_port, live=live, command=command, echo=click.echo))


@main.command()
def serve() -> None:
    """Run the service.

    Settings come from the environment: SWITCHBOARD_CONFIG, SWITCHBOARD_PUBLIC_URL, …
    Refuses to start without what it needs, and says what. See docs/operations.md for every variable.
    """
    from switchboard import app, server
    from switchboard.config import report
    from switchboard.config.reading import read

    settings = _settings()
    _log_to_stderr(settings.log_level)
    checked = read(settings.config, today=datetime.now(UTC).date())
    if checked.config is None:
        click.echo(report.as_text(checked, str(settings.config), environ=os.environ), err=True, nl=False)
        sys.exit(1)
    config = checked.config

    async def run() -> None:
        public, ops = (
            server.bind(settings.host, settings.port),
            server.bind(settings.ops_host, settings.ops_port),
        )
        async with app.build(settings, config) as service:
            await server.serve(
                [server.Listener(service.public, public), server.Listener(service.ops, ops)],
                drain_seconds=settings.drain_seconds,
                on_ready=service.readiness.ready,
                on_drain=service.readiness.drain,
                on_hangup=service.on_hangup,
            )

    _run(run())


def _called_as() -> str:
    """How this program was started, for lines that are pasted into another terminal, in another folder."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return shlex.join([sys.executable, "-m", "switchboard"])
    return shlex.quote(str(program))


def _settings() -> Any:
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from switchboard.settings import PREFIX, Settings

    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(str(part).upper() for part in one['loc'][:1])}: {one['msg']}" for one in error.errors()
        ]
        _give_up("\n".join(lines))
    except (SettingsError, ValueError) as error:
        _give_up(str(error))


def _run(work: Coroutine[Any, Any, None]) -> None:
    import uvloop

    from switchboard.app import CannotServe
    from switchboard.config.reading import Unreadable
    from switchboard.config.secrets import SecretMissing
    from switchboard.dev.run import CannotDevelop
    from switchboard.server import PortTaken

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except (CannotServe, CannotDevelop, SecretMissing, Unreadable, PortTaken) as error:
        _give_up(str(error))


def _give_up(reason: str) -> NoReturn:
    click.echo(click.style("switchboard: ", fg="red", bold=True) + reason, err=True)
    sys.exit(1)


def _log_to_stderr(level: str) -> None:
    from switchboard import logs

    logs.configure(level)
