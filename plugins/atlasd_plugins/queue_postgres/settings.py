"""Settings of the `postgres` queue store."""

from pydantic import Field, SecretStr

from atlasd.contracts.settings import Settings

SCHEMA = r"^[a-z_][a-z0-9_]{0,40}$"


class PostgresSettings(Settings):
    """`[jobs.stores.postgres]`."""

    dsn: str = Field(
        default="",
        description="Where the database is, as libpq takes it: `postgresql://user@host/name` or "
        '"host=db dbname=queue"; what it lacks is taken from the variables PGHOST and so on. It '
        "may be a reference to a secret as a whole.",
    )
    password: SecretStr | None = Field(
        default=None,
        description='The password, if the server asks for one; a reference, "secret://queue".',
    )
    db_schema: str = Field(
        default="atlasd",
        alias="schema",
        pattern=SCHEMA,
        description="Schema of the database that the queue is kept in; made if there is none.",
    )
    patience: float = Field(
        default=5.0,
        ge=0.0,
        le=60.0,
        description="Seconds that a request waits for a database that has gone, before it is "
        "refused.",
    )
    poll: float = Field(
        default=2.0,
        gt=0.0,
        le=60.0,
        description="Seconds between two looks for work of other hosts, should a notification be "
        "missed.",
    )
