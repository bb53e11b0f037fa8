"""The tables of the store."""

APPLICATION = 0x41544C53
"""`ATLS` in the file's header: what tells the store from any other SQLite file."""
SCHEMA_VERSION = 1

SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};

-- A secret, and the numbers of the versions that its stages are on. One that was deleted for good
-- keeps its row without them, so that no number of a version is ever given twice.
CREATE TABLE secret (
    environment TEXT NOT NULL,
    name TEXT NOT NULL,
    last_version INTEGER NOT NULL,
    current INTEGER,
    previous INTEGER,
    pending INTEGER,
    created REAL,
    changed REAL,
    deleted REAL,
    recoverable_until REAL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (environment, name)
) STRICT;
CREATE INDEX secret_to_purge ON secret (recoverable_until) WHERE recoverable_until IS NOT NULL;

CREATE TABLE version (
    environment TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    key_fingerprint TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    token BLOB NOT NULL,
    created REAL NOT NULL,
    created_by TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (environment, name, number)
) STRICT;
CREATE INDEX version_by_key ON version (key_fingerprint);

-- What was sealed for configuration files, by its place: the keys of these are still needed.
CREATE TABLE sealed (
    environment TEXT NOT NULL,
    binding TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (environment, binding)
) STRICT;
"""
