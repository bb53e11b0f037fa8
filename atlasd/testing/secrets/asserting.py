"""What the suite of secret backends is made of: values it would find, and what it asserts."""

import base64
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.secrets import (
    STAGES,
    Capability,
    KeyInfo,
    KeyRing,
    Sealer,
    SecretBackend,
    SecretStore,
    SecretValue,
)
from atlasd.errors import AtlasError
from atlasd.testing.context import PlainContext

Disable = Callable[[str, str], Awaitable[None]]

LIMIT = timedelta(seconds=30)
MARK = "XyloPhon7Quartz"
"""Stands in every value of the suite, and is looked for wherever no value may be."""
NOBODY = "nobody/has-put-this"
NOTHING = timedelta(0)

ODD_NAMES = (
    "",
    " ",
    "two words",
    "/absolute",
    "closed/",
    "a//b",
    "../outside",
    ".",
    "..",
    "ünicode/ключ",
    "a@b",
    "a#b",
    "a%2Fb",
    "a--b",
    "a-2d",
    "two\nlines",
    "nul\0byte",
    "x" * 600,
)
"""Names that a backend may accept or refuse, but not misunderstand."""


def value_of(text: str) -> SecretValue:
    """A value that the suite would find wherever it is shown."""
    return SecretValue(f"{MARK}-{text}")


def needs(backend: SecretBackend, *capabilities: Capability) -> None:
    """Skip a test about what the backend does not claim to do."""
    for capability in capabilities:
        if capability not in backend.capabilities:
            pytest.skip(f"it does not declare {capability}")


@asynccontextmanager
async def opened(
    backend: SecretBackend, settings: dict[str, Any], context: PlainContext
) -> AsyncIterator[SecretStore]:
    """The backend, opened with settings as a file has them; a ring without keys gets one."""
    model = backend.settings.model_validate(settings)
    async with backend.open(model, context) as store:
        if Capability.KEYS in backend.capabilities and not await ring_of(store).keys():
            await ring_of(store).keygen()
        yield store


@asynccontextmanager
async def other_environment(context: PlainContext) -> AsyncIterator[PlainContext]:
    """A context for the same folders in another environment."""
    plain = PlainContext(
        context.state_dir,
        clock=context.clock,
        environment="staging",
        config_dir=context.config_dir,
    )
    try:
        yield plain
    finally:
        plain.close()


@contextmanager
def refused(*codes: str, naming: str = "") -> Iterator[None]:
    """Assert that a call is refused with one of these codes, and that no value is shown."""
    with pytest.raises(AtlasError) as caught:
        yield
    only(caught.value, *codes, naming=naming)


def only(error: AtlasError, *codes: str, naming: str = "") -> None:
    """Assert that an error has one of these codes, names what it is about and shows no value."""
    assert error.code in codes, f"{error.code}: {error.message}"
    assert naming in error.message, f"{error.message!r} does not say {naming!r}"
    assert not shows(shown(error)), "an error shows a value"


def shown(error: BaseException) -> str:
    """Everything that an error could bring to light."""
    wire = repr(error.to_wire()) if isinstance(error, AtlasError) else ""
    return "".join(traceback.format_exception(error)) + repr(error) + wire


def shows(text: str) -> bool:
    """Whether one of the suite's values stands in a text, plain or in a plain encoding."""
    raw = MARK.encode()
    forms = {MARK, raw.hex()}
    for shift in range(3):
        # Without the characters at the ends, which depend on the bytes beside the mark.
        coded = base64.b64encode(b"\0" * shift + raw).decode()
        forms.add(coded.rstrip("=")[4:-2])
    return any(form in text for form in forms)


async def text_of(store: SecretStore, name: str) -> str:
    """The current value, as text."""
    found = await store.get(name)
    assert found.value is not None
    return found.value.text()


async def assert_stages(store: SecretStore, name: str, expected: Mapping[str, str | None]) -> None:
    """Assert which text each stage has; None means that no version is at it."""
    for stage, text in expected.items():
        if text is None:
            with refused("secret.not_found", naming=name):
                await store.get(name, stage=stage)
            continue
        found = await store.get(name, stage=stage)
        assert found.value == value_of(text), f"{stage} of {name} is not {text!r}"
        assert stage in found.stages
        assert set(found.stages) <= set(STAGES)


async def assert_gone(backend: SecretBackend, store: SecretStore, name: str) -> None:
    """Assert that nothing of a secret is left."""
    with refused("secret.not_found", naming=name):
        await store.get(name)
    with refused("secret.not_found", naming=name):
        await store.describe(name)
    if Capability.LIST in backend.capabilities:
        assert name not in [info.name for info in await store.list()]
    if Capability.RECOVER in backend.capabilities:
        with refused("secret.not_found", naming=name):
            await store.recover(name)


def assert_nothing_is_shown(records: Iterable[logging.LogRecord], folder: Path) -> None:
    """Assert that no value was logged, with its traceback, nor stands in a file of a folder."""
    form = logging.Formatter()
    for record in records:
        assert not shows(form.format(record)), f"{record.name} logs a value"
    for path in folder.rglob("*"):
        if path.is_file():
            assert not shows(path.read_bytes().decode("latin-1")), f"{path} has a value"


def ring_of(store: SecretStore) -> KeyRing:
    """The store as the key ring that it must be."""
    assert isinstance(store, KeyRing)
    return store


def sealer_of(store: SecretStore) -> Sealer:
    """The store as the sealer that it must be."""
    assert isinstance(store, Sealer)
    return store


async def new_key(ring: KeyRing) -> KeyInfo:
    """A new primary key; the test is skipped where none can be made."""
    try:
        return await ring.keygen()
    except AtlasError as error:
        only(error, "secret.conflict")
        pytest.skip("its keys come from a source that cannot be written")
