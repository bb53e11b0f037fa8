"""The commands of `atlasctl`, each loaded when it is used."""

import click

from atlasd import __version__
from atlasd.cli.lazy import Entry, LazyGroup
from atlasd.cli.options import common

COMMANDS = (
    Entry("status", "status", "What every service is wanted to be, and is", ("status", "service")),
    Entry("start", "services", "Start services", ("service.start",)),
    Entry("stop", "services", "Stop services", ("service.stop",)),
    Entry("restart", "services", "Stop and start services", ("service.restart",)),
    Entry(
        "reload",
        "services",
        "Have services, or atlasd itself, read their configuration again",
        ("service.reload", "config.reload"),
    ),
    Entry("pause", "services", "Leave services as they are: no more restarts", ("service.pause",)),
    Entry("signal", "services", "Send a signal to services", ("service.signal",)),
    Entry("scale", "services", "Change how many instances run: scale web=4", ("service.scale",)),
    Entry("logs", "logs", "Output of services", ("logs", "service.logs")),
    Entry("events", "events", "What happened, and happens", ("events",)),
    Entry("why", "why", "How a service came to be as it is, in plain words", ("service.why",)),
    Entry("plan", "config", "What `apply` would do, and why", ("plan",)),
    Entry("apply", "config", "Do what the configuration says", ("apply",)),
    Entry(
        "config",
        "configuring",
        "See, explain, change and take over the configuration",
        (
            "config.show",
            "config.explain",
            "config.sources",
            "config.schema",
            "config.diff",
            "config.export",
            "config.reveal",
            "config.set",
            "config.unset",
            "config.encrypt",
            "config.decrypt",
            "config.history",
            "config.rollback",
        ),
    ),
    Entry(
        "settings",
        "settings",
        "What applications are configured with, and where each setting is from",
        (
            "settings.list",
            "settings.show",
            "settings.explain",
            "settings.diff",
            "settings.render",
            "settings.reveal",
        ),
    ),
    Entry(
        "secret",
        "secrets",
        "Keep, change, rotate and audit secrets",
        (
            "secret.list",
            "secret.check",
            "secret.versions",
            "secret.impact",
            "secret.reveal",
            "secret.set",
            "secret.rollback",
            "secret.delete",
            "secret.recover",
            "secret.refresh",
            "secret.rotate",
            "secret.import",
            "secret.export",
            "secret.keygen",
            "secret.rotate-keys",
            "secret.audit",
            "secret.audit-verify",
        ),
    ),
    Entry(
        "job",
        "jobs",
        "Enqueue, see, watch, explain, cancel and retry jobs",
        (
            "job.enqueue",
            "job.list",
            "job.show",
            "job.watch",
            "job.explain",
            "job.cancel",
            "job.retry",
            "queue.watch",
        ),
    ),
    Entry(
        "queue",
        "queues",
        "See, pause and purge queues of jobs",
        ("queue.list", "queue.show", "queue.pause", "queue.resume", "queue.purge"),
    ),
    Entry(
        "dead",
        "dead",
        "See, edit, requeue, purge, export and import jobs that were given up",
        (
            "dead.groups",
            "dead.list",
            "dead.edit",
            "dead.requeue",
            "dead.purge",
            "dead.export",
            "dead.import",
        ),
    ),
    Entry(
        "breaker",
        "breakers",
        "See and force the circuit breakers of what jobs call",
        ("breaker.list", "breaker.show", "breaker.set"),
    ),
    Entry(
        "schedule",
        "schedules",
        "See, preview, run, pause and resume the schedules of jobs",
        (
            "schedule.list",
            "schedule.show",
            "schedule.preview",
            "schedule.run",
            "schedule.pause",
            "schedule.resume",
        ),
    ),
    Entry("plugins", "plugins", "List plugins, or write a new one", ("plugins",)),
    Entry("health", "health", "Health of the host or of one service", ("health", "health.service")),
    Entry("checks", "health", "Verdicts of the configured checks", ("checks",)),
    Entry("doctor", "doctor", "What this host offers, and what is reduced", ("doctor",)),
    Entry("version", "daemon", "Versions of atlasctl and the daemon", ("version",)),
    Entry("shutdown", "daemon", "Stop the daemon", ("shutdown",)),
    Entry(
        "upgrade",
        "daemon",
        "Replace the program of the services role in place",
        ("services-role.upgrade",),
    ),
    Entry("completion", "completion", "Print the completion script of a shell"),
)

API_ONLY = {
    "secret.keys": "`atlasctl secret check` shows the keys too",
    "metrics": "for the api role and Prometheus: `curl :8000/metrics`",
    "checks.report": "the monitoring role's way to tell core its verdicts",
    "job.work": "for workers that speak HTTP; `atlas-worker` has a quicker way",
    "job.beat": "the heartbeat of workers that speak HTTP",
    "openapi": "for programs that are made from it",
}
"""Operations without a command, and why."""


@click.command(
    cls=LazyGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 unknown name, 4 denied, 5 conflict, "
    "6 timeout, 7 no daemon, 8 unhealthy, 78 invalid configuration.",
)
@common
@click.version_option(__version__, prog_name="atlasctl", message="%(prog)s %(version)s")
def atlasctl() -> None:
    """Ask a running atlasd what it does, and tell it what to do."""
