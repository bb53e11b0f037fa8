"""Rules of services that run jobs: `worker` and `scale`."""

from atlasd.config.convert import WORKER_ENDS
from atlasd.config.problems import Findings, dotted
from atlasd.config.service import Scale, Service, Worker
from atlasd.config.units import format_duration
from atlasd.contracts.config import KeyPath

_KINDS = ("module", "exec", "http")


def examine(service: Service, path: KeyPath, findings: Findings) -> None:
    """Note what is wrong with what a service runs."""
    if service.worker is None and service.command is None:
        _nothing_to_run(path, findings)
    elif service.worker is not None:
        if service.command is not None:
            findings.add(
                (*path, "worker"), got="means nothing beside a command",
                hint="keep one of the two", at_key=True,
            )  # fmt: skip
        _worker(service.worker, (*path, "worker"), findings)
        _ending(service, service.worker, path, findings)
    if service.scale is not None:
        _scale(service.scale, service, path, findings)


def _nothing_to_run(path: KeyPath, findings: Findings) -> None:
    keys = tuple(dotted((*path, name)) for name in ("command", "worker"))
    if any(problem.key.startswith(keys) for problem in findings.problems):
        return  # what stands there is wrong, and has been told of
    findings.add(
        (*path, "command"),
        expected="a command, or a worker",
        got="nothing",
        hint='as in command = ["gunicorn", "shop:app"], or worker = { module = "shop.jobs" }',
    )


def _worker(worker: Worker, path: KeyPath, findings: Findings) -> None:
    given = [kind for kind in _KINDS if getattr(worker, kind)]
    if len(given) != 1:
        findings.add(
            path, expected=f"exactly one of {', '.join(_KINDS)}",
            got=" and ".join(given) or "none of them",
        )  # fmt: skip
    elif given != ["module"] and not worker.queues:
        findings.add(
            path, expected="queues", got="none",
            hint=f'{given[0]} does not say of which jobs: queues = ["email"]',
        )  # fmt: skip
    if given == ["module"] and "result" in worker.model_fields_set:
        findings.add((*path, "result"), got="means nothing for a module", at_key=True)
    if worker.http is not None and not worker.http.startswith(("http://", "https://")):
        findings.add((*path, "http"), expected="a URL, http:// or https://")


def _ending(service: Service, worker: Worker, path: KeyPath, findings: Findings) -> None:
    least = worker.grace + WORKER_ENDS
    if "timeout" in service.stop.model_fields_set and service.stop.timeout < least:
        findings.add(
            (*path, "stop", "timeout"),
            expected=f"at least {format_duration(least)}: the worker's grace and "
            f"{format_duration(WORKER_ENDS)}",
            got=format_duration(service.stop.timeout),
            hint="without it the time follows the grace",
        )
    if service.type != "simple":
        findings.add((*path, "type"), expected='"simple" for a worker', got=f'"{service.type}"')


def _scale(scale: Scale, service: Service, path: KeyPath, findings: Findings) -> None:
    if scale.min > scale.max:
        findings.add(
            (*path, "scale", "min"), expected=f"at most max, {scale.max}", got=str(scale.min)
        )
    if service.worker is None:
        findings.add(
            (*path, "scale"), got="means nothing without a worker, whose queues it goes by",
            at_key=True,
        )  # fmt: skip
    elif not service.worker.queues:
        findings.add(
            (*path, "worker"), expected="queues", got="none",
            hint="scale goes by their backlog: say which they are",
        )  # fmt: skip
    if "instances" in service.model_fields_set:
        findings.add(
            (*path, "instances"), got="scale says it too", hint="keep one of the two", at_key=True
        )
