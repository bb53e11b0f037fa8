"""How the database is reached, and what may be said of it: never a password."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres.settings import PostgresSettings

APPLICATION = "atlasd"
OPTIONS = (
    # One plan for each statement, made without looking at its values: planning costs more than
    # most of the statements. A table that is empty when they are planned must not mislead it.
    "plan_cache_mode=force_generic_plan",
    "enable_seqscan=off",
    "enable_hashjoin=off",
    "enable_mergejoin=off",
    "enable_bitmapscan=off",
    "jit=off",
    # A host that vanished in mid-transaction holds its rows no longer than this.
    "idle_in_transaction_session_timeout=30s",
    "tcp_keepalives_idle=5",
    "tcp_keepalives_interval=5",
    "tcp_keepalives_count=3",
    "tcp_user_timeout=15000",
)


DEFAULTS = {
    "connect_timeout": "10",
    # A server that vanished is noticed within so many seconds, not when TCP gives up.
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Parameters of every connection of one store."""

    parameters: Mapping[str, str] = field(repr=False)
    schema: str
    patience: float
    poll: float

    @property
    def place(self) -> str:
        """The database and its schema, for people."""
        host = self.parameters.get("host") or self.parameters.get("hostaddr") or "the local socket"
        name = self.parameters.get("dbname") or self.parameters.get("user") or "its user's name"
        return f"{name} at {host} (schema {self.schema})"

    def clean(self, text: str) -> str:
        """The first line of what libpq or the server said, without any password."""
        line = next((one.strip() for one in text.splitlines() if one.strip()), "no reason given")
        secret = self.parameters.get("password", "")
        if secret:
            line = line.replace(secret, "***")
        return re.sub(r"(://[^:/@\s]*:)[^@\s]*@", r"\1***@", line)


def access_of(settings: PostgresSettings) -> Access:
    """The parameters. Raises `AtlasError` `job.store` for a DSN that is none."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        known = conninfo_to_dict(settings.dsn)
    except psycopg.Error:
        # What libpq says of it quotes it, password and all.
        raise AtlasError(
            "job.store",
            "jobs.stores.postgres.dsn: expected a connection string of PostgreSQL",
            hint="postgresql://user@host:5432/name, or host=… port=… user=… dbname=…",
        ) from None
    parameters = {name: str(value) for name, value in known.items() if value is not None}
    if settings.password is not None:
        parameters["password"] = settings.password.get_secret_value()
    wanted = [f"-c {one}" for one in (f"search_path={settings.db_schema}", *OPTIONS)]
    parameters["options"] = " ".join([parameters.get("options", ""), *wanted]).strip()
    parameters.setdefault("application_name", APPLICATION)
    for name, value in DEFAULTS.items():
        parameters.setdefault(name, value)
    return Access(
        parameters=parameters,
        schema=settings.db_schema,
        patience=settings.patience,
        poll=settings.poll,
    )
