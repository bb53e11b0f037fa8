"""References in merged data: resolved, each place remembered, and nothing of the values shown."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from atlasd.config import references, shape
from atlasd.config.backends import BOOTSTRAP, lacking, policy_of
from atlasd.config.fields import COMMAND
from atlasd.config.problems import Findings, dotted, undotted
from atlasd.config.referenced import (
    ABSENT,
    Known,
    Referenced,
    Resolution,
    Source,
    branches_of,
    rebuilt,
    table_at,
    texts,
    written,
)
from atlasd.config.references import Encrypted, Placeholder, Template
from atlasd.config.schema import Secrets
from atlasd.config.shape import Shape
from atlasd.config.surroundings import Surroundings
from atlasd.config.units import WrongValueError
from atlasd.config.validate import Offers, section
from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import Reference, Resolve, Resolved, Sealed, SecretsPolicy
from atlasd.errors import AtlasError, nearest
from atlasd.logs import is_secret_name

STANDS_FOR_SECRET = "(secret)"  # noqa: S105  what is put where a value is not known
LARGEST_FILE = 1024 * 1024
"""Bytes of a file that `${file:…}` takes in."""

HOOKS = ("pre_start", "post_start", "pre_stop", "post_stop")


@dataclass(frozen=True, kw_only=True)
class Around:
    """What references may refer to outside the files."""

    environment: str
    environ: Mapping[str, str] = field(repr=False)
    host: Surroundings
    folder_of: Callable[[KeyPath], str]
    """The folder of the file that says a setting."""
    offers: Offers | None
    resolve: Resolve | None
    """None: secrets are not fetched, and what would need their values is not looked into."""


def resolve(data: dict[str, Any], findings: Findings, around: Around) -> Resolution:
    """The data with its references resolved; those that cannot be are noted in `findings`.

    `data` stays as it is: it is what messages show.
    """
    work = _Resolving(data, findings, around)
    templates = work.templates()
    own = {path: template for path, template in templates.items() if path[0] == "secrets"}
    rest = {path: template for path, template in templates.items() if path[0] != "secrets"}
    if own:
        work.fill(own, work.bootstrap(own))
    table = work.result().get("secrets", {})
    secrets = section({"secrets": table}, "secrets", Secrets, findings)
    declared = table if isinstance(table, dict) else {}
    policy = policy_of(secrets, declared, findings, around.offers, around.environment)
    if rest:
        work.fill(rest, policy)
    findings.opaque |= work.references.keys()
    findings.conceal(
        known.value for values in work.known.values() for known in values if known.value
    )
    return Resolution(
        data=work.result(), policy=policy, references=work.references, known=work.known
    )


def once(resolve: Resolve) -> Resolve:
    """The same, but each secret is asked for once: for one reading of a configuration."""
    known: dict[Reference | Sealed, Resolved | Exception] = {}
    asked: list[SecretsPolicy] = []

    def remembering(
        policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, Resolved | Exception]:
        if asked != [policy]:
            asked[:] = [policy]
            known.clear()
        missing = [one for one in wanted if one not in known]
        if missing:
            known.update(resolve(policy, missing))
        return {one: known[one] for one in wanted}

    return remembering


class _UnresolvedError(Exception):
    """A reference stands for nothing, and that was said."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What one part of a text stands for."""

    value: Any
    sources: tuple[Source, ...] = ()
    known: tuple[Known, ...] = ()


class _Resolving:
    """The state of one resolution."""

    def __init__(self, data: dict[str, Any], findings: Findings, around: Around) -> None:
        self.data = data
        self.findings = findings
        self.around = around
        self.references: dict[KeyPath, Referenced] = {}
        self.known: dict[KeyPath, tuple[Known, ...]] = {}
        self._templates: dict[KeyPath, Template] = {}
        self._pieces: dict[KeyPath, _Piece] = {}
        self._open: list[KeyPath] = []
        self._answers: Mapping[Reference | Sealed, Resolved | Exception] = {}
        self._policy = SecretsPolicy(environment=around.environment)

    def templates(self) -> dict[KeyPath, Template]:
        """Every text that refers to something; what is no reference and looks like one is noted."""
        found: dict[KeyPath, Template] = {}
        for path, text in texts(self.data, ()):
            try:
                template = references.parse(text)
            except WrongValueError as error:
                self.fault(path, expected=error.expected, got=error.got, hint=error.hint)
                continue
            if template is None:
                continue
            if template.unexpanded and not self.in_command(path):
                self.findings.add(
                    path,
                    got=f"{template.unexpanded} is not expanded",
                    hint="write ${env:NAME} for a variable, $${NAME} for the text itself",
                    warning=True,
                )
            if template.parts != (text,):
                found[path] = template
        return found

    def bootstrap(self, own: Mapping[KeyPath, Template]) -> SecretsPolicy:
        """The backends that settings of other backends may refer to."""
        plain = {
            name: table
            for name, table in table_at(self.data, "secrets", "backends").items()
            if name in BOOTSTRAP and not any(path[2:3] == (name,) for path in own)
        }
        aside = Findings(self.findings.layer)
        rules = {
            key: value
            for key, value in table_at(self.data, "secrets").items()
            if key not in ("backends", "rotate")
        }
        table = {"secrets": {**rules, "backends": plain}}
        secrets = section(table, "secrets", Secrets, aside)
        policy = policy_of(secrets, {}, aside, self.around.offers, self.around.environment)
        backends = {name: policy.backends[name] for name in BOOTSTRAP if name in policy.backends}
        return replace(policy, backends=backends)

    def fill(self, templates: Mapping[KeyPath, Template], policy: SecretsPolicy) -> None:
        """Resolve the texts; a second call may refer to what the first one filled in."""
        self._policy = policy
        wanted = {
            reference: None
            for path, template in templates.items()
            for reference in self.wanted(path, template)
        }
        if wanted and self.around.resolve is not None:
            self._answers = self.around.resolve(policy, tuple(wanted))
        self._templates.update(templates)
        for path in templates:
            self.piece(path)

    def result(self) -> dict[str, Any]:
        """The data with what was filled in."""
        values = {path: piece.value for path, piece in self._pieces.items()}
        for path in self.findings.unresolved:
            values.setdefault(path, STANDS_FOR_SECRET)
        made = rebuilt(self.data, (), values, branches_of(values))
        assert isinstance(made, dict)
        return made

    # --- what is asked for

    def wanted(self, path: KeyPath, template: Template) -> Iterator[Reference | Sealed]:
        """The secrets that a text asks for, as far as they may be asked for here."""
        try:
            for part in template.placeholders:
                reference = self.reference(path, part)
                if reference is not None:
                    yield reference
        except _UnresolvedError:
            return

    def reference(self, path: KeyPath, part: Placeholder | Encrypted) -> Reference | Sealed | None:
        """The secret that a part means; None for one that means another thing."""
        if isinstance(part, Encrypted):
            self.demand(path[0] != "secrets", path, str(part))
            return Sealed(text=part.text, binding=dotted(path))
        if part.kind != "secret":
            self.demand(path[0] != "secrets" or part.kind != "cfg", path, str(part))
            return None
        offers = self.around.offers
        known = set(self._policy.backends) | set(offers.secret_backends if offers else ())
        found = references.address(part.what, known)
        backend = found.backend or self._policy.backend
        if path[0] == "secrets":
            self.demand(path[1:2] == ("backends",) and backend in BOOTSTRAP, path, str(part))
        if offers is not None:
            wrong = lacking(backend, self._policy, offers)
            if wrong is not None:
                got, hint = wrong
                raise self.fault(path, got=f"{found}: {got}", hint=hint)
        return found

    def demand(self, allowed: bool, path: KeyPath, got: str) -> None:  # noqa: FBT001
        """Refuse what would need the backends that are being described."""
        if not allowed:
            raise self.fault(
                path,
                expected="in [secrets] only ${env:…} and ${file:…}, and in settings of a backend "
                f"secrets of the backends {' and '.join(BOOTSTRAP)}",
                got=got,
            )

    # --- what it stands for

    def piece(self, path: KeyPath) -> _Piece:
        """What the text at a path stands for."""
        made = self._pieces.get(path)
        if made is None:
            self._open.append(path)
            try:
                made = self.made(path, self._templates[path])
            except _UnresolvedError:
                self.findings.unresolved.add(path)
                made = _Piece(value=STANDS_FOR_SECRET)
            finally:
                self._open.pop()
            self._pieces[path] = made
            if made.known:
                self.known[path] = made.known
        return made

    def made(self, path: KeyPath, template: Template) -> _Piece:
        whole = template.whole
        text = str(whole) if isinstance(whole, Encrypted) else self.text_at(path)
        # Noted before anything can go wrong: what refers to a secret is never shown.
        asked = tuple(Source(reference=one) for one in self.wanted(path, template))
        self.references[path] = Referenced(text=text, sources=asked)
        parts = [
            _Piece(value=part) if isinstance(part, str) else self.part(path, part)
            for part in template.parts
        ]
        sources = tuple(source for part in parts for source in part.sources)
        known = tuple(known for part in parts for known in part.known)
        self.references[path] = Referenced(text=text, sources=sources)
        if sources:
            self.exposed(path)
        if whole is None:
            value: Any = "".join(written(part.value) for part in parts)
        else:
            value = parts[0].value
            if isinstance(value, str):
                value = self.typed(path, value)
        return _Piece(value=value, sources=sources, known=known)

    def text_at(self, path: KeyPath) -> str:
        value: Any = self.data
        for key in path:
            value = value[key]
        return str(value)

    def part(self, path: KeyPath, part: Placeholder | Encrypted) -> _Piece:
        if isinstance(part, Encrypted) or part.kind == "secret":
            return self.secret(path, part)
        if part.kind == "env":
            value = self.around.environ.get(part.what)
            if value is None:
                return self.absent(path, part, f"the environment has no {part.what}")
            hidden = is_secret_name(part.what) or _is_secret(path)
            return self.outside(path, part, value.encode(errors="surrogateescape"), hidden=hidden)
        if part.kind == "file":
            return self.file(path, part)
        return self.setting(path, part)

    def secret(self, path: KeyPath, part: Placeholder | Encrypted) -> _Piece:
        reference = self.reference(path, part)
        assert reference is not None
        if self.around.resolve is None:
            raise _UnresolvedError
        answer = self._answers.get(reference, KeyError(str(part)))
        named = str(part) if isinstance(reference, Sealed) else str(reference)
        filters: tuple[str, ...] = ()
        if isinstance(part, Placeholder):
            filters = part.filters
            missing = isinstance(answer, AtlasError) and answer.code == "secret.not_found"
            if missing and part.optional:
                return _Piece(value=ABSENT)
        if isinstance(answer, AtlasError):
            raise self.fault(path, got=f"{named}: {answer.message}", hint=answer.hint)
        if isinstance(answer, Exception):
            # A fault of the resolver's; it may have the value in its text.
            raise self.fault(path, got=f"{named} cannot be resolved: {type(answer).__name__}")
        value = answer.value.reveal()
        text = self.text(path, part, value, filters)
        name = str(part) if isinstance(reference, Sealed) else reference.name
        source = Source(
            reference=reference,
            backend=answer.backend,
            version=answer.version,
            fetched=answer.fetched,
            stale=answer.stale,
        )
        return _Piece(value=text, sources=(source,), known=_known(name, value, text))

    def file(self, path: KeyPath, part: Placeholder) -> _Piece:
        name = str(Path(self.around.folder_of(path)) / part.what)
        try:
            value = self.around.host.read(name)
        except FileNotFoundError:
            return self.absent(path, part, f"there is no file {name}")
        except OSError as error:
            raise self.fault(path, got=f"{part}: {name}: {error.strerror}") from None
        if len(value) > LARGEST_FILE:
            raise self.fault(path, expected="a file of 1 MiB at most", got=f"{name} is larger")
        hidden = is_secret_name(Path(name).name) or _is_secret(path)
        return self.outside(path, part, value, hidden=hidden)

    def outside(self, path: KeyPath, part: Placeholder, value: bytes, *, hidden: bool) -> _Piece:
        text = self.text(path, part, value, part.filters)
        return _Piece(value=text, known=_known(part.what, value, text) if hidden else ())

    def setting(self, path: KeyPath, part: Placeholder) -> _Piece:
        target = undotted(part.what)
        if target in self._open:
            circle = [*self._open[self._open.index(target) :], target]
            shown = " -> ".join(dotted(one) for one in circle)
            raise self.fault(path, got=f"{part} goes round in a circle: {shown}")
        value: Any = self.data
        for number, key in enumerate(target):
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                if part.optional:
                    return _Piece(value=ABSENT)
                raise self.unknown_setting(path, part, target[:number], key, value) from None
        if isinstance(value, dict | list):
            kind = shape.kind_in_words(value)
            raise self.fault(path, expected="the key of a single value", got=f"{part}, {kind}")
        found = self.piece(target) if target in self._templates else _Piece(value=value)
        if target in self.findings.unresolved:
            raise _UnresolvedError
        if isinstance(found.value, str | int | float) and part.filters:
            text = self.text(path, part, written(found.value).encode(), part.filters)
            known = tuple(Known(name=known.name, value=text) for known in found.known[:1])
            return _Piece(value=text, sources=found.sources, known=(*found.known, *known))
        return found

    def unknown_setting(
        self, path: KeyPath, part: Placeholder, above: KeyPath, key: str | int, table: Any
    ) -> _UnresolvedError:
        where = f"[{dotted(above)}]" if above else "the configuration"
        hint = "a default that no file states cannot be referred to"
        if isinstance(table, dict):
            close = nearest(str(key), [str(name) for name in table])
            hint = close if close.startswith("did") else hint
        return self.fault(path, got=f"{part}: {where} has no {key!r}", hint=hint)

    def absent(self, path: KeyPath, part: Placeholder, got: str) -> _Piece:
        if part.optional:
            return _Piece(value=ABSENT)
        hint = f"write ${{?{part.kind}:{part.what}}} if it need not be there"
        raise self.fault(path, got=f"{part}: {got}", hint=hint)

    # --- the value, as its setting takes it

    def text(
        self,
        path: KeyPath,
        part: Placeholder | Encrypted,
        value: bytes,
        filters: tuple[str, ...],
    ) -> str:
        try:
            return references.filtered(value, filters)
        except ValueError as error:
            hint = "" if "base64" in filters else "a filter makes it text: ${…|base64}"
            raise self.fault(path, expected="text", got=f"{part}, {error}", hint=hint) from None

    def typed(self, path: KeyPath, text: str) -> Any:
        """The text, or the number or truth that it spells where the setting takes no text."""
        here = self.shape_of(path)
        if here is None or "string" in here.kinds:
            return text
        word = text.strip()
        if "boolean" in here.kinds and word in ("true", "false"):
            return word == "true"
        if "number" in here.kinds and re.fullmatch(r"[+-]?[0-9]{1,18}", word):
            return int(word)
        if "number" in here.kinds and re.fullmatch(r"[+-]?[0-9]{1,18}\.[0-9]{1,18}", word):
            return float(word)
        raise self.fault(
            path, expected=here.expected, got=f"{self.references[path].text}, which is none"
        )

    def shape_of(self, path: KeyPath) -> Shape | None:
        here = shape.at(path)
        if here is not None or self.around.offers is None:
            return here
        model, below = self.plugins_model(path, self.around.offers)
        return None if model is None else shape.at(below, model)

    def plugins_model(
        self, path: KeyPath, offers: Offers
    ) -> tuple[type[BaseModel] | None, KeyPath]:
        """The model of a plugin that knows the setting, and the way to it there."""
        if path[0] == "plugins" and len(path) > 1:
            return offers.plugin_settings.get(str(path[1])), path[2:]
        if path[0] == "checks" and len(path) > 1:
            word = table_at(self.data, "checks", path[1]).get("type")
            kind = offers.check_types.get(str(word))
            return kind.settings if kind is not None else None, path[2:]
        if path[:2] == ("secrets", "backends") and len(path) > 2:
            word = table_at(self.data, *path[:3]).get("type", path[2])
            backend = offers.secret_backends.get(str(word))
            return backend.settings if backend is not None else None, path[3:]
        if path[:2] == ("jobs", "stores") and len(path) > 2:
            store = offers.queue_stores.get(str(path[2]))
            return store.settings if store is not None else None, path[3:]
        return None, ()

    def in_command(self, path: KeyPath) -> bool:
        """Whether the text is a command, or a word of one: shells expand `${…}` themselves."""
        if path[0] == "services" and path[2:3] and path[2] in HOOKS:
            return True
        for place in (path, path[:-1]):
            here = shape.at(place)
            if here is not None and here.spelling is not None and here.spelling.expected == COMMAND:
                return True
        return False

    def exposed(self, path: KeyPath) -> None:
        """Warn of a secret where others of the host can see it."""
        if self.in_command(path):
            self.findings.add(
                path,
                got="a secret among the words of a command, which every user of the host can see",
                hint="hand it over in [services.NAME.secrets], or in a file",
                warning=True,
            )
        elif path[0] == "services" and path[2:3] == ("env",):
            self.findings.add(
                path,
                got="a secret in an environment variable, which /proc shows and children inherit",
                hint=f"hand it over as a file or descriptor: [services.{path[1]}.secrets]",
                warning=True,
            )

    def fault(
        self, path: KeyPath, *, got: str, expected: str = "", hint: str = ""
    ) -> _UnresolvedError:
        """Note what is wrong; what is to be raised."""
        self.findings.add(path, expected=expected, got=got, hint=hint)
        self.findings.unresolved.add(path)
        return _UnresolvedError()


def _is_secret(path: KeyPath) -> bool:
    return any(isinstance(key, str) and is_secret_name(key) for key in path[2:])


def _known(name: str, value: bytes, text: str) -> tuple[Known, ...]:
    """The value as it is, and as filters made it."""
    raw = value.decode(errors="replace")
    return tuple(Known(name=name, value=one) for one in dict.fromkeys((raw, text)))
