"""Every statement of the PostgreSQL queue, named.

Values are handed over as text and cast here, lists as text of an array or as JSON: the driver then
has nothing to convert, and a statement is prepared once, whatever the width of a number.
"""

NOW = "SELECT now_ms()"
BEGUN = "SELECT now_ms(), pg_current_xact_id()::text"

# --- lanes

ADD_QUEUES = """
INSERT INTO queues (name) SELECT DISTINCT value FROM json_array_elements_text($1::json)
ON CONFLICT (name) DO NOTHING
"""
ADD_LANES = """
INSERT INTO lanes (id, fair_key, target)
SELECT (q.id << 32) + nextval('lane_numbers'), r->>1, r->>2
FROM json_array_elements($1::json) r JOIN queues q ON q.name = r->>0
ON CONFLICT ((id >> 32), fair_key, target) DO NOTHING
"""
LANES = """
SELECT l.id, q.name, l.fair_key, l.target FROM lanes l JOIN queues q ON q.id = l.id >> 32
"""
LANES_BY_KEY = (
    LANES
    + """
JOIN json_array_elements($1::json) r ON q.name = r->>0 AND l.fair_key = r->>1 AND l.target = r->>2
"""
)
LANES_BY_ID = LANES + " WHERE l.id = ANY($1::bigint[])"

# --- in

NUMBERS = "SELECT nextval('job_numbers') FROM generate_series(1, $1::integer)"
# The rank comes as its distance from `run_at`, so that the clock of the database decides both.
ENQUEUE = """
INSERT INTO jobs (id, lane, state, rank_at, run_at, created_at, priority, max_attempts, unique_key,
    unique_until, expires_at, kind, args, options)
SELECT r.id, r.lane, CASE WHEN r.at > n.now THEN 'scheduled' ELSE 'available' END, r.at + r.rank,
    r.at, n.now, r.priority, r.max_attempts, r.unique_key,
    CASE WHEN r.unique_until > 0 THEN n.now + r.unique_until ELSE r.unique_until END,
    CASE WHEN r.expires_in > 0 THEN n.now + r.expires_in END, r.kind, r.args, r.options
FROM (SELECT coalesce($2::bigint, now_ms()) AS now) n CROSS JOIN LATERAL (
    SELECT (r->>0)::bigint AS id, (r->>1)::bigint AS lane, (r->>2)::bigint AS rank,
        CASE WHEN (r->>3)::bigint = 0 THEN n.now + (r->>4)::bigint ELSE (r->>3)::bigint END AS at,
        (r->>5)::smallint AS priority, (r->>6)::integer AS max_attempts, r->>7 AS unique_key,
        (r->>8)::bigint AS unique_until, (r->>9)::bigint AS expires_in, r->>10 AS kind,
        r->>11 AS args, r->>12 AS options
    FROM json_array_elements($1::json) r) r
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
RETURNING id, state
"""
MARK = """
INSERT INTO hosts (host, number, at) VALUES ($1, $2::bigint, now_ms())
ON CONFLICT (host) DO UPDATE SET number = excluded.number, at = excluded.at
"""
# One statement, and so one trip, for new jobs that nothing else comes with.
QUICK = f"WITH mark AS ({MARK.replace('$2', '$4').replace('$1', '$3')}) {ENQUEUE}"
STATES = "SELECT id, state FROM jobs WHERE id = ANY($1::bigint[])"
COPY = """
COPY jobs (id, lane, state, rank_at, run_at, created_at, priority, max_attempts, unique_until,
    expires_at, kind, args, options) FROM STDIN
"""
BY_UNIQUE = """
SELECT j.id, j.state, j.unique_until, q.name, j.priority
FROM jobs j JOIN queues q ON q.id = j.lane >> 32 WHERE j.unique_key = $1 FOR UPDATE OF j
"""
FREE_UNIQUE = "UPDATE jobs SET unique_key = NULL WHERE id = $1::bigint"
REPLACE_ARGS = "UPDATE jobs SET args = $1, options = $2 WHERE id = $3::bigint"
MOVE_RUN_AT = """
UPDATE jobs SET state = $1, run_at = $2::bigint, rank_at = $3::bigint WHERE id = $4::bigint
"""
# Waits for another transaction with the same key, and takes over what is older than a day.
IDEMPOTENCY = """
INSERT INTO idempotency (key, answer, created_at) VALUES ($1, '', now_ms())
ON CONFLICT (key) DO UPDATE SET answer = '', created_at = excluded.created_at
    WHERE idempotency.created_at <= excluded.created_at - $2::bigint
RETURNING 1
"""
IDEMPOTENT_ANSWER = "SELECT answer FROM idempotency WHERE key = $1"
FORGET_KEY = "DELETE FROM idempotency WHERE key = $1"
KEEP_ANSWER = "UPDATE idempotency SET answer = $2 WHERE key = $1"
# Counts no further than there is need to.
WAITING = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs j WHERE j.state = 'available'
        AND j.lane >= q.id << 32 AND j.lane < (q.id + 1) << 32 LIMIT $2::bigint) a)
    + (SELECT count(*) FROM (SELECT 1 FROM jobs j WHERE j.state = 'scheduled'
        AND j.lane >= q.id << 32 AND j.lane < (q.id + 1) << 32 LIMIT $2::bigint) s)
FROM queues q WHERE q.name = $1
"""
LOCK_QUEUES = """
SELECT id, name FROM queues WHERE name IN (SELECT json_array_elements_text($1::json))
ORDER BY id FOR UPDATE
"""

# --- out

# A recursive walk from lane to lane: it costs a step for each lane that has jobs, however many.
HEADS = """
SELECT h.lane, h.rank_at, h.jobs FROM queues q CROSS JOIN LATERAL (
    WITH RECURSIVE walk AS (
        (SELECT lane, rank_at FROM jobs WHERE state = 'available'
            AND lane >= q.id << 32 AND lane < (q.id + 1) << 32
            ORDER BY lane, rank_at, id LIMIT 1)
        UNION ALL
        SELECT n.lane, n.rank_at FROM walk w CROSS JOIN LATERAL (
            SELECT lane, rank_at FROM jobs WHERE state = 'available'
                AND lane > w.lane AND lane < (q.id + 1) << 32
                ORDER BY lane, rank_at, id LIMIT 1) n
    )
    SELECT w.lane, w.rank_at, (SELECT count(*) FROM (
        SELECT 1 FROM jobs j WHERE j.state = 'available' AND j.lane = w.lane
            LIMIT $2::bigint) c) AS jobs
    FROM walk w) h
WHERE q.name IN (SELECT json_array_elements_text($1::json)) AND NOT q.paused
"""
RUNNING_OF_QUEUES = """
SELECT j.lane, count(*) FROM queues q JOIN jobs j
    ON j.lane >= q.id << 32 AND j.lane < (q.id + 1) << 32 AND j.state = 'running'
WHERE q.name IN (SELECT json_array_elements_text($1::json)) GROUP BY j.lane
"""
RUNNING_OF_TARGETS = """
SELECT l.target, count(*) FROM lanes l JOIN jobs j ON j.lane = l.id AND j.state = 'running'
WHERE l.target <> '' AND l.target IN (SELECT json_array_elements_text($1::json)) GROUP BY l.target
"""
RATES = "SELECT key, value FROM rates WHERE queue = ANY($1::bigint[])"
KEEP_RATES = """
INSERT INTO rates (queue, key, value)
SELECT (r->>0)::bigint, r->>1, (r->>2)::double precision FROM json_array_elements($1::json) r
ON CONFLICT (queue, key) DO UPDATE SET value = excluded.value
"""
# The list of rows is a fence: without it the planner may run the LIMIT again for each row.
CLAIM = """
WITH c AS MATERIALIZED (
    SELECT id FROM jobs WHERE state = 'available' AND lane = $1::bigint
        AND (expires_at IS NULL OR expires_at > $6::bigint)
    ORDER BY rank_at, id LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
UPDATE jobs j SET state = 'running', token = token + 1, attempt = attempt + 1,
    lease_until = $3::bigint, worker = $4, epoch = $5::bigint,
    unique_key = CASE unique_until WHEN -1 THEN NULL ELSE unique_key END
FROM c WHERE j.id = c.id
RETURNING j.rank_at, j.id, j.token, j.attempt, j.kind, j.args, j.priority, j.run_at, j.created_at,
    j.max_attempts, j.lost_count, coalesce(j.expires_at, 0), j.options
"""

# Waits for the transaction, should the server not have noticed yet that its client is gone.
MARKED = "SELECT number FROM hosts WHERE host = $1 FOR UPDATE"
FORGET_HOSTS = "DELETE FROM hosts WHERE at <= $1::bigint"
# What a transaction has claimed, when its answer was lost: nobody else has written it since.
CLAIMED = """
SELECT j.rank_at, j.id, j.token, j.attempt, j.kind, j.args, j.priority, j.run_at, j.created_at,
    j.max_attempts, j.lost_count, coalesce(j.expires_at, 0), j.options
FROM jobs j WHERE j.state = 'running' AND j.lane = $1::bigint AND j.worker = $2
    AND j.xmin = $3::xid8::xid
"""

# --- settling

# `state || ''` keeps the planner from the index of running jobs: where it believes that there are
# few (it always does after they were few), it would compare each of them with each that is named.
# A drain took five times as long.
# A key whose scope is a window outlives the job; every other one is free with this statement.
FINISH = """
UPDATE jobs j SET state = 'completed', finalized_at = (SELECT now_ms()), worker = '',
    lease_until = 0, cancel_requested = false,
    unique_key = CASE WHEN unique_until > 0 THEN unique_key END
FROM unnest($1::bigint[], $2::bigint[]) f (id, token)
WHERE j.id = f.id AND j.token = f.token AND j.state || '' = 'running'
RETURNING j.id, j.lane, j.epoch
"""
RESULTS = """
UPDATE jobs j SET result = r->>1 FROM json_array_elements($1::json) r
WHERE j.id = (r->>0)::bigint
"""
LEAVE = """
UPDATE jobs j SET state = f.state, run_at = f.run_at, rank_at = f.rank_at,
    finalized_at = f.finalized_at, reason = f.reason, errors = f.errors,
    fingerprint = f.fingerprint, lost_count = lost_count + f.lost, attempt = attempt - f.back,
    worker = '', lease_until = 0, cancel_requested = false,
    unique_key = CASE WHEN f.finalized_at IS NULL OR unique_until > 0 THEN unique_key END
FROM (SELECT (r->>0)::bigint AS id, r->>1 AS state, (r->>2)::bigint AS run_at,
        (r->>3)::bigint AS rank_at, (r->>4)::bigint AS finalized_at, r->>5 AS reason,
        r->>6 AS errors, r->>7 AS fingerprint, (r->>8)::integer AS lost, (r->>9)::integer AS back
    FROM json_array_elements($1::json) r) f
WHERE j.id = f.id
"""
EPOCHS = "SELECT id, epoch FROM jobs WHERE id = ANY($1::bigint[])"
EXTEND = """
UPDATE jobs j SET lease_until = (SELECT now_ms()) + $3::bigint, worker = $4
FROM unnest($1::bigint[], $2::bigint[]) f (id, token)
WHERE j.id = f.id AND j.token = f.token AND j.state || '' = 'running'
RETURNING j.id, j.cancel_requested
"""
PROGRESS = """
UPDATE jobs j SET progress = r->>2 FROM json_array_elements($1::json) r
WHERE j.id = (r->>0)::bigint AND j.token = (r->>1)::bigint AND j.state || '' = 'running'
"""

BREAKER = "target, state, epoch, open_until, trips, successes, buckets, changed_at"
BREAKERS = f"SELECT {BREAKER} FROM breakers"  # noqa: S608  its columns, from above
BREAKERS_OF = BREAKERS + " WHERE target IN (SELECT json_array_elements_text($1::json))"
ADD_BREAKERS = """
INSERT INTO breakers (target) SELECT value FROM json_array_elements_text($1::json)
ON CONFLICT (target) DO NOTHING
"""
LOCK_BREAKERS = BREAKERS_OF + " ORDER BY target FOR UPDATE"
KEEP_BREAKER = """
UPDATE breakers SET state = $3, epoch = $4::bigint, open_until = $5::bigint, trips = $6::integer,
    successes = $7::integer, buckets = $8, changed_at = $9::bigint
WHERE target = $1 AND epoch = $2::bigint RETURNING 1
"""

# --- maintenance

PROMOTE = """
WITH c AS MATERIALIZED (
    SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= $1::bigint
    ORDER BY run_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
UPDATE jobs j SET state = 'available' FROM c WHERE j.id = c.id RETURNING j.id
"""
EXPIRED = """
SELECT id FROM jobs
WHERE expires_at IS NOT NULL AND finalized_at IS NULL AND expires_at <= $1::bigint
    AND state IN ('scheduled', 'available')
ORDER BY expires_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED
"""
END = """
UPDATE jobs SET state = 'cancelled', finalized_at = $1::bigint, reason = $2,
    unique_key = CASE WHEN unique_until > 0 THEN unique_key END
WHERE id = ANY($3::bigint[])
"""
NEXT_DUE = """
SELECT least(
    (SELECT min(run_at) FROM jobs WHERE state = 'scheduled'),
    (SELECT min(expires_at) FROM jobs WHERE expires_at IS NOT NULL AND finalized_at IS NULL
        AND state IN ('scheduled', 'available')),
    (SELECT min(lease_until) FROM jobs WHERE state = 'running'))
"""
# What has a key for a while yet is kept for as long.
OLD = """
SELECT id FROM jobs WHERE state = $1 AND finalized_at IS NOT NULL AND finalized_at <= $2::bigint
    AND NOT (unique_key IS NOT NULL AND unique_until > $3::bigint)
    AND lane >> 32 = ANY($4::bigint[])
ORDER BY finalized_at LIMIT $5::bigint FOR UPDATE SKIP LOCKED
"""
QUEUES = "SELECT id, name FROM queues"
FINAL_COUNTS = """
SELECT state, lane >> 32, count(*) FROM jobs WHERE finalized_at IS NOT NULL GROUP BY 1, 2
"""
DELETE = "DELETE FROM jobs WHERE id = ANY($1::bigint[])"
FORGET_KEYS = """
DELETE FROM idempotency WHERE key IN (
    SELECT key FROM idempotency WHERE created_at <= $1::bigint LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED)
"""
FORGET_RATES = """
DELETE FROM rates WHERE (queue, key) IN (
    SELECT queue, key FROM rates WHERE value < $1::bigint LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
"""

# --- looking and operating

ROW = """
SELECT j.id, j.state, q.name, j.kind, j.args, j.priority, j.run_at, j.rank_at, j.created_at,
    j.attempt, j.max_attempts, j.token, j.lost_count, j.lease_until, j.worker,
    coalesce(j.unique_key, ''), j.unique_until, coalesce(j.expires_at, 0), l.fair_key, l.target,
    j.cancel_requested, coalesce(j.finalized_at, 0), j.reason, j.fingerprint, j.errors, j.result,
    j.progress, j.options, j.requeued_from
FROM jobs j JOIN lanes l ON l.id = j.lane JOIN queues q ON q.id = j.lane >> 32
"""
BY_ID = ROW + " WHERE j.id = $1::bigint"
HELD_ROWS = (
    ROW + " WHERE j.id = ANY($1::bigint[]) AND j.state = 'running' ORDER BY j.id FOR UPDATE OF j"
)
HELD_BY = (
    ROW
    + """ WHERE j.id = ANY($1::bigint[]) AND j.state = 'running' AND j.worker = $2
ORDER BY j.id FOR UPDATE OF j"""
)
LATE = (
    ROW
    + """ WHERE j.state = 'running' AND j.lease_until <= $1::bigint
LIMIT $2::bigint FOR UPDATE OF j SKIP LOCKED"""
)
ASK_CANCEL = "UPDATE jobs SET cancel_requested = true WHERE id = ANY($1::bigint[])"
REQUEUE = """
UPDATE jobs j SET state = 'available', finalized_at = NULL, reason = '', run_at = f.run_at,
    rank_at = f.rank_at, attempt = 0, lost_count = 0, expires_at = NULL, requeued_from = state,
    result = '', progress = '', cancel_requested = false,
    unique_key = CASE WHEN unique_until > 0 THEN unique_key END, args = coalesce(f.args, j.args)
FROM (SELECT (r->>0)::bigint AS id, (r->>1)::bigint AS run_at, (r->>2)::bigint AS rank_at,
    r->>3 AS args FROM json_array_elements($1::json) r) f
WHERE j.id = f.id
"""
COUNT = """
SELECT q.name, c.state, c.jobs, CASE c.state WHEN 'available' THEN c.oldest ELSE 0 END FROM (
    SELECT lane >> 32 AS queue, state, count(*) AS jobs, min(run_at) AS oldest
    FROM jobs GROUP BY 1, 2) c
JOIN queues q ON q.id = c.queue ORDER BY 1, 2
"""
DEAD_GROUPS = """
SELECT j.fingerprint, q.name, j.kind, j.reason, max(j.errors), count(*), min(j.finalized_at),
    max(j.finalized_at)
FROM jobs j JOIN queues q ON q.id = j.lane >> 32 WHERE j.state = 'dead'
GROUP BY j.fingerprint, q.name, j.kind, j.reason ORDER BY count(*) DESC, j.fingerprint
LIMIT $1::bigint
"""
PAUSE = """
INSERT INTO queues (name, paused) VALUES ($1, $2::boolean)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused
"""
PAUSED = "SELECT name FROM queues WHERE paused"
KNOWN_KEYS = """
SELECT unique_key FROM jobs WHERE unique_key IN (SELECT json_array_elements_text($1::json))
UNION SELECT key FROM idempotency
    WHERE key IN (SELECT json_array_elements_text($1::json)) AND created_at > $2::bigint
"""
RESTORE = """
INSERT INTO jobs (id, lane, state, rank_at, run_at, created_at, attempt, max_attempts, priority,
    token, lost_count, finalized_at, unique_key, unique_until, kind, args, options, reason,
    fingerprint, requeued_from, errors, progress, result)
SELECT (r->>0)::bigint, (r->>1)::bigint, r->>2, (r->>3)::bigint, (r->>4)::bigint, (r->>5)::bigint,
    (r->>6)::integer, (r->>7)::integer, (r->>8)::smallint, (r->>9)::bigint, (r->>10)::integer,
    (r->>11)::bigint, r->>12, (r->>13)::bigint, r->>14, r->>15, r->>16, r->>17, r->>18, r->>19,
    r->>20, r->>21, r->>22
FROM json_array_elements($1::json) r
"""
NOTE_KEYS = """
INSERT INTO idempotency (key, answer, created_at)
SELECT r->>0, r->>1, $2::bigint FROM json_array_elements($1::json) r
ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, created_at = excluded.created_at
"""
EDIT = "UPDATE jobs SET args = $2 WHERE id = $1::bigint AND state = 'dead' RETURNING 1"
AHEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM jobs b JOIN jobs a ON a.lane = b.lane AND a.state = 'available'
        AND (a.rank_at, a.id) < (b.rank_at, b.id)
    WHERE b.id = $1::bigint LIMIT $2::bigint) c
"""

# --- schedules

SCHEDULE_ROWS = """
SELECT schedule, digest, since, paused, slot, job, held FROM schedules ORDER BY schedule
"""
KEEP_SCHEDULES = """
INSERT INTO schedules (schedule, digest, since)
SELECT r->>0, r->>1, now_ms() FROM json_array_elements($1::json) r
ON CONFLICT (schedule) DO UPDATE SET digest = excluded.digest, since = excluded.since, held = 0,
    slot = least(schedules.slot, excluded.since)
WHERE schedules.digest <> excluded.digest
"""
FORGET_SCHEDULES = """
DELETE FROM schedules WHERE schedule IN (SELECT json_array_elements_text($1::json))
"""
FORGET_SLOTS_OF = """
DELETE FROM slots WHERE schedule IN (SELECT json_array_elements_text($1::json))
"""
# A schedule that begins again owes nothing for the time of its pause.
PAUSE_SCHEDULE = """
INSERT INTO schedules (schedule, paused, since) VALUES ($1, $2::boolean, now_ms())
ON CONFLICT (schedule) DO UPDATE SET
    since = CASE WHEN schedules.paused AND NOT excluded.paused THEN excluded.since
        ELSE schedules.since END,
    slot = CASE WHEN schedules.paused AND NOT excluded.paused
        THEN least(schedules.slot, excluded.since) ELSE schedules.slot END,
    held = 0, paused = excluded.paused
"""
# Who claims a slot waits here for whoever claims another of the same schedule.
ADD_SCHEDULES = """
INSERT INTO schedules (schedule) SELECT json_array_elements_text($1::json)
ON CONFLICT (schedule) DO NOTHING
"""
LOCK_SCHEDULES = """
SELECT schedule, slot, held FROM schedules
WHERE schedule IN (SELECT json_array_elements_text($1::json)) ORDER BY schedule FOR UPDATE
"""
NOTE_SLOT = """
INSERT INTO slots (schedule, slot, job, reason) VALUES ($1, $2::bigint, $3::bigint, $4)
ON CONFLICT (schedule, slot) DO UPDATE SET job = excluded.job, reason = excluded.reason
"""
NOTE_FIRING = """
UPDATE schedules SET slot = greatest(slot, $2::bigint), held = $4::bigint,
    job = CASE WHEN $3::bigint <> 0 THEN $3::bigint ELSE job END
WHERE schedule = $1
"""
SLOTS = """
SELECT schedule, slot, job, reason FROM slots WHERE schedule = $1
ORDER BY slot DESC LIMIT $2::bigint
"""
FORGET_SLOTS = """
DELETE FROM slots WHERE schedule = $1 AND slot < (
    SELECT slot FROM slots WHERE schedule = $1 ORDER BY slot DESC OFFSET $2::bigint LIMIT 1)
"""

# --- the database itself

HOLDS = """
SELECT current_setting('synchronous_commit'), current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('server_version')
"""
HEALTH = """
SELECT coalesce((SELECT n_dead_tup FROM pg_stat_user_tables
        WHERE schemaname = current_schema() AND relname = 'jobs'), 0),
    coalesce((SELECT extract(epoch FROM now() - min(xact_start)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()), 0)::double precision
"""


def array(numbers: "list[int] | tuple[int, ...]") -> str:
    """Numbers as the text of an array."""
    return "{" + ",".join(map(str, numbers)) + "}"
