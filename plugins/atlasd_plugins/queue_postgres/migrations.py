"""The tables of the PostgreSQL queue, in numbered steps that run once, whoever comes first."""

from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres.access import Access
from atlasd_plugins.queue_postgres.link import Link, Transaction

FIRST = """
CREATE TABLE queues (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    paused boolean NOT NULL DEFAULT false
);

-- The lanes of a queue stand together: its number is the upper half of theirs.
CREATE SEQUENCE lane_numbers AS bigint;
CREATE TABLE lanes (
    id bigint PRIMARY KEY,
    fair_key text NOT NULL,
    target text NOT NULL
);
CREATE UNIQUE INDEX lanes_key ON lanes ((id >> 32), fair_key, target);
CREATE INDEX lanes_target ON lanes (target) WHERE target <> '';

-- A store takes a hundred numbers at a time, and gives them to jobs by itself.
CREATE SEQUENCE job_numbers AS bigint INCREMENT BY 100;
CREATE TABLE jobs (
    id bigint PRIMARY KEY,
    lane bigint NOT NULL,
    rank_at bigint NOT NULL,
    run_at bigint NOT NULL,
    created_at bigint NOT NULL,
    lease_until bigint NOT NULL DEFAULT 0,
    finalized_at bigint,
    expires_at bigint,
    unique_until bigint NOT NULL DEFAULT 0,
    token bigint NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    lost_count integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    priority smallint NOT NULL,
    cancel_requested boolean NOT NULL DEFAULT false,
    state text NOT NULL,
    kind text NOT NULL,
    args text NOT NULL,
    options text NOT NULL DEFAULT '',
    worker text NOT NULL DEFAULT '',
    unique_key text,
    reason text NOT NULL DEFAULT '',
    fingerprint text NOT NULL DEFAULT '',
    requeued_from text NOT NULL DEFAULT '',
    errors text NOT NULL DEFAULT '',
    progress text NOT NULL DEFAULT '',
    result text NOT NULL DEFAULT '',
    CONSTRAINT final_if_finalized CHECK (
        CASE WHEN state IN ('available', 'scheduled', 'running') THEN finalized_at IS NULL
            WHEN state IN ('completed', 'cancelled', 'dead') THEN finalized_at IS NOT NULL
            ELSE false END)
) WITH (
    -- Room beside each row for what a heartbeat writes: no index knows of it, so it stays there.
    fillfactor = 90,
    -- A queue is rewritten all day: clean up by count rather than by share of a large history.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 1
);

-- Each is as large as what it is for: the jobs of one state, not the history. None has a column
-- that a heartbeat changes.
CREATE INDEX jobs_claim ON jobs (lane, rank_at, id) WHERE state = 'available';
CREATE INDEX jobs_due ON jobs (run_at, lane) WHERE state = 'scheduled';
CREATE INDEX jobs_running ON jobs (lane) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (expires_at)
    WHERE expires_at IS NOT NULL AND finalized_at IS NULL;
CREATE INDEX jobs_final ON jobs (state, finalized_at, lane) WHERE finalized_at IS NOT NULL;
CREATE INDEX jobs_dead ON jobs (fingerprint) WHERE state = 'dead';

CREATE TABLE idempotency (
    key text PRIMARY KEY, answer text NOT NULL, created_at bigint NOT NULL
);
CREATE INDEX idempotency_age ON idempotency (created_at);
CREATE TABLE breakers (
    target text PRIMARY KEY, state text NOT NULL DEFAULT 'closed', epoch bigint NOT NULL DEFAULT 0,
    open_until bigint NOT NULL DEFAULT 0, trips integer NOT NULL DEFAULT 0,
    successes integer NOT NULL DEFAULT 0, buckets text NOT NULL DEFAULT '{}',
    changed_at bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE schedules (
    schedule text PRIMARY KEY, digest text NOT NULL DEFAULT '', since bigint NOT NULL DEFAULT 0,
    paused boolean NOT NULL DEFAULT false, slot bigint NOT NULL DEFAULT 0,
    job bigint NOT NULL DEFAULT 0, held bigint NOT NULL DEFAULT 0
);
CREATE TABLE slots (
    schedule text NOT NULL, slot bigint NOT NULL, job bigint NOT NULL,
    reason text NOT NULL DEFAULT '', PRIMARY KEY (schedule, slot)
);
CREATE TABLE rates (
    queue bigint NOT NULL, key text NOT NULL, value double precision NOT NULL,
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50);

-- The last transaction of each host, by which it learns what became of one whose answer was lost.
CREATE TABLE hosts (
    host text PRIMARY KEY, number bigint NOT NULL, at bigint NOT NULL
) WITH (fillfactor = 10);

-- Every moment of the queue comes from here: the clock of the database, in milliseconds.
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;
"""

STEPS: tuple[str, ...] = (FIRST,)
"""Never changed once released; what comes later is another one."""
VERSION = len(STEPS)

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('atlasd/' || $1::text, 0))"
_THERE = "SELECT 1 FROM information_schema.schemata WHERE schema_name = $1"
_VERSION_TABLE = "CREATE TABLE IF NOT EXISTS version (version integer NOT NULL)"


async def migrate(link: Link, access: Access) -> None:
    """Bring the schema to the present version. Raises `AtlasError` `job.store`."""

    async def work(turn: Transaction) -> None:
        await turn.rows(_LOCK, access.schema)
        if not await turn.rows(_THERE, access.schema):
            await turn.rows(f"CREATE SCHEMA {access.schema}")
        await turn.rows(_VERSION_TABLE)
        known = await turn.rows("SELECT version FROM version")
        version = known[0][0] if known else 0
        if version > VERSION:
            raise AtlasError(
                "job.store",
                f"the queue in {access.place} has version {version}, this atlasd knows {VERSION}",
                hint="bring this host's atlasd to the version of the others",
            )
        if version == VERSION:
            return
        for step in STEPS[version:]:
            await turn.script(step)
        await turn.rows("DELETE FROM version")
        await turn.rows("INSERT INTO version VALUES ($1::integer)", str(VERSION))

    await link.transact(work)
