"""The command line: reads settings and files, starts what `app` builds, decides nothing."""

import asyncio
import gc
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click
import orjson

from switchboard import __version__
from switchboard.probe.steps import STEPS

if TYPE_CHECKING:
    from switchboard.audit.anchors import Anchor
    from switchboard.probe.credentials import Credentials

PROBE_VARIABLES = "SWITCHBOARD_PROBE"

CONFIG_ARGUMENT = click.Path(path_type=Path, exists=True, readable=True)
FILE = click.Path(path_type=Path, exists=True, readable=True, dir_okay=False)
FILE_OR_INPUT = click.Path(path_type=Path, exists=True, readable=True, dir_okay=False, allow_dash=True)
STANDARD_INPUT = Path("-")
LAST_SECONDS = 0.1
# Looks for garbage: no request leaves any, so what is young is mostly what stays (users, calls). Seldom, because
# Python's own 700 objects are less than one request makes; in pieces, so that nobody waits for long.
YOUNG_OBJECTS = 100_000  # between two looks; a thousand requests in flight have some 60,000
YOUNG_LOOKS = 1  # after which those who have outlived them are looked at as well


class Moment(click.ParamType[str]):
    """A time as audit records have it."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """ISO 8601; without a zone it is UTC."""
        from switchboard.audit.event import utc_text

        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-11-20T10:00Z", param, ctx)
        return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def for_operators(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command to a running service."""
    url = click.option(
        "--url",
        metavar="URL",
        callback=_http_url,
        help="Where its ops port is (default: http://127.0.0.1:$SWITCHBOARD_OPS_PORT).",
    )
    return url(click.option("--json", "in_json", is_flag=True, help="For machines.")(command))


def _http_url(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if url is not None and not (re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url) and _has_host_and_port(url)):
        raise click.BadParameter("write it like http://127.0.0.1:9090")
    return url


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that there is not
        return False


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

    click.echo(DevIssuer(state_folder(os.environ)).issue(tenant, subject, _pairs(claims), seconds)[0])


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--key", "keys", multiple=True, metavar="sk-…", help="An accepted standard key (default: any `sk-…`).")
@click.option("--no-media", is_flag=True, help="Answer offers without WebRTC: for load, and without aiortc.")
@click.option("--azure", is_flag=True, help="Speak as a resource of Azure OpenAI does.")
@click.option("--no-call-ids", is_flag=True, help="Name no calls, as servers do that only speak like the provider.")
def emulate(*, host: str, port: int, keys: tuple[str, ...], no_media: bool, azure: bool, no_call_ids: bool) -> None:
    """Run the provider emulator alone: OpenAI's realtime endpoints, answered with real WebRTC, or over WebSocket.

    Its faults are switched at run time: PUT /_emulator/faults, described by GET /_emulator/faults; DELETE
    /_emulator/calls/{id} loses a call.
    """
    from switchboard import emulator, server

    _log_to_stderr("info")
    options = emulator.Options(keys=frozenset(keys), media=not no_media, azure=azure, call_ids=not no_call_ids)

    async def run() -> None:
        listening = server.bind(host, port)
        app = emulator.create_app(options)
        async with app.router.lifespan_context(app):
            await server.serve(
                [server.Listener(app, listening, takes_sockets=True)],
                server.Stopping(drain_seconds=1),
                on_ready=lambda: click.echo(
                    f"base URL: http://{host}:{server.port_of(listening)}{app.state.emulator.flavour.prefix}"
                ),
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
@click.option("--workers", type=click.IntRange(1, 64), help="Processes (default: $SWITCHBOARD_WORKERS, or 1).")
@click.option("--as-worker", "post", metavar="POST", hidden=True, help="How a parent starts its workers.")
def serve(workers: int | None, post: str | None) -> None:
    """Run the service.

    Settings come from the environment: SWITCHBOARD_CONFIG, SWITCHBOARD_PUBLIC_URL, …
    Refuses to start without what it needs, and says what. See docs/operations.md for every variable.
    """
    from switchboard import serving
    from switchboard.config import report
    from switchboard.config.loading import Mistaken, Source
    from switchboard.config.reading import Checked
    from switchboard.config.secrets import SecretMissing, Secrets

    settings = _settings()
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    worker = serving.Post.parse(post) if post else None
    if settings.audit == "stdout" and sys.stdout is None:
        _give_up("SWITCHBOARD_AUDIT: stdout: it is closed")  # its number would soon be another file's
    _log_to_stderr(settings.log_level, serving.part_of(settings.workers, worker))
    source = Source(settings.config, Secrets(os.environ))
    try:
        # Nothing of it will be garbage: looking for some would take most of the time, and again and again later.
        gc.disable()
        loaded = source.load()
        gc.freeze()
        gc.enable()
        gc.set_threshold(YOUNG_OBJECTS, YOUNG_LOOKS)
    except Mistaken as error:
        checked = Checked(None, tuple(error.mistakes))
        click.echo(report.as_text(checked, str(settings.config), environ=os.environ), err=True, nl=False)
        sys.exit(1)
    except SecretMissing as error:
        _give_up(str(error))
    serving.use_all_descriptors()
    if worker is not None:
        _run(serving.serve_as_worker(settings, loaded, source, worker))
    elif settings.workers > 1:
        _run(serving.serve_as_parent(settings, loaded, source))
    else:
        _run(serving.serve_alone(settings, loaded, source))


@main.command()
@click.option("--tenant", help="Of this tenant only.")
@for_operators
def calls(tenant: str | None, url: str | None, *, in_json: bool) -> None:
    """List open calls, and which tenants are suspended.

    Like `hang-up`, `suspend` and `resume` it asks the ops port of a running service, with the token that the service
    was started with: from $SWITCHBOARD_ADMIN_TOKEN, or from the file that $SWITCHBOARD_ADMIN_TOKEN_FILE names.

    In the table, USER is the begin of the user key, as in the audit; LEFT is the time until the call's deadline.

    \b
    Examples:
      switchboard calls --tenant acme
      switchboard calls --json | jq -r '.calls[].id'
    """  # noqa: D301 - click takes the backspace as "leave these lines as they are"
    from switchboard.console import telling

    listing = _ask_service(url, "GET", "calls", tenant=tenant)
    click.echo(_json(listing) if in_json else telling.listing_text(listing))


@main.command("hang-up")
@click.argument("call")
@click.option("--tenant", help="Whose call it is: then it need not be searched for.")
@for_operators
def hang_up(call: str, tenant: str | None, url: str | None, *, in_json: bool) -> None:
    """Hang up one CALL, by its id.

    `switchboard calls` shows the ids. A call that has ended stays as it ended; that is no failure. If the provider does
    not confirm it, the service goes on trying, and this exits with 1.
    """
    from switchboard.console import telling

    ended = _ask_service(url, "DELETE", "calls", call, tenant=tenant)
    click.echo(_json(ended) if in_json else telling.call_text(ended))


@main.command()
@click.argument("tenant")
@for_operators
def suspend(tenant: str, url: str | None, *, in_json: bool) -> None:
    """Refuse a TENANT everywhere and hang up its calls.

    Every replica refuses it within a second. It is not asked back; `switchboard resume TENANT` undoes it. Twice does no
    harm. For good, write `suspended: true` in the policy.
    """
    from switchboard.console import telling

    state = _ask_service(url, "POST", "tenants", tenant, "suspend")
    click.echo(_json(state) if in_json else telling.suspended_text(state, _where(url)))


@main.command()
@click.argument("tenant")
@for_operators
def resume(tenant: str, url: str | None, *, in_json: bool) -> None:
    """Serve a TENANT again that was suspended.

    Calls that were to be hung up still are. A tenant that the policy suspends (`suspended: true`) stays suspended: this
    says so, and exits with 1.
    """
    from switchboard.console import telling

    state = _ask_service(url, "POST", "tenants", tenant, "resume")
    click.echo(_json(state) if in_json else telling.resumed_text(state, _where(url)))


@main.command(context_settings={"auto_envvar_prefix": PROBE_VARIABLES})
@click.option("--url", required=True, callback=_http_url, metavar="URL", help="Where the service's public port is.")
@click.option("--call", is_flag=True, help="Open a real call, and hang it up; the provider charges for it.")
@click.option("--preset", help="Ask for this preset (default: the tenant's own).")
@click.option("--origin", metavar="ORIGIN", help="Be a page of this origin, like https://app.example.com.")
@click.option("--token-file", type=FILE, help="A file with a user's JWT (or $SWITCHBOARD_PROBE_TOKEN).")
@click.option(
    "--other-token-file", type=FILE, help="Another user's, of the same tenant (or $SWITCHBOARD_PROBE_OTHER_TOKEN)."
)
@click.option(
    "--signing-key-file",
    type=FILE,
    help="Instead: a private key in PEM, or the secret of HS256, of an issuer in the policy"
    " (or $SWITCHBOARD_PROBE_SIGNING_KEY).",
)
@click.option("--issuer", help="With a signing key: the claim `iss`.")
@click.option("--audience", default="switchboard", show_default=True, help="With a signing key: the claim `aud`.")
@click.option("--subject", default="switchboard-probe", show_default=True, help="With a signing key: the claim `sub`.")
@click.option("--claim", multiple=True, metavar="NAME=VALUE", help="With a signing key: a further one; again for more.")
@click.option("--key-id", help="With a signing key: the header `kid`, if the issuer has a key set.")
@click.option("--anonymous", is_flag=True, help="Be nobody: try only what needs no user.")
@click.option(
    "--skip", multiple=True, type=click.Choice(STEPS), metavar="STEP", help="Do not try this; again for more."
)
@click.option(
    "--timeout", type=click.FloatRange(1, 120), default=20.0, show_default=True, help="Seconds for each step."
)
@click.option(
    "--deadline", type=click.FloatRange(1, 600), default=60.0, show_default=True, help="Seconds for all steps."
)
@click.option("--json", "in_json", is_flag=True, help="For machines.")
@click.option("--prometheus", is_flag=True, help="As metrics, for a textfile collector or a Pushgateway.")
def probe(url: str, **options: Any) -> None:
    """Ask a service as a user would, and as nobody may, by the way that callers take.

    Tries that what must be refused is refused, for the right reason; that a user gets a token; with --call, that a call
    opens and ends. What cannot be tried with what was given is `skipped`, and says what it needs. docs/operations.md
    has the steps. No credential is an argument, which `ps` would show, and none is printed. Each option may come from
    the environment, --url from $SWITCHBOARD_PROBE_URL.

    Exit codes: 0 all that was tried passed; 1 something did not; 2 wrong use; 3 the service was not reached.

    \b
    Examples:
      switchboard probe --url https://voice.example.com --token-file user.jwt
      switchboard probe --url https://voice.example.com --call --signing-key-file probe.pem \\
        --issuer https://probe.example.com --claim org_id=acme
    """  # noqa: D301 - click takes the backspace as "leave these lines as they are"
    from switchboard.probe import run, telling
    from switchboard.probe.steps import Plan

    if options["in_json"] and options["prometheus"]:
        raise click.UsageError("choose one of --json and --prometheus")
    plan = Plan(
        call=options["call"],
        preset=options["preset"],
        origin=options["origin"],
        skip=options["skip"],
        step_seconds=options["timeout"],
        run_seconds=options["deadline"],
    )
    try:
        report = run.probe(url, _probing(options), plan)
    except run.Interrupted as interrupted:
        ended = "what it opened has been hung up"
        _give_up(
            f"interrupted; {telling.left_open_text(interrupted.left_open) if interrupted.left_open else ended}",
            128 + interrupted.number,
        )
    if options["prometheus"]:
        click.echo(telling.as_prometheus(report), nl=False)
    else:
        click.echo(_json(telling.as_json(report)) if options["in_json"] else telling.as_text(report))
    sys.exit(report.exit_code)


@main.group()
def audit() -> None:
    """Verify and read records of the audit."""


@audit.command("verify")
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--anchor",
    "anchor_places",
    multiple=True,
    metavar="FILE|redis",
    help="Checkpoints: a file of them, or `redis` for $SWITCHBOARD_REDIS_URL; may be given again.",
)
@click.option("--host", "hosts", multiple=True, help="Ask for the chains of this host only; may be given again.")
@click.option("--since", type=Moment(), help="What is older may be missing, because it is not kept for longer.")
@click.option(
    "--key-file",
    "key_files",
    type=FILE,
    multiple=True,
    help="A file with the key (default: $SWITCHBOARD_AUDIT_KEY or …_FILE); all of them, if it has been changed.",
)
@click.option("--json", "in_json", is_flag=True, help="For machines.")
def verify_audit(
    files: Sequence[Path],
    *,
    anchor_places: Sequence[str],
    hosts: Sequence[str],
    since: str | None,
    key_files: Sequence[Path],
    in_json: bool,
) -> None:
    """Say whether the records in each FILE are all there, unchanged and in order.

    Give a rotated set together, in any order: audit.jsonl*. Names the first record that was edited, removed, reordered,
    duplicated or inserted; where a chain has no end (a crash, or a cut); with --anchor, what was there once.

    \b
    Exit code: 0 no problem, 1 a problem, 2 wrong use.
    """  # noqa: D301 - click takes the backspace as "leave these lines as they are"
    from switchboard.audit import verify

    keys = _audit_keys(key_files)
    anchors = [one for place in anchor_places for one in _anchors_at(place) if not hosts or one.host in hosts]
    size = sum(file.stat().st_size for file in files)
    with click.progressbar(length=size, label="verifying", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        try:
            verdict = verify.verify(files, keys, anchors=anchors, since=since, on_progress=bar.update)
        except OSError as error:  # a pipe, say: files are read in several places at once
            raise click.UsageError(str(error)) from None
    click.echo(verify.as_json(verdict) if in_json else verify.as_text(verdict), nl=in_json)
    sys.exit(1 if verdict.problems else 0)


@audit.command("show")
@click.argument("files", type=FILE_OR_INPUT, nargs=-1, required=True, metavar="FILE...")
@click.option("--tenant", help="Records of this tenant.")
@click.option("--outcome", type=click.Choice(["allowed", "denied", "error"]), help="Records with this outcome.")
@click.option("--action", help="Records of this action, such as call.open.")
@click.option("--user-key", help="Records of this user, see `switchboard user-key`; its first characters will do.")
@click.option("--call-id", help="Records of this call.")
@click.option("--since", type=Moment(), help="Records from this time on.")
@click.option("--until", type=Moment(), help="Records from before this time.")
@click.option("--json", "in_json", is_flag=True, help="The records as they are, one per line.")
def show_audit(files: Sequence[Path], *, in_json: bool, **wanted: str | None) -> None:
    """Print the records in each FILE that fit everything that is asked for. `-` reads standard input.

    Times are ISO 8601, like 2026-11-20T10:00Z; without a zone they are UTC.
    """
    from switchboard.audit import show
    from switchboard.audit.reading import in_order

    given = [file for file in files if file != STANDARD_INPUT]
    if not in_json:
        click.echo(show.header())
    with ExitStack() as stack:
        streams: list[IO[bytes]] = [stack.enter_context(file.open("rb")) for file in in_order(given)]
        if len(given) < len(files):
            streams.append(sys.stdin.buffer)
        for line, record in show.wanted(chain.from_iterable(streams), show.Filter(**wanted)):
            click.echo(line.rstrip(b"\n") if in_json else show.row(record))


@main.command("user-key")
@click.option("--issuer", required=True, help="The claim `iss` of the user's tokens, exactly.")
@click.option("--tenant", required=True, help="The tenant that they lead to.")
@click.option("--subject", required=True, help="The claim `sub`.")
def user_key(issuer: str, tenant: str, subject: str) -> None:
    """Print what stands for a user in the audit and at the provider, by SWITCHBOARD_USER_KEY_SECRET (or …_FILE).

    \b
    switchboard audit show audit.jsonl* --user-key $(switchboard user-key --issuer … --tenant … --subject …)
    """  # noqa: D301 - click takes the backspace as "leave these lines as they are"
    from switchboard.identity import Principal, UserKeys

    secret = _settings().user_key_secret
    if secret is None:
        raise click.UsageError("SWITCHBOARD_USER_KEY_SECRET (or …_FILE) is needed: the one that the service has.")
    keys = UserKeys(secret.get_secret_value().encode())
    click.echo(keys.of(Principal(issuer=issuer, subject=subject, tenant=tenant, claims={})))


def _probing(options: dict[str, Any]) -> "Credentials":
    """Whom the probe is, by its options and the environment.

    Raises:
        UsageError: nobody, or two, or what cannot be used.
    """
    from switchboard.probe.credentials import NoCredentials, OwnIssuer, ReadyTokens, SigningKey, UnusableCredential

    token, other, key = (_probing_secret(options, name) for name in ("token", "other_token", "signing_key"))
    if sum((token is not None, key is not None, options["anonymous"])) != 1:
        raise click.UsageError(
            "who is asking? Give one of --token-file, --signing-key-file (with --issuer) and --anonymous."
        )
    try:
        if token is not None:
            return ReadyTokens(token, other)
        if key is None:
            return NoCredentials()
        if options["issuer"] is None:
            raise click.UsageError("a signing key needs --issuer: the claim `iss`, as the policy has it.")
        claims = _pairs(options["claim"])
        return OwnIssuer(
            issuer=options["issuer"],
            audience=options["audience"],
            subject=options["subject"],
            claims=claims,
            key=SigningKey.read(key.encode()),
            key_id=options["key_id"],
        )
    except UnusableCredential as error:
        raise click.UsageError(f"{error}.") from None


def _probing_secret(options: dict[str, Any], name: str) -> str | None:
    """From the variable itself, which wins, or from its file."""
    given = os.environ.get(f"{PROBE_VARIABLES}_{name.upper()}", "").strip()
    file = options[f"{name}_file"]
    if given or file is None:
        return given or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} cannot be read: {error}") from None
    if not text:
        raise click.UsageError(f"{file} is empty.")
    return str(text)


def _pairs(claims: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for claim in claims:
        name, equals, value = claim.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{claim!r} is not of the form NAME=VALUE", param_hint="--claim")
        pairs[name] = value
    return pairs


def _audit_keys(files: Sequence[Path]) -> list[bytes]:
    """The keys of chains, at least one."""
    if files:
        return [file.read_bytes().strip() for file in files]
    key = _settings().audit_key
    if key is None:
        raise click.UsageError("SWITCHBOARD_AUDIT_KEY (or …_FILE, or --key-file) is needed: the one of the service.")
    if key == "none":
        raise click.UsageError("SWITCHBOARD_AUDIT_KEY is `none`: without a key there is no chain to verify.")
    return [key.get_secret_value().encode()]


def _anchors_at(place: str) -> "list[Anchor]":
    from switchboard.app import CannotServe
    from switchboard.app.evidence import redis_anchors
    from switchboard.audit.anchors import AnchorsAway, read_anchors

    async def ask() -> "list[Anchor]":
        anchors = redis_anchors(_settings())
        try:
            return await anchors.read()
        finally:
            await anchors.aclose()

    try:
        return asyncio.run(ask()) if place == "redis" else read_anchors(Path(place))
    except (CannotServe, AnchorsAway) as error:
        raise click.UsageError(str(error)) from None


def _ask_service(url: str | None, method: str, *path: str, **query: str | None) -> dict[str, Any]:
    from switchboard.console.asking import NotDone, OpsPort

    settings = _settings()
    if settings.admin_token is None:
        _give_up(
            "SWITCHBOARD_ADMIN_TOKEN is not set: put in it what the service was started with, or name the file that"
            " holds it in SWITCHBOARD_ADMIN_TOKEN_FILE"
        )
    token = settings.admin_token.get_secret_value()
    try:
        return OpsPort(url or _ops_url(settings), token).ask(method, *path, **query)
    except NotDone as error:
        _give_up(str(error))


def _ops_url(settings: Any) -> str:
    """Where a service with the same environment has its ops port."""
    host = "127.0.0.1" if settings.ops_host in ("0.0.0.0", "::") else settings.ops_host  # noqa: S104 - it listens there
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ops_port}"


def _where(url: str | None) -> str:
    return f" --url {url}" if url else ""


def _json(told: dict[str, Any]) -> str:
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


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
        # The provider client's own thread may be about to hand its last answer over: it aborts a process that ends
        # meanwhile.
        time.sleep(LAST_SECONDS)
    except (CannotServe, CannotDevelop, SecretMissing, Unreadable, PortTaken) as error:
        _give_up(str(error))


def _give_up(reason: str, exit_code: int = 1) -> NoReturn:
    click.echo(click.style("switchboard: ", fg="red", bold=True) + reason, err=True)
    sys.exit(exit_code)


def _log_to_stderr(level: str, part: str = "") -> None:
    from switchboard import logs

    logs.configure(level, part)
