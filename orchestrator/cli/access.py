"""The commands of admins: keys, permissions, the audit log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from orchestrator.cli.inputs import read_object
from orchestrator.cli.output import DONE, AsJson, print_json, print_line, print_table, register, say
from orchestrator.cli.platform import become, store_env
from orchestrator.client.client import Client
from orchestrator.errors import RequestError
from orchestrator.models.access import CreateKeyRequest, KeyInfo, NewKey, Policy, PolicyView
from orchestrator.settings import MIB, load_settings

keys = typer.Typer(help="Keys of the API.", no_args_is_help=True)
permissions = typer.Typer(help="What tenants may do and use.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, which stands in the key after `tw_`.")]
TenantArgument = Annotated[
    str | None, typer.Argument(metavar="[TENANT]", help="The tenant; default: all that have no policy of their own.")
]
M = TypeVar("M", bound=BaseModel)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LIMITS = ("requests", "jobs", "streams", "file_bytes", "user_jobs_per_hour", "jobs_per_hour")


@register(keys, "create", examples="toolweaver keys create --tenant acme --name nightly --expires 90d")
def create(
    tenant: Annotated[str, typer.Option(help="Whose key: lower-case letters, digits, `-` and `_`.")] = "default",
    name: Annotated[str, typer.Option(help="What the audit log and rules call it.")] = "key",
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write, admin or worker; may be repeated; default: read and write.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Give it the scope `admin` too: keys, permissions, audit.")] = False,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends, such as 12h or 90d; default: never.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Make it right in the store of this machine's platform or TOOLWEAVER_REDIS_URL.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Make a key and print it, this once. The first one is made with --admin --local."""
    scopes = list(dict.fromkeys([*(scope or ("read", "write")), *(("admin",) if admin else ())]))
    seconds = duration(expires, option="--expires") if expires else None
    request = parsed(CreateKeyRequest, {"tenant": tenant, "name": name, "scopes": scopes, "expires_s": seconds})
    if local:
        words = ["--tenant", tenant, "--name", name, *(w for s in scopes for w in ("--scope", s))]
        words += ["--expires-s", str(seconds)] if seconds is not None else []
        return become(
            "orchestrator.api", "keys", "create", *words, *(("--json",) if as_json else ()), env=store_env(load_settings())
        )
    with Client() as client:
        _show_new(client.access.create_key(request), as_json=as_json)
    return DONE


@register(keys, "list")
def list_keys(tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False) -> int:
    """List the keys, those that ended included; never their secrets."""
    with Client() as client:
        found = client.access.keys(tenant)
    if as_json:
        print_json(found)
    else:
        print_table(("key", "tenant", "name", "scopes", "used", "state"), (_row(k) for k in found))
    return DONE


@register(keys, "rotate", examples="toolweaver keys rotate 0123456789ab --grace 1d")
def rotate(
    key: KeyId,
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the old secret stays valid.")] = "1h",
    as_json: AsJson = False,
) -> int:
    """Give a key a new secret and print it, this once."""
    with Client() as client:
        made = client.access.rotate_key(key, grace_s=duration(grace, option="--grace"))
    _show_new(made, as_json=as_json)
    if made.old_until is not None:
        say(f"the old secret ends at {made.old_until:%Y-%m-%d %H:%M} UTC")
    return DONE


@register(keys, "revoke")
def revoke(key: KeyId, as_json: AsJson = False) -> int:
    """End a key, within two seconds."""
    with Client() as client:
        ended = client.access.revoke_key(key)
    if as_json:
        print_json(ended)
    else:
        say(f"key {ended.id} of tenant {ended.tenant} is revoked")
    return DONE


@register(permissions, "show")
def show(tenant: TenantArgument = None, as_json: AsJson = False) -> int:
    """Show what a tenant may do: what was set for it, and what holds."""
    with Client() as client:
        view = client.access.permissions(tenant)
    _show_policy(view, as_json=as_json)
    return DONE


@register(
    permissions,
    "set",
    examples="toolweaver permissions set acme --allow filesystem:write · toolweaver permissions set acme --limit jobs=50",
)
def set_(
    tenant: TenantArgument = None,
    allow: Annotated[list[str] | None, typer.Option(metavar="ACTION", help="Allow an action; may be repeated.")] = None,
    forbid: Annotated[list[str] | None, typer.Option(metavar="ACTION", help="Forbid an action; may be repeated.")] = None,
    tool: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Allow tools by name; may be repeated.")] = None,
    forbid_tool: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Forbid tools; wins over --tool.")] = None,
    limit: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help=f"{', '.join(_LIMITS)}; -1: no limit.")] = None,
    policy: Annotated[str | None, typer.Option(help="The whole policy as a JSON object, @file, or - for stdin.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin with nothing set, so that the defaults hold.")] = False,
    as_json: AsJson = False,
) -> int:
    """Change what a tenant may do; what is not named stays."""
    with Client() as client:
        view = client.access.permissions(tenant)
        own = parsed(Policy, read_object(policy, option="--policy")) if policy else Policy() if reset else view.own or Policy()
        changed = _changed(own, view.effective, allow=allow, forbid=forbid, tools=tool, forbidden=forbid_tool, limits=limit)
        view = client.access.set_permissions(tenant, changed if changed != Policy() else None)
    _show_policy(view, as_json=as_json)
    return DONE


def add_to(app: typer.Typer) -> None:
    """Registers the groups and the command."""
    app.add_typer(keys, name="keys")
    app.add_typer(permissions, name="permissions")

    @register(app, "purge", examples="toolweaver purge acme --yes")
    def purge(
        tenant: Annotated[str, typer.Argument(help="Whose jobs and files.")],
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        as_json: AsJson = False,
    ) -> int:
        """Cancel what a tenant runs and delete its jobs and files; keys, permissions and audit log stay."""
        if not yes and not typer.confirm(f"Delete all jobs and files of tenant {tenant}?", err=True):
            say("nothing was deleted")
            return DONE
        with Client() as client:
            gone = client.access.purge(tenant)
        if as_json:
            print_json(gone)
        else:
            say(f"deleted {gone.jobs} jobs of tenant {gone.tenant} ({gone.cancelled} still ran) and {gone.files} files")
        return DONE

    @register(app, "audit", examples="toolweaver audit --tenant acme --limit 20")
    def audit(
        tenant: Annotated[str | None, typer.Option(help="Only this tenant's entries.")] = None,
        nobody: Annotated[bool, typer.Option("--nobody", help="Only requests without a valid key.")] = False,
        limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
        as_json: AsJson = False,
    ) -> int:
        """Show who did what when, newest first; of programs their figures, and with --json all that is kept of them."""
        with Client() as client:
            entries = list(client.access.audit(tenant=tenant, nobody=nobody, limit=limit, detail=as_json))
        if as_json:
            print_json(entries)
        else:
            print_table(
                ("when (UTC)", "tenant", "by", "from", "action", "object", "verdict", "figures"),
                (
                    (
                        *(f"{e.ts:%Y-%m-%d %H:%M:%S}", e.tenant, e.name or e.key, e.address, e.action, e.object, e.verdict),
                        program_figures(e.detail) if e.detail else "",
                    )
                    for e in entries
                ),
            )
        return DONE


def program_figures(detail: Mapping[str, Any]) -> str:
    """A program in one line: `code_exec_1a2b3c4d · 46 calls · 2.31 s · cpu 0.12 s · 23 MiB · alerts: memory`."""
    cpu, peak = detail.get("cpu_s"), detail.get("memory_peak")
    parts = [f"{detail.get('execution_id', '?')}", f"{detail.get('calls', 0)} calls", f"{detail.get('execution_time') or 0:.2f} s"]
    parts += [f"cpu {cpu:.2f} s"] if cpu is not None else []
    parts += [f"{peak / MIB:.0f} MiB"] if peak is not None else []
    parts += [f"alerts: {', '.join(detail['alerts'])}"] if detail.get("alerts") else []
    return " · ".join(parts)


def duration(text: str, *, option: str) -> float:
    """Seconds of `90`, `45s`, `30m`, `12h` or `90d`.

    Raises:
        RequestError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text, re.ASCII)
    if found is None:
        raise RequestError(f"`{text}` is no time", path=option, next="Write it as 45s, 30m, 12h or 90d.")
    return float(int(found[1]) * _UNITS[found[2] or "s"])


def parsed(kind: type[M], fields: dict[str, Any]) -> M:
    """The model of what a person typed.

    Raises:
        RequestError: it does not fit; all problems are in `.problems`.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = [{"path": ".".join(str(p) for p in e["loc"]), "message": e["msg"]} for e in error.errors()]
        raise RequestError("what was given does not fit", problems=problems, next="`--help` says what may be given.") from None


def _changed(
    own: Policy,
    effective: Policy,
    *,
    allow: list[str] | None,
    forbid: list[str] | None,
    tools: list[str] | None,
    forbidden: list[str] | None,
    limits: list[str] | None,
) -> Policy:
    fields = own.model_dump(exclude_none=True)
    if allow or forbid:
        actions = {c: list(v) for c, v in ((own.actions if own.actions is not None else effective.actions) or {}).items()}
        for action in allow or ():
            category, verb = _action(action, option="--allow")
            actions.setdefault(category, [])
            actions[category] += [verb] if verb not in actions[category] else []
        for action in forbid or ():
            category, verb = _action(action, option="--forbid")
            if "*" in actions.get(category, ()) and verb != "*":
                raise RequestError(
                    f"`{category}:*` is allowed, which `{action}` is a part of",
                    path="--forbid",
                    next=f"Forbid `{category}:*` and allow the others by name.",
                )
            actions[category] = [] if verb == "*" else [v for v in actions.get(category, ()) if v != verb]
        fields["actions"] = {c: v for c, v in actions.items() if v}
    for name, given in (("tools", tools), ("forbidden_tools", forbidden)):
        if given:
            known = getattr(own, name) or ()
            fields[name] = [*dict.fromkeys((*known, *given))]
    if limits:
        fields["limits"] = {**own.limits.model_dump(exclude_none=True), **dict(_limit(text) for text in limits)}
    return parsed(Policy, fields)


def _action(text: str, *, option: str) -> tuple[str, str]:
    category, colon, verb = text.partition(":")
    if not (category and colon and verb):
        raise RequestError(f"`{text}` is no action", path=option, next="Write it as `filesystem:write` or `browser:*`.")
    return category, verb


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in _LIMITS or not re.fullmatch(r"-1|\d{1,18}", number, re.ASCII):
        raise RequestError(f"`{text}` is no limit", path="--limit", next=f"Write it as `jobs=50`; there are {', '.join(_LIMITS)}.")
    return name, int(number)


def _show_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        print_line(made.key)
        say(f"key {made.id} of tenant {made.tenant} with {', '.join(made.scopes)}; its text is not shown again")


def _row(key: KeyInfo) -> tuple[str, ...]:
    ends = key.expires is not None and key.expires <= datetime.now(UTC)
    state = "revoked" if key.revoked else "ended" if ends else f"ends {key.expires:%Y-%m-%d}" if key.expires else "valid"
    return key.id, key.tenant, key.name, " ".join(key.scopes), f"{key.used:%Y-%m-%d %H:%M}" if key.used else "never", state


def _show_policy(view: PolicyView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    policy, own = view.effective, view.own or Policy()
    print_line(f"{'tenant ' + view.tenant if view.tenant else 'all tenants without a policy of their own'}")
    rows = [
        ("tools", " ".join(policy.tools or ()), own.tools is not None),
        ("forbidden tools", " ".join(policy.forbidden_tools or ()), own.forbidden_tools is not None),
        *((f"may {c}", " ".join(v), own.actions is not None) for c, v in sorted((policy.actions or {}).items())),
        *((f"limit {n}", str(v), getattr(own.limits, n) is not None) for n, v in policy.limits if v is not None),
        *((f"caller {c}", r.model_dump_json(exclude_none=True), bool(own.callers)) for c, r in policy.callers.items()),
    ]
    print_table(("rule", "is", "set"), ((name, text, "here" if here else "default") for name, text, here in rows))
