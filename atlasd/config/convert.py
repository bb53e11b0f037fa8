"""From models to what the services role runs: `ServiceSpec` and `HostPolicy`."""

import base64
import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence

from atlasd.config.probes import Live, Ready
from atlasd.config.schema import Host
from atlasd.config.service import Hook, Reload, Service
from atlasd.services import spec

ACCOUNT_VARIABLES = frozenset({"HOME", "USER", "LOGNAME", "SHELL"})
"""What a service with a `user` of its own has from that account, never from the daemon."""
WORKER_ENDS = 5.0
"""Seconds that a worker has, after the grace of its jobs, to give back what it holds."""
JOBS_SOCKET = "ATLASD_JOBS"
"""Variable that tells a worker where the job engine listens."""


def edge(text: str, kind: str) -> spec.Edge:
    """The dependency that `db:ready` in a list `kind` (requires, wants, after) stands for."""
    name, colon, condition = text.partition(":")
    return spec.Edge(service=name, kind=kind, condition=condition if colon else "started")


def edges(service: Service) -> tuple[spec.Edge, ...]:
    """All dependencies of a service."""
    return tuple(edge(text, kind) for kind in spec.EDGE_KINDS for text in getattr(service, kind))


def chosen(table: Ready | Live | Reload, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds that a table has been given, in the order of `kinds`."""
    return tuple(kind for kind in kinds if getattr(table, kind, None) is not None)


def environment(
    service: Service, *, files: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a service: inherited ones, those of its files, its own; the last one wins.

    `environ` is the daemon's own environment. What the services role adds to each instance
    (PATH where there is none, the account's variables, LISTEN_FDS and so on) isn't among them.
    """
    return {n: environ[n] for n in _kept(service, environ)} | dict(files) | service.env


def inherited(
    service: Service, *, files: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Names of the variables whose values are the daemon's own.

    They differ with the shell that atlasd was started from, which is no change of the service.
    """
    return tuple(n for n in _kept(service, environ) if n not in files and n not in service.env)


def _kept(service: Service, environ: Mapping[str, str]) -> list[str]:
    kept = [name for name in service.inherit_env if name in environ]
    if service.user is not None:
        kept = [name for name in kept if name not in ACCOUNT_VARIABLES]
    return kept


def command_of(service: Service) -> tuple[str, ...]:
    """What a service runs: its command, or the worker of this very Python."""
    worker = service.worker
    if worker is None:
        return service.command or ()
    words = [sys.executable, "-m", "atlasd.worker", *worker.module]
    if worker.exec is not None:
        words += ["--exec", shlex.join(worker.exec)]
    if worker.http is not None:
        words += ["--http", worker.http]
    if worker.result != "json":
        words += ["--result", worker.result]
    for queue in worker.queues:
        words += ["--queue", queue]
    for name in ("processes", "concurrency"):
        number = getattr(worker, name)
        if number != 1:
            words += [f"--{name}", str(number)]
    if worker.prefetch is not None:
        words += ["--prefetch", str(worker.prefetch)]
    return (*words, "--grace", f"{worker.grace:g}")


def stop_timeout(service: Service) -> float:
    """Seconds that an instance has to end; a worker a little more than its jobs have."""
    if service.worker is None or "timeout" in service.stop.model_fields_set:
        return service.stop.timeout
    return max(service.stop.timeout, service.worker.grace + WORKER_ENDS)


def service_spec(
    name: str,
    service: Service,
    *,
    files: Mapping[str, str],
    environ: Mapping[str, str],
    folder: str,
    extra_deliveries: Sequence[spec.Delivery] = (),
    known_secrets: Sequence[spec.KnownSecret] = (),
    secret_variables: Collection[str] = (),
    jobs_socket: str = "",
) -> spec.ServiceSpec:
    """The specification of a valid service.

    `files` holds the variables of its environment files, `folder` is where relative paths start.
    `extra_deliveries` are what it is handed beside its secrets: its settings, as variables (kind
    env; one that the service's own `env` or files have too is left out) or as rendered files.
    `known_secrets` are secrets that stand in these or anywhere else in its definition;
    `secret_variables` names those of its own variables that are made of secrets: they are handed
    over as such, so that a change of them is no change of the definition. `jobs_socket` is where
    the job engine listens, for a worker.
    """
    env = environment(service, files=files, environ=environ)
    if service.worker is not None and jobs_socket:
        env.setdefault(JOBS_SOCKET, jobs_socket)
    variables = tuple(
        _variable(name, env.pop(name)) for name in sorted(env.keys() & set(secret_variables))
    )
    ready_timeout = service.ready.timeout if service.ready is not None else None
    return spec.ServiceSpec(
        name=name,
        command=command_of(service),
        type=service.type,
        instances=service.instances if service.scale is None else service.scale.min,
        enabled=service.enabled,
        edges=edges(service),
        restart_with=service.restart_with,
        sockets=tuple(
            spec.Socket(name=key, address=s.address, backlog=s.backlog, mode=s.mode)
            for key, s in service.sockets.items()
        ),
        ready=_probe(service.ready) if service.ready is not None else None,
        start_timeout=ready_timeout if ready_timeout is not None else service.start_timeout,
        min_uptime=service.min_uptime,
        live=_probe(service.live) if service.live is not None else None,
        watchdog=service.watchdog,
        restart=_restart(service),
        stop=spec.Stop(
            signal=service.stop.signal,
            timeout=stop_timeout(service),
            escalation=tuple((step.signal, step.timeout) for step in service.stop.escalation),
            kill_mode=service.stop.kill_mode,
            drain=service.stop.drain or (),
            drain_timeout=service.stop.drain_timeout,
        ),
        reload=_reload(service.reload) if service.reload is not None else spec.Reload(),
        limits=spec.Limits(**service.limits.model_dump()),
        log=spec.Log(**service.log.model_dump()),
        env=env,
        deliveries=(
            *secret_deliveries(service),
            *variables,
            *(d for d in extra_deliveries if not _is_own(d, service, files)),
        ),
        on_change=_on_change(service),
        secrets=_known(service, known_secrets),
        inherited=inherited(service, files=files, environ=environ),
        cwd=os.path.join(folder, service.cwd),  # noqa: PTH118  a Path would drop a final `/.`
        user=service.user,
        group=service.group,
        umask=service.umask,
        nice=service.nice,
        no_new_privs=service.no_new_privs,
        pre_start=_hooks(service.pre_start),
        post_start=_hooks(service.post_start),
        pre_stop=_hooks(service.pre_stop),
        post_stop=_hooks(service.post_stop),
        critical=service.critical,
    )


def secret_deliveries(service: Service) -> tuple[spec.Delivery, ...]:
    """What `[services.NAME.secrets]` hands to the program, by the names of the variables."""
    return tuple(
        spec.Delivery(
            name=name,
            kind=secret.deliver,
            path=secret.path or "",
            content=_content(secret.value),
        )
        for name, secret in sorted(service.secrets.items())
    )


def _content(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _variable(name: str, value: str) -> spec.Delivery:
    return spec.Delivery(name=name, kind="env", content=_content(value))


def _on_change(service: Service) -> spec.OnChange:
    table = service.on_change
    if service.type == "oneshot" and "action" not in table.model_fields_set:
        return spec.OnChange(kind="none")  # its work in hand is worth more
    return spec.OnChange(kind=table.action, signal=table.signal)


def _is_own(delivery: spec.Delivery, service: Service, files: Mapping[str, str]) -> bool:
    own = delivery.name in service.env or delivery.name in files
    return delivery.kind == "env" and own


def _known(service: Service, others: Sequence[spec.KnownSecret]) -> tuple[spec.KnownSecret, ...]:
    known = {one.value: one for one in others}
    for name, secret in sorted(service.secrets.items()):
        known.setdefault(secret.value, spec.KnownSecret(name=name, value=secret.value))
    return tuple(known.values())


def host_policy(host: Host) -> spec.HostPolicy:
    """What holds for all services together."""
    return spec.HostPolicy(
        restart_rate=host.restart_budget.rate,
        restart_burst=host.restart_budget.burst,
        log_budget=host.log_budget,
        cgroup=host.cgroup,
    )


def _probe(table: Ready | Live) -> spec.Probe:
    kinds = spec.READY_KINDS if isinstance(table, Ready) else spec.LIVE_KINDS
    (kind,) = chosen(table, kinds)
    given = getattr(table, kind)
    return spec.Probe(
        kind=kind,
        target=given if isinstance(given, str) else "",
        command=given if isinstance(given, tuple) else (),
        statuses=table.statuses,
        interval=table.interval,
        deadline=table.deadline,
        fail_after=table.fail_after,
        pass_after=table.pass_after,
        start_period=table.start_period,
        seconds=given if kind == "uptime" else 0.0,
        fd=given if kind == "fd" else 3,
    )


def _restart(service: Service) -> spec.Restart:
    table = service.restart
    limit = service.limit
    default = spec.Restart()
    return spec.Restart(
        policy=table.policy,
        backoff=spec.Backoff(**service.backoff.model_dump()),
        limit_count=limit.count if limit is not None else None,
        limit_window=limit.window if limit is not None else default.limit_window,
        on_limit=limit.on_limit if limit is not None else default.on_limit,
        success_codes=table.success_codes,
        no_restart_codes=table.no_restart_codes,
        config_error_codes=table.config_error_codes,
        success_signals=table.success_signals,
    )


def _reload(table: Reload) -> spec.Reload:
    kind = "notify" if table.notify else chosen(table, ("signal", "exec"))[0]
    return spec.Reload(
        kind=kind,
        signal=table.signal or spec.Reload().signal,
        command=table.exec or (),
        timeout=table.timeout,
    )


def _hooks(hooks: tuple[Hook, ...]) -> tuple[spec.Hook, ...]:
    return tuple(spec.Hook(command=hook.command, timeout=hook.timeout) for hook in hooks)
