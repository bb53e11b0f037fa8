"""What every role stands on: the files, the plugins, the configuration, the lock, the signals."""

import asyncio
import fcntl
import logging
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlasd import logs, notify
from atlasd.config.editing import Texts, overlaid
from atlasd.config.load import Config, Offers, load
from atlasd.config.writing import finish
from atlasd.contracts.checks import CheckType
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.queue import QueueStoreType
from atlasd.contracts.secrets import Resolve, RotatorType, SecretBackend
from atlasd.control.wire import BY_NAME
from atlasd.core.watch import LastWords, Watchdog
from atlasd.daemon.secrets import Vault
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.paths import Paths
from atlasd.pluginhost.host import PluginHost
from atlasd.settings.applied import ApplicationSettings, Applied

STEP = 10.0
"""Seconds that one step of a shutdown may take before it is left behind."""

_log = logging.getLogger("atlasd.daemon")


@dataclass(kw_only=True)
class Reader:
    """Reads configurations: where the files are, and the plugins that know what they may say."""

    role: str
    paths: Paths
    env: str | None
    host: PluginHost
    vault: Vault
    """Where the values of secrets come from."""
    overrides: Sequence[str] = ()
    """KEY=VALUE of each `--set`."""

    def load(self) -> Config:
        """The configuration as its files are now. Raises as `atlasd.config.load.load`."""
        finish(folder_of(self.paths))
        return self.load_with({}, None)

    def load_with(self, texts: Texts, env: str | None) -> Config:
        """The same with these texts in place of what some files hold.

        For another environment than the one in force it is without the values of its secrets, and
        no command of it is run.
        """
        return load(
            self.paths,
            overlaid(sources(self.host), texts),
            env=env or self.env,
            overrides=self.overrides,
            offers=offers(self.host),
            resolve=resolver(self.role, self.vault) if env is None else None,
            applications=applications(self.role, self.paths)
            if env is None
            else ApplicationSettings(run_dir=self.paths.run, vet=False),
        )

    def of_environment(self, env: str) -> Config:
        """The configuration of an environment as the files are now, without values of secrets."""
        finish(folder_of(self.paths))
        return self.load_with({}, env)


@dataclass(kw_only=True)
class Ground:
    """What every role stands on: where the files are, the plugins, the configuration."""

    role: str
    paths: Paths
    reader: Reader
    host: PluginHost
    config: Config
    redact: logs.Redactor
    heard: list[Callable[[Event], None]]
    """Who is told what plugins publish."""
    vault: Vault
    """Where the values of secrets come from."""

    def load(self) -> Config:
        """The configuration as its files are now. Raises as `atlasd.config.load.load`."""
        return self.reader.load()

    def look(self, env: str) -> Applied:
        """Settings of applications in another environment, without secrets; nothing is run.

        Raises as `atlasd.config.load.load`.
        """
        return applied(self.reader.of_environment(env))

    async def follow(self, config: Config) -> None:
        """As `take`, for what hands a configuration on."""
        self.take(config)

    def take(self, config: Config) -> None:
        """Let this configuration be the one in force."""
        self.config = config
        self.host.setting.environment = config.environment
        self.vault.follow(config)
        # No line of ours may show a value that a service is given as a secret, or that stands in
        # its environment under a name that says so.
        self.redact.learn((secret.name, secret.value) for secret in config.known)
        for spec in config.specs():
            self.redact.learn((secret.name, secret.value) for secret in spec.secrets)
            self.redact.learn(
                (name, value) for name, value in spec.env.items() if logs.is_secret_name(name)
            )
        logs.configure(
            role=self.role, level=config.log.level, style=config.log.format, redact=self.redact
        )


def lay(role: str, paths: Paths, env: str | None, overrides: Sequence[str] = ()) -> Ground:
    """Load plugins and configuration. Raises `AtlasError` for a configuration with errors."""
    heard: list[Callable[[Event], None]] = []
    host = plugins(paths, heard)
    vault = Vault(host, paths, role, publish=teller(heard))
    redact = logs.Redactor()
    vault.known = lambda name, value: redact.learn([(name, value)])
    reader = Reader(role=role, paths=paths, env=env, overrides=overrides, host=host, vault=vault)
    config = reader.load()
    ground = Ground(
        role=role,
        paths=paths,
        reader=reader,
        host=host,
        config=config,
        redact=redact,
        heard=heard,
        vault=vault,
    )
    ground.take(config)
    for warning in config.warnings:
        _log.warning("%s", warning)
    return ground


def resolver(role: str, vault: Vault) -> Resolve | None:
    """What gives a role the values of secrets; api has none, and needs none."""
    return None if role == "api" else vault.resolve


def teller(heard: Sequence[Callable[[Event], None]]) -> Callable[[Event], None]:
    """Tells each of `heard`, at that time."""

    def publish(event: Event) -> None:
        for hear in heard:
            hear(event)

    return publish


def folder_of(paths: Paths) -> Path:
    """The folder of the configuration's main file."""
    return Path(paths.config_file).parent


def applications(role: str, paths: Paths) -> ApplicationSettings | None:
    """What looks into settings of applications, in the roles that hand them over or check them."""
    if role not in ("core", "run", "check"):
        return None
    return ApplicationSettings(run_dir=paths.run)


def applied(config: Config) -> Applied:
    """What became of the settings of applications."""
    found = config.applications
    return found if isinstance(found, Applied) else Applied()


def plugins(paths: Paths, heard: Sequence[Callable[[Event], None]]) -> PluginHost:
    """Every plugin there is; each of `heard`, at that time, is told what they publish."""
    host = PluginHost(
        drop_ins=Path(paths.plugins_dir),
        state_dir=Path(paths.state, "plugins"),
        publish=teller(heard),
        reserved_operations=BY_NAME,
    )
    host.setting.config_dir = folder_of(paths)
    host.load()
    return host


def sources(host: PluginHost) -> list[ConfigSource]:
    """What can read configuration files."""
    return [offer.descriptor for offer in host.offers(ConfigSource)]


def offers(host: PluginHost) -> Offers:
    """What a configuration can name of the plugins."""
    return Offers(
        check_types={o.descriptor.name: o.descriptor for o in host.offers(CheckType)},
        plugin_settings=host.plugin_settings(),
        secret_backends={o.descriptor.name: o.descriptor for o in host.offers(SecretBackend)},
        rotators={o.descriptor.name: o.descriptor for o in host.offers(RotatorType)},
        queue_stores={o.descriptor.name: o.descriptor for o in host.offers(QueueStoreType)},
        refused=host.refusals(),
    )


def lock(paths: Paths, role: str) -> int:
    """The lock that keeps a second one from this root; the kernel lets go of it with the process.

    Raises `AtlasError` `daemon.running` when another process has it.
    """
    path = Path(paths.run, f"{role}.lock")
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(held, 32, 0).decode(errors="replace").strip()
        os.close(held)
        raise AtlasError(
            "daemon.running",
            f"another daemon (pid {pid or 'unknown'}) already uses {paths.run}",
            hint="use that one (atlasctl status), stop it (atlasctl shutdown), or choose another "
            "place with --root DIR",
        ) from None
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    return held


def raise_nofile() -> None:
    """Take all descriptors that we may have: core keeps a few for each instance."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Stop:
    """When a role is to end: somebody sent TERM or INT, or a role that it is part of ends."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.by = ""
        """The signal that said so, by its name; empty when none has."""
        self.on_reload: Callable[[], object] = lambda: None

    def listen(self) -> None:
        """Be told by signals; the second INT or TERM ends the process at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        self.on_reload()

    def _signalled(self, number: int) -> None:
        if self.event.is_set():
            _log.warning("told to stop again: leaving at once; what still runs runs on")
            os._exit(128 + number)
        self.by = signal.Signals(number).name
        _log.info("told to stop by %s", self.by)
        notify.stopping()
        self.event.set()


async def either(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def step(what: str, work: Awaitable[object], limit: float = STEP) -> None:
    """One step of a shutdown: whatever becomes of it, the next one has its turn."""
    try:
        async with asyncio.timeout(limit):
            await work
    except TimeoutError:
        _log.warning("stopping: %s took longer than %g s and is left behind", what, limit)
    except Exception:  # noqa: BLE001  the next step must have its turn
        _log.exception("stopping: %s failed", what)


def watchdog(
    parts: Mapping[str, Callable[[], Awaitable[None]]], last_words: LastWords | None = None
) -> Watchdog:
    """The pings that systemd asked this process for, if it did."""
    return Watchdog(
        parts,
        interval=notify.watchdog_interval(),
        ping=notify.watchdog,
        last_words=last_words,
        report=_log.error,
    )
