"""What a backend with a key ring keeps, and one that seals values of configuration files."""

from typing import Any

from atlasd.contracts.secrets import (
    CURRENT,
    PREVIOUS,
    Capability,
    KeyProgress,
    SecretBackend,
    SecretStore,
    SecretValue,
)
from atlasd.testing.context import PlainContext
from atlasd.testing.secrets.asserting import (
    MARK,
    assert_stages,
    needs,
    new_key,
    opened,
    other_environment,
    refused,
    ring_of,
    sealer_of,
    shows,
    text_of,
    value_of,
)


class Sealing:
    """Keys that are made and rotated, values that are sealed and unsealed."""

    async def test_a_new_key_encrypts_and_the_old_ones_still_decrypt(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """The first key of the ring is the primary one; no key is ever shown."""
        needs(backend, Capability.PUT, Capability.KEYS)
        ring = ring_of(store)
        old = await store.put("db", value_of("old"))
        before = list(await ring.keys())
        assert [key.primary for key in before] == [True] + [False] * (len(before) - 1)
        assert before[0].records >= 1
        made = await new_key(ring)
        after = list(await ring.keys())
        assert [key.id for key in after] == [made.id, *(key.id for key in before)]
        assert [key.primary for key in after] == [True] + [False] * len(before)
        assert await text_of(store, "db") == f"{MARK}-old"
        new = await store.put("db", value_of("new"))
        assert (await store.get("db", version=new.version)).key in {"", made.id}
        assert (await store.get("db", version=old.version)).key in {"", before[0].id}

    async def test_keys_are_rotated(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> None:
        """Everything is protected by the new key, everything can be read, old keys are gone."""
        needs(backend, Capability.PUT, Capability.KEYS)
        texts = {f"db{number}": f"text {number}" for number in range(5)}
        async with opened(backend, settings, context) as store:
            ring = ring_of(store)
            for name, text in texts.items():
                await store.put(name, value_of("before"))
                await store.put(name, value_of(text))
            old = [key.id for key in await ring.keys()]
            made = await new_key(ring)
            seen: list[KeyProgress] = []
            end = await ring.rotate_keys(seen.append, retire=False)
            assert end.done == end.total >= len(texts)
            assert end.retired == ()
            assert [progress.done for progress in seen] == sorted(p.done for p in seen)
            assert [key.id for key in await ring.keys()] == [made.id, *old]
            assert [key.records for key in await ring.keys()][1:] == [0] * len(old)
            end = await ring.rotate_keys(seen.append)
            assert set(end.retired) == set(old)
            assert [key.id for key in await ring.keys()] == [made.id]
        async with opened(backend, settings, context) as store:
            for name, text in texts.items():
                await assert_stages(store, name, {CURRENT: text, PREVIOUS: "before"})
            assert [key.id for key in await ring_of(store).keys()] == [made.id]

    async def test_what_was_sealed_is_unsealed(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A sealed value says its form and its key, and comes back whole."""
        needs(backend, Capability.SEAL)
        sealer = sealer_of(store)
        for value in (value_of("text"), SecretValue(bytes(range(256))), SecretValue("")):
            text = await sealer.seal(value, binding="services.web.env.TOKEN")
            start, version, key, token = text.split(":")
            assert (start, version) == ("enc", "v1")
            assert key
            assert token
            assert text.isascii()
            assert not any(map(str.isspace, text))
            assert not shows(text)
            again = await sealer.seal(value, binding="services.web.env.TOKEN")
            assert again != text, "equal values must not be seen to be equal"
            assert await sealer.unseal(text, binding="services.web.env.TOKEN") == value

    async def test_a_sealed_value_is_bound_to_its_place(
        self,
        backend: SecretBackend,
        settings: dict[str, Any],
        context: PlainContext,
        store: SecretStore,
    ) -> None:
        """Under another key path, or in another environment, it is refused."""
        needs(backend, Capability.SEAL)
        text = await sealer_of(store).seal(value_of("bound"), binding="a.b")
        for binding in ("a.c", "", "a.b.c", "A.B"):
            with refused("secret.corrupt"):
                await sealer_of(store).unseal(text, binding=binding)
        async with (
            other_environment(context) as staging,
            opened(backend, settings, staging) as other,
        ):
            with refused("secret.corrupt", "secret.key"):
                await sealer_of(other).unseal(text, binding="a.b")

    async def test_a_changed_token_is_refused(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A single character, or a missing end, is enough."""
        needs(backend, Capability.SEAL)
        sealer = sealer_of(store)
        text = await sealer.seal(value_of("whole"), binding="a.b")
        start = text.rindex(":") + 1
        for at in range(start, len(text.rstrip("=")) - 1, 7):
            other = "A" if text[at] != "A" else "B"
            with refused("secret.corrupt"):
                await sealer.unseal(text[:at] + other + text[at + 1 :], binding="a.b")
        for broken in (text[:-10], text[:start], text[:start] + "ünicode"):
            with refused("secret.corrupt"):
                await sealer.unseal(broken, binding="a.b")
        key = text.split(":")[2]
        with refused("secret.key"):
            await sealer.unseal(text.replace(f":{key}:", ":0000:"), binding="a.b")
        assert await sealer.unseal(text, binding="a.b") == value_of("whole")

    async def test_sealed_values_outlive_a_new_key(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """What an older key of the ring has sealed can still be read."""
        needs(backend, Capability.SEAL, Capability.KEYS)
        text = await sealer_of(store).seal(value_of("old"), binding="a.b")
        made = await new_key(ring_of(store))
        assert await sealer_of(store).unseal(text, binding="a.b") == value_of("old")
        new = await sealer_of(store).seal(value_of("new"), binding="a.b")
        assert new.split(":")[2] == made.id
