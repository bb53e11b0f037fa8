"""`atlasctl secret …`: secrets kept, changed, rotated and looked after, never by an argument."""

import base64
import sys
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.asking_secrets import ask, lines, value_from
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit
from atlasd.errors import EXIT_FAILED, EXIT_OK, AtlasError

_FILE = click.option(
    "--file",
    "file",
    metavar="PATH",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Read the value from a file, byte for byte; - is the input.",
)
_BACKEND = click.option("--backend", default="", metavar="NAME", help="Another than the default.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def secret() -> None:
    """Keep secrets: values come from the input, a prompt or a file, never from arguments.

    NAME is `[BACKEND/]NAME`. Each environment has its own secrets. Where no daemon runs, keys and
    secrets can be put all the same.
    """


@secret.command()
@common
@_BACKEND
@pass_session
def keygen(session: Session, backend: str) -> None:
    """Make a new key, put it first in the key ring, and keep the others."""
    body = ask(session, "secret.keygen", backend=backend)
    if session.as_json:
        emit(body)
        return
    print(f"key {body['id']} of {body['backend']}: {body['source']}")
    if body["warning"]:
        _warn(body["warning"])
    print("keep a copy of it where the backups of the secrets are not")


@secret.command("set")
@common
@_FILE
@click.argument("name")
@pass_session
def set_(session: Session, name: str, file: str | None) -> None:
    """Put a value, which is read from the input (less one newline at its end), or asked for."""
    value = value_from(file, f"value of {name}")
    body = ask(session, "secret.set", name=name, base64=base64.b64encode(value).decode())
    if session.as_json:
        emit(body)
        return
    print(f"{body['name']}: version {body['version']} in {body['backend']}")


@secret.command()
@common
@click.option("--version", default="", metavar="ID", help="That version; else the current one.")
@click.option(
    "--stage",
    default="",
    type=click.Choice(["", "current", "previous", "pending"]),
    help="The version at that stage.",
)
@click.option("--reveal", is_flag=True, help="Show the value; it is written to the audit log.")
@click.option(
    "--file", "file", metavar="PATH", help="Write it there, mode 0600, and don't show it."
)
@click.argument("name")
@pass_session
def get(
    session: Session, name: str, version: str, stage: str, reveal: bool, file: str | None
) -> None:
    """Show what is known of a secret; its value only with --reveal, to whoever administers."""
    if not reveal:
        if file is not None:
            raise AtlasError("usage", "--file needs --reveal", hint="add --reveal")
        _show_versions(session, name.split("#", maxsplit=1)[0].split("@", maxsplit=1)[0])
        return
    body = ask(session, "secret.reveal", name=name, version=version, stage=stage)
    value = (
        body["value"].encode() if body["value"] is not None else base64.b64decode(body["base64"])
    )
    if file is not None:
        _write_private(file, value)
        body = {**body, "value": None, "base64": None}
    if session.as_json:
        emit(body)
    elif file is not None:
        print(f"wrote {file}")
    else:
        sys.stdout.buffer.write(value)
        if sys.stdout.isatty():
            print()


@secret.command("list")
@common
@_BACKEND
@click.argument("prefix", default="")
@pass_session
def list_(session: Session, prefix: str, backend: str) -> None:
    """List the secrets whose names begin with PREFIX."""
    body = ask(session, "secret.list", prefix=prefix, backend=backend)
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["name"],
            one["current"],
            str(one["versions"] or ""),
            f"{style.since(one['changed'])} ago" if one["changed"] else "",
            "yes" if one["used"] else "",
            f"deleted, until {one['recoverable_until']}" if one["deleted"] else "",
        )
        for one in body["secrets"]
    ]
    print(style.table(("NAME", "VERSION", "VERSIONS", "CHANGED", "USED", ""), rows), end="")
    count = style.count(len(rows), "secret")
    print(f"{count} in {body['backend']}, environment {body['environment']}")


@secret.command()
@common
@click.argument("name")
@pass_session
def versions(session: Session, name: str) -> None:
    """List the versions of a secret, the newest first."""
    _show_versions(session, name)


def _show_versions(session: Session, name: str) -> None:
    body = ask(session, "secret.versions", name=name)
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["version"],
            ", ".join(one["stages"]) + ("" if one["enabled"] else " (disabled)"),
            f"{style.since(one['created'])} ago" if one["created"] else "",
            one["created_by"],
            one["key"],
        )
        for one in body["versions"]
    ]
    print(style.table(("VERSION", "STAGES", "CREATED", "BY", "KEY"), rows), end="")
    if body["rotation"]:
        print(f"it is being rotated; next: {body['rotation']}")
    if body["rotation_error"]:
        print(f"the last rotation failed: {body['rotation_error']}")


@secret.command()
@common
@click.option("--version", default="", metavar="ID", help="That version; else the previous one.")
@click.argument("name")
@pass_session
def rollback(session: Session, name: str, version: str) -> None:
    """Make the previous version, or another one, current again."""
    body = ask(session, "secret.rollback", name=name, version=version)
    if session.as_json:
        emit(body)
        return
    print(f"{body['name']}: version {body['version']} is current")


@secret.command()
@common
@click.option("--force", is_flag=True, help="Also when the configuration refers to it.")
@click.option("--for-good", is_flag=True, help="It cannot be recovered.")
@click.argument("name")
@pass_session
def delete(session: Session, name: str, force: bool, for_good: bool) -> None:
    """Delete a secret; it can be recovered for a while, where its backend can."""
    body = ask(session, "secret.delete", name=name, force=force, recovery=0.0 if for_good else None)
    if session.as_json:
        emit(body)
        return
    until = body["recoverable_until"]
    print(f"{body['name']}: deleted" + (f"; it can be recovered until {until}" if until else ""))


@secret.command()
@common
@click.argument("name")
@pass_session
def recover(session: Session, name: str) -> None:
    """Have a deleted secret back."""
    body = ask(session, "secret.recover", name=name)
    if session.as_json:
        emit(body)
        return
    print(f"{body['name']}: version {body['current']} is current")


@secret.command()
@common
@click.option("--reason", default="", metavar="WORD", help="Why, as auth_failed.")
@click.argument("name")
@pass_session
def refresh(session: Session, name: str, reason: str) -> None:
    """Fetch a secret now, as when a service was refused with it; not more than once a minute."""
    body = ask(session, "secret.refresh", name=name, reason=reason)
    if session.as_json:
        emit(body)
        return
    if not body["fetched"]:
        wait = style.duration(body["wait_seconds"])
        print(f"{body['name']}: fetched only just now; again in {wait}")
    else:
        said = "has changed" if body["changed"] else "is the same"
        print(f"{body['name']}: version {body['version']}, which {said}")


@secret.command("import")
@common
@_BACKEND
@click.option(
    "--format",
    "form",
    type=click.Choice(["env", "json"]),
    help="What the file is; else its name decides.",
)
@click.option("--prefix", default="", metavar="TEXT", help="Put before each name, as shop/.")
@click.option("--overwrite", is_flag=True, help="Replace values that are there already.")
@click.argument("path", type=click.Path(dir_okay=False, allow_dash=True))
@pass_session
def import_(
    session: Session, path: str, form: str | None, prefix: str, overwrite: bool, backend: str
) -> None:
    """Put every value of a .env or JSON file; nothing is put if anything is wrong with it."""
    text = _text(path)
    body = ask(
        session,
        "secret.import",
        text=text,
        format=form or ("json" if path.endswith(".json") else "env"),
        prefix=prefix,
        overwrite=overwrite,
        backend=backend,
    )
    if session.as_json:
        emit(body)
        return
    rows = [(one["name"], one["done"]) for one in body["secrets"]]
    print(style.table(("NAME", "DONE"), rows), end="")
    if any(one["done"] == "kept" for one in body["secrets"]):
        print("kept: it has another value already; --overwrite replaces it")


@secret.command()
@common
@_BACKEND
@click.option("--format", "form", default="json", type=click.Choice(["env", "json"]))
@click.option("--prefix", default="", metavar="TEXT", help="Only names that begin so; left off.")
@click.option("--reveal", is_flag=True, help="Needed: it shows every value, and is written down.")
@click.option("--file", "file", metavar="PATH", help="Write it there, mode 0600.")
@pass_session
def export(
    session: Session, form: str, prefix: str, reveal: bool, file: str | None, backend: str
) -> None:
    """Show all values, as JSON or as a .env file."""
    if not reveal:
        raise AtlasError(
            "usage",
            "export shows every value in plain text",
            hint="if that is meant, add --reveal; each value is written to the audit log",
        )
    body = ask(session, "secret.export", format=form, prefix=prefix, backend=backend)
    if file is not None:
        _write_private(file, body["text"].encode())
        body = {**body, "text": ""}
    if session.as_json:
        emit(body)
    elif file is not None:
        print(f"wrote {style.count(body['count'], 'secret')} to {file}")
    else:
        print(body["text"], end="")


@secret.command()
@common
@click.option("--force", is_flag=True, help="Retire at once what an earlier rotation left valid.")
@click.argument("name")
@pass_session
def rotate(session: Session, name: str, force: bool) -> None:
    """Rotate a secret as [secrets.rotate.NAME] says: create, set, test, promote.

    A step that fails leaves the current value in force. The old value is retired after the overlap.
    """
    steps = []
    for body in lines(session, "secret.rotate", name=name, force=force):
        steps.append(body)
        if not session.as_json:
            version = f" (version {body['version']})" if body["version"] else ""
            print(f"{body['name']}: {body['step']}{version}", flush=True)
    if session.as_json:
        emit({"steps": steps})


@secret.command("rotate-keys")
@common
@_BACKEND
@click.option("--keep", is_flag=True, help="Keep the keys that nothing needs any longer.")
@pass_session
def rotate_keys(session: Session, backend: str, keep: bool) -> None:
    """Wrap every record with the primary key, then drop the others from the ring.

    It can be interrupted, killed and begun again at any time; secrets can be used meanwhile.
    """
    last: dict[str, Any] = {}
    shown = -1.0
    for body in lines(session, "secret.rotate-keys", backend=backend, retire=not keep):
        last = body
        part = body["done"] / body["total"] if body["total"] else 1.0
        if not session.as_json and body["total"] and part != shown:
            if part - shown < 0.05 and not body["finished"]:
                continue
            shown = part
            print(f"{body['done']} of {body['total']} records", flush=True)
    if session.as_json:
        emit(last)
    elif last.get("retired"):
        print(f"dropped from the ring: {', '.join(last['retired'])}")
    elif not last.get("total"):
        print("the primary key protects every record already")
    else:
        print("no key was dropped from the ring")


@secret.command()
@common
@click.argument("name")
@pass_session
def impact(session: Session, name: str) -> None:
    """Say what a change of the secret would touch."""
    body = ask(session, "secret.impact", name=name)
    if session.as_json:
        emit(body)
        return
    if not body["reached"]:
        print(f"nothing in the configuration refers to {body['name']}")
        return
    rows = [
        (one["kind"], one["name"], one["effect"], ", ".join(one["keys"])) for one in body["reached"]
    ]
    print(style.table(("KIND", "NAME", "EFFECT", "SETTINGS"), rows), end="")


@secret.command()
@common
@pass_session
def check(session: Session) -> int:
    """Say whether every secret that the configuration refers to can be had; look at the keys."""
    body = ask(session, "secret.check")
    bad = [one for one in body["secrets"] if one["state"] not in ("ok", "stale")]
    if session.as_json:
        emit(body)
        return EXIT_FAILED if bad else EXIT_OK
    rows = [
        (
            one["reference"],
            one["state"],
            one["version"],
            f"{style.since(one['fetched'])} ago" if one["fetched"] else "",
            ", ".join(one["keys"]),
        )
        for one in body["secrets"]
    ]
    print(style.table(("SECRET", "STATE", "VERSION", "FETCHED", "SETTINGS"), rows), end="")
    for one in bad:
        print(f"{one['reference']}: {one['error']}" + (f"; {one['hint']}" if one["hint"] else ""))
    for key in body["keys"]:
        primary = ", primary" if key["primary"] else ""
        if key["id"]:
            records = style.count(key["records"], "record")
            print(f"key {key['id']} of {key['backend']}{primary}: {key['source']}, {records}")
        if key["warning"]:
            _warn(f"{key['backend']}: {key['warning']}")
    return EXIT_FAILED if bad else EXIT_OK


@secret.group(invoke_without_command=True)
@common
@click.option("--name", default="", metavar="NAME", help="Only records about this secret.")
@click.option("--action", default="", metavar="WORD", help="Only these, as get or set.")
@click.option("-n", "--limit", default=50, show_default=True, help="At most this many.")
@click.pass_context
def audit(ctx: click.Context, name: str, action: str, limit: int) -> None:
    """Show who did what to which secret."""
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.ensure_object(Session)
    body = ask(session, "secret.audit", name=name, action=action, limit=limit)
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            str(one["seq"]),
            one["time"],
            one["actor"] + (f" (pid {one['pid']})" if one["pid"] else ""),
            one["action"],
            one["name"],
            one["version"],
            one["consumer"],
            one["outcome"],
        )
        for one in body["records"]
    ]
    titles = ("SEQ", "TIME", "WHO", "ACTION", "SECRET", "VERSION", "FOR", "OUTCOME")
    print(style.table(titles, rows), end="")


@audit.command()
@common
@pass_session
def verify(session: Session) -> int:
    """Find every record that was changed, taken out, moved or cut from the end.

    Exit code 0 when there is none, 1 otherwise.
    """
    body = ask(session, "secret.audit-verify")
    if session.as_json:
        emit(body)
    else:
        for problem in body["problems"]:
            print(problem, file=sys.stderr)
        count = style.count(body["records"], "record")
        said = "not what was written" if body["problems"] else "as they were written"
        print(f"{body['file']}: {count}, {said}")
    return EXIT_FAILED if body["problems"] else EXIT_OK


def _warn(text: str) -> None:
    print(f"atlasctl: warning: {text}", file=sys.stderr)


def _text(path: str) -> str:
    raw = value_from(path, path, exact=True)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AtlasError("secret.invalid", f"{path}: it is not UTF-8 text") from None


def _write_private(path: str, data: bytes) -> None:
    import os

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise AtlasError(
            "usage",
            f"{path} cannot be written: {fault.strerror}",
            hint="name a file that does not exist, in a folder that does",
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
