"""atlasd keeps an application running around the clock on a Linux host."""

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]

# Type checkers take the branch by the name; importing typing would cost the services role memory.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pluggy

    hookimpl: pluggy.HookimplMarker


def __getattr__(name: str) -> object:
    """Make `hookimpl` when a plugin first asks: pluggy is not loaded for those who never do."""
    if name != "hookimpl":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import pluggy

    marker = globals()["hookimpl"] = pluggy.HookimplMarker("atlasd")
    return marker
