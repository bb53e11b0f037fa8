"""Whether the files of a configuration are followed, which they are, and what was last seen."""

import logging
from collections.abc import Awaitable, Callable

from atlasd.config.generations import Generations
from atlasd.config.load import Config
from atlasd.config.watching import Places, Watcher
from atlasd.paths import Paths

_log = logging.getLogger("atlasd.config")


class Following:
    """Follows the files of the generation in force, as `[host] watch_config` says."""

    def __init__(self, generations: Generations, paths: Paths) -> None:
        self._generations = generations
        self._paths = paths
        self._watcher: Watcher | None = None

    async def run(self, changed: Callable[[], Awaitable[object]]) -> None:
        """Call `changed` when the files differ from those last seen, until cancelled."""

        async def carefully() -> None:
            try:
                await changed()
            except Exception:  # noqa: BLE001  core must not fall because of a file
                _log.exception("the configuration's files have changed, and could not be read")

        try:
            self._watcher = Watcher(self.places, carefully, seen=self._generations.seen)
        except OSError as error:
            _log.warning(
                "files are not followed, as the kernel does not allow it: %s; raise "
                "fs.inotify.max_user_instances, or say `atlasctl config reload` after a change",
                error.strerror,
            )
            return
        await self._watcher.run()

    async def follow(self, config: Config) -> None:
        """Another generation is in force: it may have other files."""
        del config
        if self._watcher is not None:
            self._watcher.look()

    def places(self) -> Places:
        """What is to be followed now; nothing if that is not wanted."""
        config = self._generations.current
        if not config.host.watch_config:
            return Places(files=frozenset())
        paths = self._paths
        return Places(
            files=frozenset({paths.config_file, *config.read_files, *config.awaited}),
            folders=frozenset({paths.config_parts, paths.environments, paths.hosts}),
        )
