"""Every statement of the SQLite queue, named."""

SCHEMA = """
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    fair_key TEXT NOT NULL,
    target TEXT NOT NULL,
    UNIQUE (queue, fair_key, target)
) STRICT;

-- What jobs have in common, once: a kind and its numbers.
CREATE TABLE specs (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    priority INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    UNIQUE (kind, priority, max_attempts)
) STRICT;

-- A row is written anew at each change of state: it has only what such a change needs. Each column
-- costs a tenth of a microsecond a write, and what is long stands in `payloads`, written once.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    spec INTEGER NOT NULL,
    state TEXT NOT NULL,
    rank_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    lost_count INTEGER NOT NULL DEFAULT 0,
    finalized_at INTEGER,
    expires_at INTEGER,
    unique_key TEXT,
    unique_until INTEGER NOT NULL DEFAULT 0,
    -- Not `state IN (…)`: SQLite builds a tree of the list for every row that it checks.
    CHECK (CASE state
        WHEN 'available' THEN finalized_at IS NULL WHEN 'running' THEN finalized_at IS NULL
        WHEN 'scheduled' THEN finalized_at IS NULL
        WHEN 'completed' THEN finalized_at IS NOT NULL WHEN 'dead' THEN finalized_at IS NOT NULL
        WHEN 'cancelled' THEN finalized_at IS NOT NULL ELSE 0 END)
) STRICT;

CREATE TABLE payloads (
    id INTEGER PRIMARY KEY,
    created_at INTEGER NOT NULL,
    args TEXT NOT NULL,
    options TEXT NOT NULL
) STRICT;

-- What only some jobs have: those that failed, reported, gave a result, were cancelled.
CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    fingerprint TEXT NOT NULL DEFAULT '',
    requeued_from TEXT NOT NULL DEFAULT '',
    errors TEXT NOT NULL DEFAULT '',
    progress TEXT NOT NULL DEFAULT '',
    result TEXT NOT NULL DEFAULT ''
) STRICT;

-- Each is as large as what it is for: the jobs of one state, not the history.
CREATE INDEX jobs_claim ON jobs (lane, rank_at, id) WHERE state = 'available';
CREATE INDEX jobs_due ON jobs (run_at, lane) WHERE state = 'scheduled';
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (expires_at)
    WHERE expires_at IS NOT NULL AND finalized_at IS NULL;
CREATE INDEX jobs_final ON jobs (state, finalized_at, lane) WHERE finalized_at IS NOT NULL;
CREATE INDEX notes_fingerprint ON notes (fingerprint) WHERE fingerprint != '';

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

SCHEDULES = """
ALTER TABLE slots ADD COLUMN reason TEXT NOT NULL DEFAULT '';
CREATE TABLE schedules (
    schedule TEXT PRIMARY KEY, digest TEXT NOT NULL DEFAULT '', since INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0, slot INTEGER NOT NULL DEFAULT 0,
    job INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO schedules (schedule, slot) SELECT schedule, max(slot) FROM slots GROUP BY schedule;
"""

STEPS = ((2, SCHEMA), (3, SCHEDULES))
"""Versions of the database and what leads to each from the one before; 1 was never released."""
VERSION = STEPS[-1][0]

INSERT = (
    "INSERT INTO jobs (id, lane, spec, state, rank_at, run_at, expires_at, unique_key,"
    " unique_until) VALUES "
)
INSERT_PAYLOAD = "INSERT INTO payloads (id, created_at, args, options) VALUES "

HEADS = """
SELECT j.id, rank_at, spec, token, attempt, run_at, lost_count, expires_at, unique_key IS NULL,
    unique_until, created_at, args, options
FROM jobs j JOIN payloads p ON p.id = j.id
WHERE lane = ? AND state = 'available' AND (expires_at IS NULL OR expires_at > ?)
ORDER BY rank_at, j.id LIMIT ?
"""
HEAD = """
SELECT rank_at FROM jobs WHERE lane = ? AND state = 'available' ORDER BY rank_at, id LIMIT 1
"""
# json_each keeps one prepared statement for lists of every length.
CLAIM = """
UPDATE jobs SET state = 'running', token = token + 1, attempt = attempt + 1
WHERE id IN (SELECT value FROM json_each(?))
"""
FREE_AT_CLAIM = """
UPDATE jobs SET unique_key = NULL WHERE unique_until = -1 AND id IN (SELECT value FROM json_each(?))
"""
FINISH = """
UPDATE jobs SET state = 'completed', finalized_at = ? WHERE id IN (SELECT value FROM json_each(?))
"""
# A key whose scope is a window outlives the job; every other one is free with this statement.
FINISH_UNIQUE = """
UPDATE jobs SET state = 'completed', finalized_at = ?,
    unique_key = CASE WHEN unique_until > 0 THEN unique_key END
WHERE id IN (SELECT value FROM json_each(?))
"""
RELEASE = """
UPDATE jobs SET state = ?, run_at = ?, rank_at = ?, attempt = attempt - 1 WHERE id = ?
"""
LEAVE = """
UPDATE jobs SET state = ?, run_at = ?, rank_at = ?, finalized_at = ?, lost_count = lost_count + ?,
    attempt = attempt - ?, unique_key = CASE WHEN ? OR unique_until > 0 THEN unique_key END
WHERE id = ?
"""
NOTE_FAILURE = """
INSERT INTO notes (id, reason, errors, fingerprint) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, errors = excluded.errors,
    fingerprint = excluded.fingerprint, cancel_requested = 0
"""
NOTE_RESULT = """
INSERT INTO notes (id, result) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET result = excluded.result
"""
NOTE_PROGRESS = """
INSERT INTO notes (id, progress) VALUES (?, ?)
ON CONFLICT (id) DO UPDATE SET progress = excluded.progress
"""
NOTE_REASON = """
INSERT INTO notes (id, reason) SELECT value, ? FROM json_each(?) WHERE true
ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, cancel_requested = 0
"""
ASK_CANCEL = """
INSERT INTO notes (id, cancel_requested) SELECT value, 1 FROM json_each(?) WHERE true
ON CONFLICT (id) DO UPDATE SET cancel_requested = 1
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
UPDATE jobs SET state = 'cancelled', finalized_at = ?,
    unique_key = CASE WHEN unique_until > 0 THEN unique_key END
WHERE id IN (SELECT value FROM json_each(?))
"""
BY_UNIQUE = "SELECT id, state, lane, unique_until, spec FROM jobs WHERE unique_key = ?"
FREE_UNIQUE = "UPDATE jobs SET unique_key = NULL WHERE id = ?"
REPLACE_ARGS = "UPDATE payloads SET args = ?, options = ? WHERE id = ?"
MOVE_RUN_AT = "UPDATE jobs SET state = ?, run_at = ?, rank_at = ? WHERE id = ?"
REQUEUE = """
UPDATE jobs SET state = 'available', finalized_at = NULL, run_at = ?, rank_at = ?, attempt = 0,
    lost_count = 0, expires_at = NULL, unique_key = CASE WHEN unique_until > 0 THEN unique_key END
WHERE id = ?
"""
NOTE_REQUEUE = """
INSERT INTO notes (id, requeued_from) VALUES (?, ?)
ON CONFLICT (id) DO UPDATE SET requeued_from = excluded.requeued_from, reason = '', result = '',
    progress = '', cancel_requested = 0
"""
NEW_ARGS = "UPDATE payloads SET args = ? WHERE id = ?"
EDIT = """
UPDATE payloads SET args = ? WHERE id = (SELECT id FROM jobs WHERE id = ? AND state = 'dead')
"""
KNOWN_KEY = """
SELECT 1 FROM jobs WHERE unique_key = ?
UNION ALL SELECT 1 FROM idempotency WHERE key = ? AND created_at > ? LIMIT 1
"""
RESTORE = """
INSERT INTO jobs (id, lane, spec, state, rank_at, run_at, attempt, token, lost_count, finalized_at,
    unique_key, unique_until)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
RESTORE_NOTES = """
INSERT INTO notes (id, reason, fingerprint, requeued_from, errors, progress, result)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
# What has a key for a while yet is kept for as long.
OLD = """
SELECT id FROM jobs WHERE state = ? AND finalized_at IS NOT NULL AND finalized_at <= ?
    AND NOT (unique_key IS NOT NULL AND unique_until > ?)
    AND lane IN (SELECT id FROM lanes WHERE queue IN (SELECT value FROM json_each(?)))
ORDER BY finalized_at LIMIT ?
"""
DELETE = (
    "DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM payloads WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM notes WHERE id IN (SELECT value FROM json_each(?))",
)

ROW = """
SELECT j.id, j.state, l.queue, s.kind, p.args, s.priority, j.run_at, j.rank_at, p.created_at,
    j.attempt, s.max_attempts, j.token, j.lost_count, 0, '', coalesce(j.unique_key, ''),
    j.unique_until, coalesce(j.expires_at, 0), l.fair_key, l.target,
    coalesce(n.cancel_requested, 0), coalesce(j.finalized_at, 0), coalesce(n.reason, ''),
    coalesce(n.fingerprint, ''), coalesce(n.errors, ''), coalesce(n.result, ''),
    coalesce(n.progress, ''), p.options, coalesce(n.requeued_from, '')
FROM jobs j JOIN lanes l ON l.id = j.lane JOIN specs s ON s.id = j.spec
    JOIN payloads p ON p.id = j.id LEFT JOIN notes n ON n.id = j.id
"""
AHEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM jobs b CROSS JOIN jobs a WHERE b.id = ? AND a.lane = b.lane
        AND a.state = 'available'
        AND (a.rank_at, a.id) < (b.rank_at, b.id) LIMIT ?)
"""
BY_ID = ROW + " WHERE j.id = ?"
DEAD_GROUPS = """
SELECT n.fingerprint, l.queue, s.kind, n.reason, max(n.errors), count(*), min(j.finalized_at),
    max(j.finalized_at)
FROM jobs j JOIN lanes l ON l.id = j.lane JOIN specs s ON s.id = j.spec
    JOIN notes n ON n.id = j.id
WHERE j.state = 'dead' AND j.finalized_at IS NOT NULL
GROUP BY n.fingerprint, l.queue, s.kind, n.reason ORDER BY count(*) DESC, n.fingerprint LIMIT ?
"""

SCHEDULE_ROWS = (
    "SELECT schedule, digest, since, paused, slot, job, held FROM schedules ORDER BY schedule"
)
KEEP_SCHEDULE = """
INSERT INTO schedules (schedule, digest, since) VALUES (?, ?, ?)
ON CONFLICT (schedule) DO UPDATE SET digest = excluded.digest, since = excluded.since, held = 0,
    slot = min(slot, excluded.since)
WHERE digest != excluded.digest
"""
FORGET_SCHEDULE = (
    "DELETE FROM schedules WHERE schedule = ?",
    "DELETE FROM slots WHERE schedule = ?",
)
# A schedule that begins again owes nothing for the time of its pause.
PAUSE_SCHEDULE = """
INSERT INTO schedules (schedule, paused, since) VALUES (?1, ?2, ?3)
ON CONFLICT (schedule) DO UPDATE SET since = CASE WHEN paused AND NOT ?2 THEN ?3 ELSE since END,
    slot = CASE WHEN paused AND NOT ?2 THEN min(slot, ?3) ELSE slot END, held = 0, paused = ?2
"""
LAST_SLOT = "SELECT slot, held FROM schedules WHERE schedule = ?"
NOTE_SLOT = "INSERT OR REPLACE INTO slots (schedule, slot, job, reason) VALUES (?, ?, ?, ?)"
NOTE_FIRING = """
INSERT INTO schedules (schedule, slot, job, held) VALUES (?, ?, ?, ?)
ON CONFLICT (schedule) DO UPDATE SET slot = max(slot, excluded.slot), held = excluded.held,
    job = CASE WHEN excluded.job THEN excluded.job ELSE job END
"""
SLOTS = """
SELECT schedule, slot, job, reason FROM slots WHERE schedule = ? ORDER BY slot DESC LIMIT ?
"""
FORGET_SLOTS = """
DELETE FROM slots WHERE schedule = ?1 AND slot < (
    SELECT slot FROM slots WHERE schedule = ?1 ORDER BY slot DESC LIMIT 1 OFFSET ?2)
"""

# One for each index that covers it: a count over the whole table would read every row.
COUNTS = (
    "SELECT lane, state, count(*) FROM jobs WHERE state = 'available' GROUP BY lane",
    "SELECT lane, state, count(*) FROM jobs WHERE state = 'scheduled' GROUP BY lane",
    "SELECT lane, state, count(*) FROM jobs WHERE finalized_at IS NOT NULL GROUP BY state, lane",
)
# Without an index of its own, which every claim and finish would pay for: read once, at the start.
RUNNING = """
SELECT j.id, j.token, j.lane, j.unique_key IS NULL, coalesce(n.cancel_requested, 0)
FROM jobs j LEFT JOIN notes n ON n.id = j.id WHERE j.state = 'running'
"""
