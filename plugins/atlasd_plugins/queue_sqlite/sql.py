"""Every statement of the SQLite queue, named."""

SCHEMA = """
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    fair_key TEXT NOT NULL,
    target TEXT NOT NULL,
    UNIQUE (queue, fair_key, target)
) STRICT;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    state TEXT NOT NULL,
    rank_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    lost_count INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    finalized_at INTEGER,
    priority INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    unique_key TEXT,
    unique_until INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    kind TEXT NOT NULL,
    args TEXT NOT NULL,
    options TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    fingerprint TEXT NOT NULL DEFAULT '',
    requeued_from TEXT NOT NULL DEFAULT '',
    errors TEXT NOT NULL DEFAULT '',
    progress TEXT NOT NULL DEFAULT '',
    result TEXT NOT NULL DEFAULT '',
    -- Not `state IN (…)`: SQLite builds a tree of the list for every row that it checks.
    CHECK (CASE state
        WHEN 'available' THEN finalized_at IS NULL WHEN 'running' THEN finalized_at IS NULL
        WHEN 'scheduled' THEN finalized_at IS NULL
        WHEN 'completed' THEN finalized_at IS NOT NULL WHEN 'dead' THEN finalized_at IS NOT NULL
        WHEN 'cancelled' THEN finalized_at IS NOT NULL ELSE 0 END)
) STRICT;

-- Each is as large as what it is for: the jobs of one state, not the history.
CREATE INDEX jobs_claim ON jobs (lane, rank_at, id) WHERE state = 'available';
CREATE INDEX jobs_due ON jobs (run_at, lane) WHERE state = 'scheduled';
CREATE INDEX jobs_running ON jobs (worker) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (expires_at)
    WHERE expires_at IS NOT NULL AND finalized_at IS NULL;
CREATE INDEX jobs_final ON jobs (state, finalized_at, lane) WHERE finalized_at IS NOT NULL;
CREATE INDEX jobs_dead ON jobs (fingerprint) WHERE state = 'dead';

CREATE TABLE idempotency (
    key TEXT PRIMARY KEY, answer TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);
CREATE TABLE paused (queue TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE breakers (
    target TEXT PRIMARY KEY, state TEXT NOT NULL, epoch INTEGER NOT NULL,
    open_until INTEGER NOT NULL, trips INTEGER NOT NULL, successes INTEGER NOT NULL,
    buckets TEXT NOT NULL, changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE slots (
    schedule TEXT NOT NULL, slot INTEGER NOT NULL, job INTEGER NOT NULL,
    PRIMARY KEY (schedule, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE turns (key TEXT PRIMARY KEY, value REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

VERSION = 1

INSERT = """
INSERT INTO jobs (id, lane, state, rank_at, run_at, priority, max_attempts, unique_key,
    unique_until, expires_at, created_at, kind, args, options)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

HEADS = """
SELECT id, rank_at, token, attempt, kind, args, priority, run_at, created_at, max_attempts,
    lost_count, expires_at, options
FROM jobs WHERE lane = ? AND state = 'available' ORDER BY rank_at, id LIMIT ?
"""
HEAD = """
SELECT rank_at FROM jobs WHERE lane = ? AND state = 'available' ORDER BY rank_at, id LIMIT 1
"""
# json_each keeps one prepared statement for lists of every length.
CLAIM = """
UPDATE jobs SET state = 'running', token = token + 1, attempt = attempt + 1, lease_until = ?,
    worker = ?, unique_key = CASE unique_until WHEN -1 THEN NULL ELSE unique_key END
WHERE id IN (SELECT value FROM json_each(?))
"""
# A key whose scope is a window outlives the job; every other one is free with this statement.
FINISH = """
UPDATE jobs SET state = 'completed', finalized_at = ?, worker = '', lease_until = 0,
    cancel_requested = 0, unique_key = CASE WHEN unique_until > 0 THEN unique_key END
WHERE id IN (SELECT value FROM json_each(?))
"""
RESULT = "UPDATE jobs SET result = ? WHERE id = ?"
RELEASE = """
UPDATE jobs SET state = ?, run_at = ?, rank_at = ?, attempt = attempt - 1, worker = '',
    lease_until = 0
WHERE id = ?
"""
LEAVE = """
UPDATE jobs SET state = ?, run_at = ?, rank_at = ?, finalized_at = ?, reason = ?, errors = ?,
    fingerprint = ?, lost_count = lost_count + ?, attempt = attempt - ?, worker = '',
    lease_until = 0, cancel_requested = 0,
    unique_key = CASE WHEN ? OR unique_until > 0 THEN unique_key END
WHERE id = ?
"""
PROMOTE = """
UPDATE jobs SET state = 'available' WHERE id IN (
    SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?)
RETURNING lane, rank_at
"""
NEXT_DUE = "SELECT min(run_at) FROM jobs WHERE state = 'scheduled'"
EXPIRED = """
SELECT id, lane, state FROM jobs
WHERE expires_at IS NOT NULL AND finalized_at IS NULL AND expires_at <= ?
    AND state IN ('scheduled', 'available')
ORDER BY expires_at LIMIT ?
"""
NEXT_EXPIRY = """
SELECT min(expires_at) FROM jobs
WHERE expires_at IS NOT NULL AND finalized_at IS NULL AND state IN ('scheduled', 'available')
"""
END = """
UPDATE jobs SET state = 'cancelled', finalized_at = ?, reason = ?,
    unique_key = CASE WHEN unique_until > 0 THEN unique_key END
WHERE id IN (SELECT value FROM json_each(?))
"""
ASK_CANCEL = """
UPDATE jobs SET cancel_requested = 1 WHERE id IN (SELECT value FROM json_each(?))
"""
BY_UNIQUE = "SELECT id, state, lane, unique_until, run_at FROM jobs WHERE unique_key = ?"
FREE_UNIQUE = "UPDATE jobs SET unique_key = NULL WHERE id = ?"
REPLACE_ARGS = "UPDATE jobs SET args = ?, options = ? WHERE id = ?"
MOVE_RUN_AT = "UPDATE jobs SET state = ?, run_at = ?, rank_at = ? WHERE id = ?"
REQUEUE = """
UPDATE jobs SET state = 'available', finalized_at = NULL, reason = '', run_at = ?, rank_at = ?,
    attempt = 0, lost_count = 0, expires_at = NULL, requeued_from = state, result = '',
    unique_key = NULL, args = ?
WHERE id = ?
"""
OLD = """
SELECT id FROM jobs WHERE state = ? AND finalized_at IS NOT NULL AND finalized_at <= ?
    AND NOT (unique_key IS NOT NULL AND unique_until > ?)
ORDER BY finalized_at LIMIT ?
"""
SURPLUS = """
SELECT finalized_at FROM jobs WHERE state = ? AND finalized_at IS NOT NULL
ORDER BY finalized_at DESC LIMIT 1 OFFSET ?
"""
DELETE = "DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

ROW = """
SELECT j.id, j.state, l.queue, j.kind, j.args, j.priority, j.run_at, j.rank_at, j.created_at,
    j.attempt, j.max_attempts, j.token, j.lost_count, j.lease_until, j.worker,
    coalesce(j.unique_key, ''), j.unique_until, coalesce(j.expires_at, 0), l.fair_key, l.target,
    j.cancel_requested, coalesce(j.finalized_at, 0), j.reason, j.fingerprint, j.errors, j.result,
    j.progress, j.options, j.requeued_from
FROM jobs j JOIN lanes l ON l.id = j.lane
"""
BY_ID = ROW + " WHERE j.id = ?"
DEAD_GROUPS = """
SELECT j.fingerprint, l.queue, j.kind, j.reason, max(j.errors), count(*), min(j.finalized_at),
    max(j.finalized_at)
FROM jobs j JOIN lanes l ON l.id = j.lane WHERE j.state = 'dead'
GROUP BY j.fingerprint, l.queue, j.kind, j.reason ORDER BY count(*) DESC, j.fingerprint LIMIT ?
"""

# One for each index that covers it: a count over the whole table would read every row.
COUNTS = (
    "SELECT lane, state, count(*) FROM jobs WHERE state = 'available' GROUP BY lane",
    "SELECT lane, state, count(*) FROM jobs WHERE state = 'scheduled' GROUP BY lane",
    "SELECT lane, state, count(*) FROM jobs WHERE finalized_at IS NOT NULL GROUP BY state, lane",
)
RUNNING = """
SELECT id, token, lane, worker, cancel_requested FROM jobs WHERE state = 'running'
"""
