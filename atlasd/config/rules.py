"""What no single setting can know: rules inside a service, and between services."""

from collections.abc import Collection, Iterator

from atlasd.config import deliveries, schedule_rules, workers
from atlasd.config.convert import chosen, edge
from atlasd.config.probes import PROBE_OPTIONS, PROBING, Live, Ready
from atlasd.config.problems import Findings
from atlasd.config.schema import Settings
from atlasd.config.service import Hook, Service
from atlasd.config.units import NAME, format_duration
from atlasd.contracts.config import KeyPath
from atlasd.errors import nearest
from atlasd.services import order, spec

LISTEN_FDS_START = 3

SET_BY_ATLASD = frozenset(
    {
        "ATLASD_INSTANCE",
        "ATLASD_SERVICE",
        "INVOCATION_ID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
"""Variables that each instance gets from the services role, whatever the configuration says."""

SHELL_WORDS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>"})

STOPPERS = frozenset({"KILL", "STOP"})
"""Signals that a program cannot catch."""


def examine(settings: Settings, declared: Collection[str], findings: Findings) -> None:
    """Note every breach of a rule. `declared` are the names of all services, invalid ones too."""
    for name, service in settings.services.items():
        path: KeyPath = ("services", name)
        workers.examine(service, path, findings)
        _probes(service, path, findings)
        _restarts(service, path, findings)
        _ending(service, path, findings)
        _oneshot(service, path, findings)
        _sockets(service, path, findings)
        _variables(service, path, findings)
        deliveries.examine(service, path, SET_BY_ATLASD, findings)
        _commands(service, path, findings)
        _edges(name, service, settings, declared, findings)
    for name, schedule in settings.jobs.schedules.items():
        schedule_rules.examine(name, schedule, findings)
    _addresses(settings, findings)
    _cycles(settings, findings)
    for name, check in settings.checks.items():
        _check_of(name, check.service, declared, findings)
        if check.service is not None and check.critical:
            findings.add(
                ("checks", name, "critical"),
                got=f"a check of a service is as critical as {check.service} itself",
                hint="set `critical` in the service's own table",
                at_key=True,
            )


# --- inside a service


def _probes(service: Service, path: KeyPath, findings: Findings) -> None:
    if service.ready is not None:
        kind = _kind(service.ready, (*path, "ready"), spec.READY_KINDS, findings)
        if kind is not None:
            _options(service.ready, kind, (*path, "ready"), findings)
        if service.ready.notify is False:
            findings.add((*path, "ready", "notify"), expected="true")
        if service.ready.timeout is not None and "start_timeout" in service.model_fields_set:
            findings.add(
                (*path, "ready", "timeout"),
                got="start_timeout says it too",
                hint="keep one of the two",
                at_key=True,
            )
    if service.live is not None:
        kind = _kind(service.live, (*path, "live"), spec.LIVE_KINDS, findings)
        if kind is not None:
            _options(service.live, kind, (*path, "live"), findings)


def _kind(
    table: Ready | Live, path: KeyPath, kinds: tuple[str, ...], findings: Findings
) -> str | None:
    given = chosen(table, kinds)
    if len(given) == 1:
        return given[0]
    expected = f"exactly one of {', '.join(kinds)}"
    if not given:
        findings.add(path, expected=expected, got="none of them")
    else:
        findings.add((*path, given[-1]), expected=expected, got=" and ".join(given), at_key=True)
    return None


def _options(table: Ready | Live, kind: str, path: KeyPath, findings: Findings) -> None:
    if kind == "http":
        useful = {*PROBE_OPTIONS, "statuses"}
    elif kind in PROBING:
        useful = set(PROBE_OPTIONS)
    else:
        useful = set()
    for option in sorted(table.model_fields_set & {*PROBE_OPTIONS, "statuses"} - useful):
        findings.add(
            (*path, option), got=f"means nothing for {kind}", hint="remove it", at_key=True
        )


def _restarts(service: Service, path: KeyPath, findings: Findings) -> None:
    backoff = service.backoff
    if backoff.cap < backoff.base:
        findings.add(
            (*path, "backoff", "cap" if "cap" in backoff.model_fields_set else "base"),
            expected="a cap of at least the base",
            got=f"base {format_duration(backoff.base)}, cap {format_duration(backoff.cap)}",
        )
    lists = {
        "success_codes": service.restart.success_codes,
        "no_restart_codes": service.restart.no_restart_codes,
        "config_error_codes": service.restart.config_error_codes,
    }
    seen: dict[int, str] = {}
    for name, codes in lists.items():
        for code in codes:
            if code not in seen:
                seen[code] = name
                continue
            # The default list gives way in the message: the operator can only mend what is there.
            mine = name if name in service.restart.model_fields_set else seen[code]
            other = seen[code] if mine == name else name
            findings.add(
                (*path, "restart", mine),
                expected="each exit code in one list",
                got=f"{code}, which {other} has too",
            )


def _ending(service: Service, path: KeyPath, findings: Findings) -> None:
    if service.stop.drain is None and "drain_timeout" in service.stop.model_fields_set:
        findings.add(
            (*path, "stop", "drain_timeout"), got="means nothing without drain", at_key=True
        )
    table = service.reload
    if table is None:
        return
    here = (*path, "reload")
    given = chosen(table, ("signal", "exec", "notify"))
    expected = "exactly one of signal, exec, notify"
    if table.notify is False:
        findings.add((*here, "notify"), expected="true")
    elif not given:
        findings.add(here, expected=expected, got="none of them")
    elif "exec" in given and len(given) > 1:
        findings.add((*here, "exec"), expected=expected, got=" and ".join(given), at_key=True)
    elif given == ("signal",) and "timeout" in table.model_fields_set:
        hint = "nobody can tell when a signal has been acted on; see notify"
        findings.add((*here, "timeout"), got="means nothing for signal", hint=hint, at_key=True)
    if table.signal in STOPPERS:
        findings.add((*here, "signal"), expected="a signal that a program can catch")


def _oneshot(service: Service, path: KeyPath, findings: Findings) -> None:
    if service.type != "oneshot":
        return
    for name in ("ready", "live", "watchdog", "reload"):
        if getattr(service, name) is not None:
            findings.add(
                (*path, name),
                got="means nothing for a oneshot, which runs to its end",
                hint="others wait for that with NAME:completed",
                at_key=True,
            )
    if service.restart.policy == "always":
        findings.add(
            (*path, "restart"),
            expected='"on-failure" or "never" for a oneshot',
            got='"always"',
            hint='a program that is to run over and over is of type "simple"',
        )


def _sockets(service: Service, path: KeyPath, findings: Findings) -> None:
    for name, socket in service.sockets.items():
        here: KeyPath = (*path, "sockets", name)
        if not NAME.fullmatch(name):
            hint = "small letters, digits, - and _, a letter first"
            findings.add(here, expected="a socket's name", got=repr(name), hint=hint, at_key=True)
        if "mode" in socket.model_fields_set and not socket.address.startswith("unix"):
            findings.add((*here, "mode"), got="means nothing without a file", at_key=True)
    ready = service.ready
    last = LISTEN_FDS_START + len(service.sockets) - 1
    if ready is not None and ready.fd is not None and ready.fd <= last:
        findings.add(
            (*path, "ready", "fd"),
            expected=f"a descriptor from {last + 1} on",
            hint=f"the sockets are passed as {LISTEN_FDS_START} to {last}"
            if last > LISTEN_FDS_START
            else f"the socket is passed as {last}",
        )


def _variables(service: Service, path: KeyPath, findings: Findings) -> None:
    for name in service.env:
        if name in SET_BY_ATLASD:
            findings.add(
                (*path, "env", name), got="atlasd sets it itself", hint="remove it", at_key=True
            )


def commands(service: Service) -> Iterator[tuple[KeyPath, tuple[str, ...]]]:
    """Every command of a service, with the way to it below the service."""
    if service.command is not None:
        yield ("command",), service.command
    if service.worker is not None and service.worker.exec is not None:
        yield ("worker", "exec"), service.worker.exec
    for name in ("ready", "live", "reload"):
        table = getattr(service, name)
        if table is not None and table.exec is not None:
            yield (name, "exec"), table.exec
    if service.stop.drain is not None:
        yield ("stop", "drain"), service.stop.drain
    for name in ("pre_start", "post_start", "pre_stop", "post_stop"):
        hooks: tuple[Hook, ...] = getattr(service, name)
        for index, hook in enumerate(hooks):
            yield (name, index), hook.command


def _commands(service: Service, path: KeyPath, findings: Findings) -> None:
    for below, words in commands(service):
        where = (*path, *below)
        if words[0].startswith("-"):
            findings.add(
                where,
                expected="a program",
                got="an option",
                hint='one command as a list of words is { command = ["a", "b"] } here',
            )
        found = next((word for word in words if word in SHELL_WORDS), None)
        if found is not None:
            findings.add(
                where,
                got=f"no shell runs, so {found!r} is an argument like any other",
                hint='write ["sh", "-c", "…"] if a shell is meant',
                warning=True,
            )


# --- between services


def _edges(
    name: str,
    service: Service,
    settings: Settings,
    declared: Collection[str],
    findings: Findings,
) -> None:
    for kind in spec.EDGE_KINDS:
        for index, text in enumerate(getattr(service, kind)):
            path = ("services", name, kind, index)
            found = edge(text, kind)
            if found.condition not in spec.CONDITIONS:
                findings.add(
                    path,
                    expected=f"a condition: {', '.join(spec.CONDITIONS)}",
                    got=repr(found.condition),
                    hint=nearest(found.condition, spec.CONDITIONS),
                )
            elif _service_exists(found.service, name, path, declared, findings):
                _reachable(found, settings.services.get(found.service), path, findings)
    for index, other in enumerate(service.restart_with):
        path = ("services", name, "restart_with", index)
        _service_exists(other, name, path, declared, findings)


def _service_exists(
    other: str, name: str, path: KeyPath, declared: Collection[str], findings: Findings
) -> bool:
    if other == name:
        findings.add(path, expected="another service", got=f"{name} itself")
        return False
    if other not in declared:
        hint = nearest(other, tuple(n for n in declared if n != name))
        findings.add(path, expected="the name of a service", got=repr(other), hint=hint)
        return False
    return True


def _reachable(found: spec.Edge, other: Service | None, path: KeyPath, findings: Findings) -> None:
    if other is None:
        return
    if found.condition == "completed" and other.type != "oneshot":
        findings.add(
            path,
            got=f"{found.service} is not a oneshot: it is completed only if it ends by itself",
            hint='give it type = "oneshot", or wait for ready',
            warning=True,
        )
    elif found.condition == "healthy" and other.ready is None and other.live is None:
        findings.add(
            path,
            got=f"{found.service} has neither ready nor live, so nothing says that it is healthy",
            hint="give it one, or wait for ready",
            warning=True,
        )


def _addresses(settings: Settings, findings: Findings) -> None:
    seen: dict[str, str] = {}
    for name, service in settings.services.items():
        for key, socket in service.sockets.items():
            owner = f"services.{name}.sockets.{key}"
            # Port 0 is another port each time.
            free = socket.address.startswith(("tcp", "udp")) and socket.address.endswith(":0")
            first = seen.setdefault(socket.address, owner)
            if first != owner and not free:
                findings.add(
                    ("services", name, "sockets", key),
                    expected="an address of its own",
                    got=f"{socket.address}, which {first} has",
                )


def _cycles(settings: Settings, findings: Findings) -> None:
    _cycle(settings, spec.EDGE_KINDS, "services that do not wait for each other", findings)
    # Each restart would be the cause of the next.
    _cycle(settings, ("restart_with",), "services that do not restart each other", findings)


def _cycle(settings: Settings, kinds: tuple[str, ...], expected: str, findings: Findings) -> None:
    """Note a shortest cycle of the edges that stand in the lists `kinds`, where it begins."""
    graph: dict[str, list[spec.Edge]] = {name: [] for name in settings.services}
    places: dict[tuple[str, str], KeyPath] = {}
    for name, service in settings.services.items():
        for kind in kinds:
            for index, text in enumerate(getattr(service, kind)):
                found = edge(text, kind)
                # Unknown services, and those that name themselves, have been told of already.
                if found.service in graph and found.service != name:
                    graph[name].append(found)
                    places.setdefault((name, found.service), ("services", name, kind, index))
    try:
        order.check_graph(graph)
    except order.CycleError as error:
        first, second = error.path[:2]
        findings.add(
            places[first, second],
            expected=expected,
            got=" → ".join(error.path),
            hint="remove one of these",
        )


def _check_of(
    name: str, service: str | None, declared: Collection[str], findings: Findings
) -> None:
    if service is not None and service not in declared:
        findings.add(
            ("checks", name, "service"),
            expected="the name of a service",
            hint=nearest(service, tuple(declared)),
        )
