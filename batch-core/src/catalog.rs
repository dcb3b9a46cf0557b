//! What Postgres says about tables.
//!
//! Read in one query ([`query`]), parsed once into [`Catalog`], then only looked up.

mod touches;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use crate::eligible::Reason;
use crate::error::Error;
use crate::identity::SERVER_SQL;
use crate::patience::Timeouts;
use crate::recognise::{Effects, TableName};
use crate::statement::{FIRST_OWN_OID, Purpose, Query, TextRow, oid};
use crate::{defaults, harmless, limits, stored};

/// The oldest Postgres that the catalog query is written for.
const OLDEST_VERSION: u32 = 130_000;

/// An SQL expression for what decides which table a name means and what the session may do with it.
pub(crate) const SESSION_SQL: &str = "current_schemas(true)::text || ' as ' || current_user || ' of ' || session_user \
     || ' rls ' || current_setting('row_security') || ' role ' || current_setting('session_replication_role') \
     || ' strings ' || current_setting('standard_conforming_strings') \
     || ' transactions ' || current_setting('default_transaction_isolation') \
     || ' ' || current_setting('default_transaction_read_only')";

/// The query that reads the catalog. Each row is the kind of thing and the thing as JSON.
pub(crate) fn query() -> Query {
    let mut sql =
        QUERY.replace("{identity}", SESSION_SQL).replace("{server}", SERVER_SQL).replace("{sizes}", limits::SQL);
    sql = sql.replace("{timeouts}", Timeouts::SQL);
    for (what, how) in CALLED {
        sql = sql.replace(what, how);
    }
    let mut query = Query::new(Purpose::Ask, sql);
    query.simple_sql = Some(query.sql.clone());
    // It comes every few minutes at most, and its plan takes 3 MB.
    query.cacheable = false;
    query
}

// Partitions count with their root: a row goes into one of them.
//
// Others may drop and lock what is read here. Whoever drops shows in the functions that look at the present (`pg_…_is_visible`,
// `has_…_privilege`: NULL of what is gone), and not in the tables of the catalog, which are read as of one snapshot. And nothing is
// called that opens a relation, as it would wait for its lock: `pg_get_viewdef`, `pg_get_constraintdef`, `pg_partition_tree`,
// `pg_get_expr` of columns, and the output of a composite value.
//
// A LIMIT of an unknown number makes the planner expect a tenth of the rows: too few for its compiler, which takes longer than the query.
const QUERY: &str = "\
SELECT * FROM (SELECT * FROM (
WITH RECURSIVE dom(top, oid, modifier, not_null) AS (
  SELECT t.oid, t.oid, -1, false FROM pg_catalog.pg_type t WHERE t.typtype = 'd'
  UNION ALL
  SELECT d.top, t.typbasetype, CASE WHEN t.typtypmod <> -1 THEN t.typtypmod ELSE d.modifier END, d.not_null OR t.typnotnull
  FROM dom d JOIN pg_catalog.pg_type t ON t.oid = d.oid AND t.typtype = 'd'
), base AS (
  SELECT d.top, d.oid, d.modifier, d.not_null, b.typtype
  FROM dom d JOIN pg_catalog.pg_type b ON b.oid = d.oid AND b.typtype <> 'd'
), space AS MATERIALIZED (
  SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND NOT pg_is_other_temp_schema(n.oid)
), part(root, oid) AS (
  SELECT c.oid, c.oid FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  UNION
  SELECT p.root, i.inhrelid FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
), called AS (
  SELECT k.oid, json_agg(DISTINCT {name}) AS names
  FROM pg_catalog.pg_constraint k CROSS JOIN LATERAL {functions of k.conbin} found (of)
  LEFT JOIN pg_catalog.pg_proc p ON p.oid = found.of[1]::oid
  WHERE k.contype = 'c' AND {may differ} GROUP BY k.oid
), checked AS MATERIALIZED (
  SELECT k.conrelid, k.contypid, json_build_object('functions', c.names, 'calls', k.oid IN (
      SELECT d.objid FROM pg_catalog.pg_depend d
      LEFT JOIN pg_catalog.pg_operator o ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.refobjid
      JOIN pg_catalog.pg_proc p
        ON p.oid = CASE d.refclassid WHEN 'pg_catalog.pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
      WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND p.provolatile <> 'i')) AS said
  FROM pg_catalog.pg_constraint k LEFT JOIN called c ON c.oid = k.oid WHERE k.contype = 'c'
), checks AS MATERIALIZED (
  SELECT of.rel, json_agg(of.said) AS said FROM (
    SELECT p.root, k.said FROM part p JOIN checked k ON k.conrelid = p.oid
    UNION ALL
    SELECT a.attrelid, k.said FROM checked k JOIN dom d ON d.oid = k.contypid JOIN pg_catalog.pg_attribute a ON a.atttypid = d.top
  ) of (rel, said) GROUP BY of.rel
), rel AS MATERIALIZED (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, tree.oids AS tree, checks.said AS checks,
         pg_table_is_visible(c.oid) AS visible
  FROM pg_catalog.pg_class c JOIN space n ON n.oid = c.relnamespace
  JOIN (SELECT p.root, array_agg(p.oid) FROM part p GROUP BY p.root) tree (root, oids) ON tree.root = c.oid
  LEFT JOIN checks ON checks.rel = c.oid
), seq AS (
  SELECT s.seqrelid AS oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relname, s.seqincrement,
         s.seqcycle, s.seqcache, COALESCE(has_sequence_privilege(c.oid, 'USAGE'), false) AS usable
  FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
  JOIN space n ON n.oid = c.relnamespace
), odd AS MATERIALIZED (
  SELECT ARRAY(SELECT o.oid FROM pg_catalog.pg_collation o WHERE NOT o.collisdeterministic) AS collations,
         ARRAY(SELECT o.oid FROM pg_catalog.pg_opclass o WHERE o.opcnamespace <> 'pg_catalog'::regnamespace) AS classes,
         (SELECT ':funcid (' || string_agg(p.oid::text, '|') || ') ' FROM pg_catalog.pg_proc p
          WHERE p.pronamespace = 'pg_catalog'::regnamespace
            AND p.proname IN ('nextval', 'setval', 'set_config', 'currval', 'lastval', 'query_to_xml')) AS movers
)
SELECT 'session', json_build_object(
    'version', current_setting('server_version_num')::int4, 'product', version(),
    'encoding', current_setting('server_encoding'), 'identity', {identity}, 'server', {server},
    'timeouts', {timeouts},
    'isolation', current_setting('default_transaction_isolation'),
    'event_triggers', EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'),
    'read_only', current_setting('default_transaction_read_only')::bool OR pg_is_in_recovery(),
    'own_operators', EXISTS (
            SELECT FROM pg_catalog.pg_operator o
            WHERE o.oprnamespace <> 'pg_catalog'::regnamespace AND NOT ARRAY[o.oprleft, o.oprright] && foreign_types.oids)
        OR EXISTS (
            SELECT FROM pg_catalog.pg_cast c
            WHERE c.castfunc >= 16384 AND NOT ARRAY[c.castsource, c.casttarget] && foreign_types.oids))::text
FROM (SELECT ARRAY(SELECT t.oid FROM pg_catalog.pg_type t
    WHERE t.oid >= 16384 AND t.typtype IN ('b', 'm', 'r') AND t.typcategory <> 'A')) foreign_types (oids)
UNION ALL
SELECT 'opaque', COALESCE(json_agg(DISTINCT own.name), '[]')::text FROM (
    SELECT p.proname, p.pronamespace FROM pg_catalog.pg_proc p
    UNION ALL
    SELECT t.typname, t.typnamespace FROM pg_catalog.pg_type t
    WHERE t.typtype NOT IN ('c', 'e') AND t.typcategory <> 'A'
    UNION ALL
    SELECT c.relname, c.relnamespace FROM pg_catalog.pg_class c
    WHERE c.relkind NOT IN ('r', 'i', 'I', 't', 'c') OR c.relispartition OR c.relrowsecurity
        OR c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
) own (name, namespace)
WHERE own.namespace IN (SELECT space.oid FROM space)
UNION ALL
SELECT 'enum', json_build_object('oid', e.enumtypid::int8, 'labels', json_agg(e.enumlabel))::text
FROM pg_catalog.pg_enum e GROUP BY e.enumtypid
UNION ALL
SELECT 'reader', to_json(p.prosrc)::text FROM pg_catalog.pg_proc p
WHERE p.prosrc ~* '(currval|lastval)' AND p.pronamespace IN (SELECT space.oid FROM space)
UNION ALL
SELECT 'ddl', to_json(p.proname)::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.pronamespace IN (SELECT space.oid FROM space)
  AND l.lanname NOT IN ('c', 'internal')
  AND (l.lanname NOT IN ('sql', 'plpgsql') OR p.prosrc ~* '(^|[^a-z0-9_])(create|alter|drop|execute|grant|revoke)([^a-z0-9_]|$)')
UNION ALL
SELECT 'table', json_build_object(
    'oid', rel.oid::int8, 'schema', rel.nspname, 'name', rel.relname, 'kind', rel.relkind::text,
    'visible', rel.visible, 'insert', COALESCE(has_table_privilege(rel.oid, 'INSERT'), false),
    'update', COALESCE(has_table_privilege(rel.oid, 'UPDATE'), false),
    'select', COALESCE(has_table_privilege(rel.oid, 'SELECT'), false),
    'rls', COALESCE(row_security_active(rel.oid), true),
    'trigger', EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = ANY (rel.tree)
        AND (NOT t.tgisinternal OR t.tgparentid <> 0 AND t.tgconstraint = 0)
        AND t.tgenabled <> 'D' AND t.tgtype::int4 & 4 <> 0),
    'inserts', (SELECT json_agg(CASE l.lanname WHEN 'plpgsql' THEN p.prosrc ELSE 'execute' END)
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE t.tgrelid = ANY (rel.tree) AND (NOT t.tgisinternal OR t.tgparentid <> 0 AND t.tgconstraint = 0)
          AND t.tgenabled <> 'D' AND t.tgtype::int4 & 4 <> 0),
    'changes', (SELECT json_agg(CASE l.lanname WHEN 'plpgsql' THEN p.prosrc ELSE 'execute' END)
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE t.tgrelid = ANY (rel.tree) AND (NOT t.tgisinternal OR t.tgparentid <> 0 AND t.tgconstraint = 0)
          AND t.tgenabled <> 'D' AND t.tgtype::int4 & 24 <> 0),
    'change_rule', EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ANY (rel.tree)
        AND r.ev_type IN ('2', '4') AND r.ev_enabled <> 'D'),
    'view', CASE WHEN rel.relkind = 'v' THEN json_build_object(
        'calls', EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = rel.oid AND r.ev_action::text ~ odd.movers)
            OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
                ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
                LEFT JOIN pg_catalog.pg_operator o ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.refobjid
                JOIN pg_catalog.pg_proc p
                  ON p.oid = CASE d.refclassid WHEN 'pg_catalog.pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
                WHERE r.ev_class = rel.oid AND p.provolatile = 'v'),
        'reads', (SELECT json_agg(d.refobjid::int8) FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
            ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
            WHERE r.ev_class = rel.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> rel.oid)
        ) END,
    'rule', EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ANY (rel.tree)
        AND r.ev_type = '3' AND r.ev_enabled <> 'D'),
    'uniques', (SELECT json_agg((i.indkey::int2[])[0:i.indnkeyatts - 1]) FROM pg_catalog.pg_index i
        WHERE i.indrelid = rel.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
          AND i.indpred IS NULL AND i.indexprs IS NULL
          AND (to_jsonb(i) ->> 'indnullsnotdistinct')::bool IS NOT TRUE
          AND NOT i.indcollation::oid[] && odd.collations AND NOT i.indclass::oid[] && odd.classes),
    'late_keys', EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = ANY (rel.tree) AND NOT i.indimmediate),
    'foreign', EXISTS (SELECT FROM pg_catalog.pg_class f WHERE f.oid = ANY (rel.tree) AND f.relkind = 'f'),
    'checks', rel.checks,
    'foreign_keys', (SELECT json_agg(json_build_object('table', k.confrelid::int8, 'columns', k.conkey,
            'referenced', k.confkey, 'cascades', k.confdeltype IN ('c', 'n') OR k.confupdtype IN ('c', 'n'),
            'sets_default', k.confdeltype = 'd' OR k.confupdtype = 'd'))
        FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conrelid = rel.oid),
    'columns', (SELECT json_agg(json_build_object(
            'name', a.attname, 'number', a.attnum, 'dropped', a.attisdropped,
            'type', t.oid::int8, 'type_name', t.typname, 'type_sql', format_type(t.oid, -1),
            'base_sql', format_type(COALESCE(base.oid, t.oid), -1), 'array', t.typarray::int8,
            'type_kind', CASE base.typtype WHEN 'c' THEN 'c' ELSE t.typtype::text END,
            'base', COALESCE(base.oid, t.oid)::int8, 'modifier', COALESCE(base.modifier, a.atttypmod),
            'is_array', t.typcategory = 'A', 'element', t.typelem::int8,
            'domain_default', t.typdefault, 'not_null', a.attnotnull OR COALESCE(base.not_null, false),
            'generated', a.attgenerated <> '', 'identity', a.attidentity::text,
            'default', CASE WHEN d.oid IS NOT NULL AND a.attgenerated = '' AND shown.plainly THEN pg_get_expr(d.adbin, 0) END,
            'hides_default', d.oid IS NOT NULL AND NOT shown.plainly,
            'functions', CASE WHEN a.attgenerated <> '' THEN
                (SELECT json_agg(DISTINCT {name}) FROM {functions of d.adbin} found (of)
                 LEFT JOIN pg_catalog.pg_proc p ON p.oid = found.of[1]::oid WHERE {may differ}) END,
            'calls', (d.oid IS NOT NULL OR t.typtype = 'd') AND EXISTS (SELECT FROM pg_catalog.pg_depend x
                LEFT JOIN pg_catalog.pg_operator o ON x.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = x.refobjid
                JOIN pg_catalog.pg_proc p
                  ON p.oid = CASE x.refclassid WHEN 'pg_catalog.pg_proc'::regclass THEN x.refobjid ELSE o.oprcode END
                WHERE (x.classid = 'pg_catalog.pg_attrdef'::regclass AND x.objid = d.oid
                    OR x.classid = 'pg_catalog.pg_type'::regclass AND x.objid = t.oid AND t.typtype = 'd')
                  AND p.provolatile <> 'i'),
            'deterministic', COALESCE(o.collisdeterministic, true),
            'sequence', CASE WHEN a.attidentity <> '' OR d.oid IS NOT NULL THEN (SELECT json_build_object('oid', seq.oid::int8, 'name', seq.name, 'bare', seq.relname,
                    'increment', seq.seqincrement, 'cycle', seq.seqcycle, 'caches', seq.seqcache > 1, 'usable', seq.usable)
                FROM pg_catalog.pg_depend x JOIN seq ON seq.oid = CASE WHEN x.classid = 'pg_catalog.pg_class'::regclass
                    THEN x.objid ELSE x.refobjid END
                WHERE (x.classid = 'pg_catalog.pg_class'::regclass AND x.refclassid = 'pg_catalog.pg_class'::regclass
                       AND x.refobjid = rel.oid AND x.refobjsubid = a.attnum AND x.deptype = 'i'
                       AND a.attidentity <> '')
                   OR (x.classid = 'pg_catalog.pg_attrdef'::regclass AND x.objid = d.oid
                       AND x.refclassid = 'pg_catalog.pg_class'::regclass AND a.attidentity = '')
                LIMIT 1) END
        ) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        LEFT JOIN base ON base.top = t.oid
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
        CROSS JOIN LATERAL (SELECT d.oid IS NULL OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend x
            LEFT JOIN pg_catalog.pg_type y ON x.refclassid = 'pg_catalog.pg_type'::regclass AND y.oid = x.refobjid
            LEFT JOIN pg_catalog.pg_type e ON e.oid = y.typelem
            WHERE x.classid = 'pg_catalog.pg_attrdef'::regclass AND x.objid = d.oid AND CASE x.refclassid
                WHEN 'pg_catalog.pg_type'::regclass THEN pg_type_is_visible(y.oid) IS NULL
                    OR y.typtype IN ('c', 'r', 'm') OR e.typtype IN ('c', 'd', 'r', 'm')
                WHEN 'pg_catalog.pg_proc'::regclass THEN pg_function_is_visible(x.refobjid) IS NULL
                WHEN 'pg_catalog.pg_operator'::regclass THEN pg_operator_is_visible(x.refobjid) IS NULL
                WHEN 'pg_catalog.pg_collation'::regclass THEN pg_collation_is_visible(x.refobjid) IS NULL
                ELSE false END)) shown (plainly)
        WHERE a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped)
)::text FROM rel CROSS JOIN odd WHERE rel.visible IS NOT NULL{sizes}
) q LIMIT (SELECT 1000000000)) q LIMIT (SELECT 1000000000)";

/// Which functions an expression calls that may not give the same result later as now: by the tree that Postgres keeps of it, as
/// writing it out would open its table. Those of the database's own count whatever they claim, as they may lie.
const CALLED: [(&str, &str); 4] = [
    (
        "{functions of k.conbin}",
        "regexp_matches(k.conbin::text, ':funcid ([0-9]+)|[{](XMLEXPR|JSON[A-Z]*|SUBLINK|NEXTVALUEEXPR)', 'g')",
    ),
    (
        "{functions of d.adbin}",
        "regexp_matches(d.adbin::text, ':funcid ([0-9]+)|[{](XMLEXPR|JSON[A-Z]*|SUBLINK|NEXTVALUEEXPR)', 'g')",
    ),
    (
        "{name}",
        "CASE WHEN p.oid IS NULL THEN '?' WHEN p.oid < 16384 THEN p.proname::text ELSE p.pronamespace || '.' || p.proname END",
    ),
    ("{may differ}", "(p.oid IS NULL OR p.oid >= 16384 OR p.provolatile <> 'i')"),
];

/// What Postgres said about the tables that one kind of session can reach.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub identity: String,
    /// Who the server is, if it said so.
    pub server: Option<String>,
    pub read_at: Instant,
    /// After which invalidations it was asked for, see `Database::epoch`.
    pub epoch: u64,
    pub utf8: bool,
    /// DDL calls functions that may do anything.
    pub event_triggers: bool,
    /// Transactions see one snapshot unless they say otherwise.
    pub fixes_snapshot: bool,
    /// Transactions are read-only unless they say otherwise.
    pub read_only: bool,
    /// Of a session of this login that sets none.
    pub timeouts: Timeouts,
    hidden: Hidden,
    /// Names behind which code stands, or more tables than the name says: views, functions, partitions, …. `None` where
    /// that may be so behind any name.
    opaque: Option<HashSet<String>>,
    enums: HashMap<u32, Vec<String>>,
    tables: Vec<Arc<Table>>,
    by_name: HashMap<String, Vec<usize>>,
    visible: HashMap<String, usize>,
    qualified: HashMap<(String, String), usize>,
}

/// What statements may do that does not show in their text, by the names in it, whatever their schema.
#[derive(Debug, Default)]
struct Hidden {
    /// Views that may advance a sequence or change a setting when they are read.
    when_read: HashSet<String>,
    /// Relations of which an UPDATE or DELETE may insert rows or advance a sequence.
    when_changed: HashSet<String>,
    /// Functions that may change the schema.
    ddl: HashSet<String>,
}

/// A table that may take INSERTs.
#[derive(Debug)]
pub(crate) struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
    /// Why no INSERT into it may wait.
    pub unfit: Option<Reason>,
    /// Whether the role may read what it inserted, as RETURNING demands.
    pub can_select: bool,
    /// This table's references to others.
    pub foreign_keys: Vec<ForeignKey>,
    /// Others' references to this table, by table and position in its `foreign_keys`.
    pub referenced_by: Vec<Reference>,
    pub can_update: bool,
    /// The columns of unique indexes that `ON CONFLICT (columns)` may mean.
    pub uniques: Vec<Vec<usize>>,
    /// A constraint by an index may be checked at the end of the transaction, which `ON CONFLICT` without columns refuses.
    pub has_late_keys: bool,
    /// Comparing its columns calls nothing but Postgres' own functions.
    pub is_plain: bool,
    /// An UPDATE or DELETE calls nothing.
    pub is_quiet: bool,
    /// Tables that foreign keys tie to each other, directly or over others, have the same number.
    pub island: usize,
    /// How large its rows and their index entries may be.
    pub sizes: limits::Sizes,
    /// The sequences that an INSERT may advance; `None` where it may be any.
    pub touches: Option<Vec<u32>>,
}

#[derive(Debug)]
pub(crate) struct Column {
    pub name: String,
    pub type_oid: u32,
    pub type_name: String,
    /// The type as SQL, without modifiers.
    pub type_sql: String,
    /// The type below a domain as SQL, else the type itself.
    pub base_sql: String,
    pub array_oid: u32,
    /// The type below a domain, else the type itself.
    pub base_oid: u32,
    /// `atttypmod`, or the domain's.
    pub modifier: i32,
    pub kind: TypeKind,
    pub not_null: bool,
    pub generated: bool,
    /// GENERATED ALWAYS AS IDENTITY
    pub always_identity: bool,
    /// Equal values have equal bytes as far as the collation goes.
    pub deterministic: bool,
    pub default: Default,
    /// Any session gives the default the same meaning, even if it is another value each time.
    pub is_default_shared: bool,
}

/// Which kind of type a column has, as far as an array of its values is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TypeKind {
    Plain,
    Enum,
    /// `unnest` would flatten it: the element type's oid.
    Array(u32),
    /// `unnest` would expand it.
    Composite,
}

/// What Postgres puts into a column that an INSERT leaves out.
#[derive(Debug)]
pub(crate) enum Default {
    Null,
    /// An expression without functions, as SQL.
    Constant(String),
    Sequence(Sequence),
    Now(Clock, String),
    /// `gen_random_uuid()`, as SQL.
    RandomUuid(String),
    /// It would not give the same value later as now.
    Unfit(Reason),
}

/// Which form of the transaction's start time a default takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// `now()` as it is.
    Instant,
    /// `now()` in the session's time zone, as a timestamp without one.
    Local,
    /// `now()` at UTC, as a timestamp without time zone.
    Utc,
    /// The date of `now()` in the session's time zone.
    Date,
}

#[derive(Debug)]
pub(crate) struct Sequence {
    pub oid: u32,
    /// Qualified and quoted.
    pub name: String,
    pub descending: bool,
    /// Whether ids have to be reserved even if nobody asks for them: others use the sequence too, or a foreign key
    /// points at the column, so that the engine must know the value.
    pub always_reserve: bool,
}

#[derive(Debug)]
pub(crate) struct ForeignKey {
    /// Positions in `columns`.
    pub columns: Vec<usize>,
    /// Equal values have equal bytes on both sides.
    pub is_comparable: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub table: u32,
    pub foreign_key: usize,
    /// Positions in this table's `columns`.
    pub columns: Vec<usize>,
}

impl Catalog {
    /// Makes a catalog of the rows that [`query`] brought.
    pub(crate) fn read(rows: &[TextRow], epoch: u64) -> Result<Self, Error> {
        let mut session: Option<SessionRow> = None;
        let mut enums = HashMap::new();
        let mut raw = Vec::new();
        let mut readers = Vec::new();
        let mut ddl = HashSet::new();
        let mut opaque = HashSet::new();
        let mut indexes: Vec<limits::IndexRow> = Vec::new();
        let mut wide: Vec<limits::WideRow> = Vec::new();
        for row in rows {
            let [Some(what), Some(json)] = row.as_slice() else { return Err(Error::catalog("a row without content")) };
            match what.as_str() {
                "session" => session = Some(parse(json)?),
                "enum" => {
                    let row: EnumRow = parse(json)?;
                    enums.insert(row.oid, row.labels);
                }
                "index" => indexes.push(parse(json)?),
                "wide" => wide.push(parse(json)?),
                "opaque" => opaque.extend(parse::<Vec<String>>(json)?),
                "reader" => readers.push(parse::<String>(json)?),
                "ddl" => {
                    ddl.insert(parse::<String>(json)?);
                }
                _ => raw.push(parse::<TableRow>(json)?),
            }
        }
        let session = session.ok_or_else(|| Error::catalog("no row about the session"))?;
        if session.version < OLDEST_VERSION || !session.product.starts_with("PostgreSQL") {
            return Err(Error::not_supported(&session.product));
        }
        let positions: HashMap<u32, usize> = raw.iter().enumerate().map(|(at, row)| (row.oid, at)).collect();
        let mut tables: Vec<Table> = raw.iter().map(table).collect();
        link_foreign_keys(&raw, &mut tables, &positions);
        mark_shared_sequences(&mut tables);
        mark_read_sequences(&raw, &readers, &mut tables);
        number_islands(&mut tables, &positions);
        note_sizes(&indexes, &wide, &mut tables, &positions);
        // Names of its views are common words.
        let opaque = (!session.own_operators && !session.identity.contains("information_schema")).then_some(opaque);
        for (table, touches) in tables.iter_mut().zip(touches::touches(&raw, opaque.as_ref())) {
            table.touches = touches;
        }
        let mut visible = HashMap::new();
        let mut qualified = HashMap::new();
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, row) in raw.iter().enumerate() {
            by_name.entry(row.name.clone()).or_default().push(at);
            if row.visible {
                visible.insert(row.name.clone(), at);
            }
            qualified.insert((row.schema.clone(), row.name.clone()), at);
        }
        Ok(Self {
            identity: session.identity.clone(),
            server: session.server,
            read_at: Instant::now(),
            epoch,
            utf8: session.encoding == "UTF8",
            event_triggers: session.event_triggers,
            fixes_snapshot: matches!(session.isolation.as_str(), "repeatable read" | "serializable"),
            read_only: session.read_only,
            timeouts: Timeouts::read(&session.timeouts).unwrap_or_default(),
            hidden: hidden(&raw, ddl),
            opaque,
            enums,
            tables: tables.into_iter().map(Arc::new).collect(),
            by_name,
            visible,
            qualified,
        })
    }

    /// The table that `name` means to this kind of session.
    pub(crate) fn table(&self, name: &TableName) -> Option<&Arc<Table>> {
        let at = match &name.schema {
            None => self.visible.get(&name.name)?,
            Some(schema) => self.qualified.get(&(schema.clone(), name.name.clone()))?,
        };
        self.tables.get(*at)
    }

    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// What a statement with these names may do that does not show in its text.
    pub(crate) fn hidden_effects(&self, names: &[String], writes: bool) -> Effects {
        let Hidden { when_read, when_changed, ddl } = &self.hidden;
        let any = |known: &HashSet<String>| !known.is_empty() && names.iter().any(|name| known.contains(name));
        let reads = any(when_read);
        let changes_schema = any(ddl);
        Effects {
            schema: changes_schema,
            session: reads || changes_schema,
            sequences: reads || changes_schema || (writes && any(when_changed)),
            ..Effects::default()
        }
    }

    /// The tables that a statement with these names can see or touch, whatever their schema; `None` where a name may
    /// stand for more than its table.
    pub(crate) fn named(&self, names: &[String]) -> Option<impl Iterator<Item = &Arc<Table>>> {
        let opaque = self.opaque.as_ref()?;
        let positions = |name: &String| self.by_name.get(name).into_iter().flatten();
        (!names.iter().any(|name| opaque.contains(name)))
            .then(|| names.iter().flat_map(positions).map(|&at| &self.tables[at]))
    }

    /// The labels of an enum type.
    pub(crate) fn labels(&self, oid: u32) -> Option<&[String]> {
        self.enums.get(&oid).map(Vec::as_slice)
    }
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// `schema.name`
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub(crate) fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.columns.iter().filter_map(|column| match &column.default {
            Default::Sequence(sequence) => Some(sequence),
            _ => None,
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|error| Error::catalog(error.to_string()))
}

#[derive(Deserialize)]
struct SessionRow {
    version: u32,
    product: String,
    encoding: String,
    identity: String,
    server: Option<String>,
    isolation: String,
    event_triggers: bool,
    read_only: bool,
    own_operators: bool,
    #[serde(default)]
    timeouts: String,
}

#[derive(Deserialize)]
struct EnumRow {
    oid: u32,
    labels: Vec<String>,
}

#[derive(Deserialize)]
struct TableRow {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    visible: bool,
    insert: bool,
    select: bool,
    #[serde(default)]
    update: bool,
    #[serde(default)]
    uniques: Option<Vec<Vec<i32>>>,
    #[serde(default)]
    late_keys: bool,
    rls: bool,
    trigger: bool,
    rule: bool,
    /// The sources of triggers for INSERT.
    #[serde(default)]
    inserts: Option<Vec<String>>,
    /// The sources of triggers for UPDATE and DELETE.
    changes: Option<Vec<String>>,
    change_rule: bool,
    view: Option<ViewRow>,
    foreign: bool,
    checks: Option<Vec<CheckRow>>,
    foreign_keys: Option<Vec<ForeignKeyRow>>,
    columns: Option<Vec<ColumnRow>>,
}

#[derive(Deserialize)]
struct ViewRow {
    calls: bool,
    reads: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct CheckRow {
    /// It calls a function of the database's own that is not immutable.
    calls: bool,
    /// The functions that it calls, but for Postgres' own immutable ones.
    functions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ForeignKeyRow {
    table: u32,
    columns: Vec<i32>,
    referenced: Vec<i32>,
    cascades: bool,
    sets_default: bool,
}

#[derive(Deserialize)]
struct ColumnRow {
    name: String,
    number: i32,
    #[serde(rename = "type")]
    type_oid: u32,
    type_name: String,
    type_sql: String,
    base_sql: String,
    array: u32,
    type_kind: String,
    base: u32,
    modifier: i32,
    is_array: bool,
    element: u32,
    domain_default: Option<String>,
    not_null: bool,
    generated: bool,
    identity: String,
    /// That of a generated column is not written out.
    default: Option<String>,
    /// There is a default that could not be written out without waiting for others.
    #[serde(default)]
    hides_default: bool,
    /// The functions that a generated column calls, but for Postgres' own immutable ones.
    #[serde(default)]
    functions: Option<Vec<String>>,
    /// The default calls a function of the database's own, whatever it is called, that is not immutable.
    #[serde(default)]
    calls: bool,
    deterministic: bool,
    sequence: Option<SequenceRow>,
}

#[derive(Deserialize)]
struct SequenceRow {
    oid: u32,
    name: String,
    /// The name alone, as it is.
    #[serde(default)]
    bare: String,
    increment: i64,
    cycle: bool,
    caches: bool,
    usable: bool,
}

fn table(row: &TableRow) -> Table {
    let place = |&number: &i32| row.columns.iter().flatten().position(|column| column.number == number);
    let unique = |numbers: &Vec<i32>| numbers.iter().map(place).collect::<Option<Vec<usize>>>();
    Table {
        oid: row.oid,
        schema: row.schema.clone(),
        name: row.name.clone(),
        columns: row.columns.iter().flatten().map(column).collect(),
        unfit: unfit(row),
        can_select: row.select,
        foreign_keys: Vec::new(),
        referenced_by: Vec::new(),
        can_update: row.update,
        uniques: row.uniques.iter().flatten().filter_map(unique).collect(),
        has_late_keys: row.late_keys,
        is_plain: row.columns.iter().flatten().all(has_built_in_operators),
        is_quiet: row.changes.is_none() && !row.change_rule && !row.checks.iter().flatten().any(|check| check.calls),
        island: 0,
        sizes: limits::Sizes::default(),
        touches: None,
    }
}

fn has_built_in_operators(column: &ColumnRow) -> bool {
    column.base < FIRST_OWN_OID || column.type_kind == "e"
}

fn unfit(row: &TableRow) -> Option<Reason> {
    let rules = [
        (!matches!(row.kind.as_str(), "r" | "p") || row.foreign, Reason::NotATable),
        (!row.insert, Reason::NoPrivilege),
        (row.rls, Reason::RowSecurity),
        (row.trigger, Reason::Trigger),
        (row.rule, Reason::Rule),
        (row.checks.iter().flatten().any(|check| check.calls || !is_steady(&check.functions)), Reason::CheckCalls),
    ];
    rules.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
}

/// Whether every function that a CHECK constraint calls gives the same result later as now.
fn is_steady(functions: &Option<Vec<String>>) -> bool {
    functions.iter().flatten().all(|name| harmless::is_steady(name))
}

fn column(row: &ColumnRow) -> Column {
    let kind = match row.type_kind.as_str() {
        _ if row.is_array => TypeKind::Array(row.element),
        "e" => TypeKind::Enum,
        "c" => TypeKind::Composite,
        _ => TypeKind::Plain,
    };
    Column {
        name: row.name.clone(),
        type_oid: row.type_oid,
        type_name: row.type_name.clone(),
        type_sql: row.type_sql.clone(),
        base_sql: row.base_sql.clone(),
        array_oid: row.array,
        base_oid: row.base,
        modifier: row.modifier,
        kind,
        not_null: row.not_null,
        generated: row.generated,
        always_identity: row.identity == "a",
        deterministic: row.deterministic,
        default: default(row),
        is_default_shared: !row.calls
            && !row.hides_default
            && row.functions.iter().flatten().all(|name| defaults::is_shared_function(name))
            && row.default.as_deref().or(row.domain_default.as_deref()).is_none_or(defaults::is_shared),
    }
}

fn default(row: &ColumnRow) -> Default {
    if row.generated {
        return Default::Null;
    }
    let is_identity = !row.identity.is_empty();
    let is_integer = matches!(row.base, oid::INT2 | oid::INT4 | oid::INT8);
    let expression = row.default.as_deref().or(row.domain_default.as_deref());
    match (&row.sequence, expression) {
        (Some(sequence), None) if is_identity => sequence_default(sequence),
        // Where the column is no integer, a cast stands around it that `pg_get_expr` does not show.
        (Some(sequence), Some(expression)) if is_integer && defaults::is_plain_nextval(expression) => {
            sequence_default(sequence)
        }
        _ if row.hides_default => Default::Unfit(Reason::VolatileDefault),
        (_, Some(_)) if row.calls => Default::Unfit(Reason::VolatileDefault),
        (_, Some(expression)) => defaults::understand(expression, row.base, row.modifier),
        (_, None) if is_identity => Default::Unfit(Reason::SequenceUnknown),
        (_, None) => Default::Null,
    }
}

fn sequence_default(row: &SequenceRow) -> Default {
    if row.cycle {
        return Default::Unfit(Reason::SequenceCycles);
    }
    if row.caches {
        return Default::Unfit(Reason::SequenceCaches);
    }
    if !row.usable {
        return Default::Unfit(Reason::SequencePrivilege);
    }
    Default::Sequence(Sequence {
        oid: row.oid,
        name: row.name.clone(),
        descending: row.increment < 0,
        always_reserve: false,
    })
}

fn link_foreign_keys(raw: &[TableRow], tables: &mut [Table], positions: &HashMap<u32, usize>) {
    let place = |row: &TableRow, number: i32| row.columns.iter().flatten().position(|column| column.number == number);
    for (child, row) in raw.iter().enumerate() {
        for key in row.foreign_keys.iter().flatten() {
            let columns: Option<Vec<usize>> = key.columns.iter().map(|&n| place(row, n)).collect();
            let Some(columns) = columns else { continue };
            let Some(&parent) = positions.get(&key.table) else { continue };
            let referenced: Option<Vec<usize>> = key.referenced.iter().map(|&n| place(&raw[parent], n)).collect();
            let Some(referenced) = referenced else { continue };
            let types = |table: usize, at: usize| tables[table].columns[at].base_oid;
            let mut pairs = columns.iter().zip(&referenced);
            let is_comparable = pairs.all(|(&from, &to)| stored::same_bytes(types(child, from), types(parent, to)));
            tables[child].foreign_keys.push(ForeignKey { columns, is_comparable });
            let foreign_key = tables[child].foreign_keys.len() - 1;
            for &at in &referenced {
                if let Some(Column { default: Default::Sequence(sequence), .. }) = tables[parent].columns.get_mut(at) {
                    sequence.always_reserve = true;
                }
            }
            tables[parent].referenced_by.push(Reference { table: row.oid, foreign_key, columns: referenced });
        }
    }
}

fn note_sizes(
    indexes: &[limits::IndexRow],
    wide: &[limits::WideRow],
    tables: &mut [Table],
    positions: &HashMap<u32, usize>,
) {
    for row in indexes {
        for &at in row.tables.iter().filter_map(|oid| positions.get(oid)) {
            let Table { sizes, columns, .. } = &mut tables[at];
            sizes.index(row, columns);
        }
    }
    for row in wide {
        for &at in row.tables.iter().filter_map(|oid| positions.get(oid)) {
            let Table { sizes, columns, .. } = &mut tables[at];
            sizes.wide(row, columns);
        }
    }
    for table in tables {
        table.sizes.complete(&table.columns);
    }
}

/// Numbers tables by the least position of those that foreign keys tie them to.
fn number_islands(tables: &mut [Table], positions: &HashMap<u32, usize>) {
    for (at, table) in tables.iter_mut().enumerate() {
        table.island = at;
    }
    let tied = |(at, table): (usize, &Table)| {
        let others = table.referenced_by.iter().filter_map(|reference| positions.get(&reference.table).copied());
        others.map(move |other| (at, other)).collect::<Vec<_>>()
    };
    let ties: Vec<(usize, usize)> = tables.iter().enumerate().flat_map(tied).collect();
    loop {
        let mut is_done = true;
        for &(one, other) in &ties {
            let least = tables[one].island.min(tables[other].island);
            for at in [one, other] {
                is_done &= tables[at].island == least;
                tables[at].island = least;
            }
        }
        if is_done {
            break;
        }
    }
}

/// Finds out what does not show in statements: views and cascades of foreign keys hand it on.
fn hidden(raw: &[TableRow], ddl: HashSet<String>) -> Hidden {
    let is_view = |row: &TableRow| row.view.as_ref().is_some_and(|view| view.calls);
    let mut when_read: HashSet<u32> = raw.iter().filter(|row| is_view(row)).map(|row| row.oid).collect();
    let fires = |row: &TableRow| {
        row.change_rule
            || row.changes.iter().flatten().any(|source| !harmless::is_quiet_trigger(source))
            || row.checks.iter().flatten().any(|check| check.calls)
    };
    let mut when_changed: HashSet<u32> = raw.iter().filter(|row| fires(row)).map(|row| row.oid).collect();
    let keys = || raw.iter().flat_map(|row| row.foreign_keys.iter().flatten().map(move |key| (row.oid, key)));
    when_changed.extend(keys().filter(|(_, key)| key.sets_default).map(|(_, key)| key.table));
    loop {
        let before = (when_read.len(), when_changed.len());
        for row in raw {
            let reads = row.view.iter().flat_map(|view| view.reads.iter().flatten());
            for read in reads {
                if when_read.contains(read) {
                    when_read.insert(row.oid);
                }
                if when_changed.contains(read) {
                    when_changed.insert(row.oid);
                }
            }
        }
        for (child, key) in keys() {
            if key.cascades && when_changed.contains(&child) {
                when_changed.insert(key.table);
            }
        }
        if before == (when_read.len(), when_changed.len()) {
            break;
        }
    }
    let names =
        |oids: &HashSet<u32>| raw.iter().filter(|row| oids.contains(&row.oid)).map(|row| row.name.clone()).collect();
    Hidden { when_read: names(&when_read), when_changed: names(&when_changed), ddl }
}

/// A default or a function that calls `currval` or `lastval` would see the last id of a reserved block: the sequences
/// that it may mean are left to Postgres. Those that its text names, or all where it names none.
fn mark_read_sequences(raw: &[TableRow], readers: &[String], tables: &mut [Table]) {
    let columns = || raw.iter().flat_map(|row| row.columns.iter().flatten());
    let expressions = columns().filter_map(|column| column.default.as_ref().or(column.domain_default.as_ref()));
    let is_reader = |text: &str| text.contains("currval") || text.contains("lastval");
    let texts = expressions.chain(readers).map(|text| text.to_lowercase()).filter(|text| is_reader(text));
    let known = || columns().filter_map(|column| column.sequence.as_ref());
    let names = |text: &str, sequence: &SequenceRow| text.contains(&sequence.bare.to_lowercase());
    let mut read: Vec<u32> = Vec::new();
    for text in texts {
        let is_any = text.contains("lastval") || !known().any(|sequence| names(&text, sequence));
        read.extend(known().filter(|sequence| is_any || names(&text, sequence)).map(|sequence| sequence.oid));
    }
    for column in tables.iter_mut().flat_map(|table| &mut table.columns) {
        if matches!(&column.default, Default::Sequence(sequence) if read.contains(&sequence.oid)) {
            column.default = Default::Unfit(Reason::SequenceRead);
        }
    }
}

fn mark_shared_sequences(tables: &mut [Table]) {
    let mut uses: HashMap<u32, usize> = HashMap::new();
    for sequence in tables.iter().flat_map(Table::sequences) {
        *uses.entry(sequence.oid).or_default() += 1;
    }
    for column in tables.iter_mut().flat_map(|table| &mut table.columns) {
        if let Default::Sequence(sequence) = &mut column.default {
            sequence.always_reserve |= uses.get(&sequence.oid).is_some_and(|&uses| uses > 1);
        }
    }
}

/// Catalogs for tests, made of rows as Postgres would give them.
#[cfg(test)]
pub(crate) mod testing {
    use serde_json::{Value, json};

    use super::*;

    /// Named types: what a test writes, and what the catalog says of it.
    const TYPES: &[(&str, u32, u32, &str)] = &[
        ("bool", 16, 1000, "boolean"),
        ("bytea", 17, 1001, "bytea"),
        ("int8", 20, 1016, "bigint"),
        ("int2", 21, 1005, "smallint"),
        ("int4", 23, 1007, "integer"),
        ("text", 25, 1009, "text"),
        ("json", 114, 199, "json"),
        ("cidr", 650, 651, "cidr"),
        ("float8", 701, 1022, "double precision"),
        ("inet", 869, 1041, "inet"),
        ("bpchar", 1042, 1014, "bpchar"),
        ("varchar", 1043, 1015, "character varying"),
        ("date", 1082, 1182, "date"),
        ("time", 1083, 1183, "time without time zone"),
        ("timestamp", 1114, 1115, "timestamp without time zone"),
        ("timestamptz", 1184, 1185, "timestamp with time zone"),
        ("numeric", 1700, 1231, "numeric"),
        ("uuid", 2950, 2951, "uuid"),
        ("jsonb", 3802, 3807, "jsonb"),
        ("int4range", 3904, 3905, "int4range"),
        ("mood", MOOD, MOOD + 1, "mood"),
        ("pair", 50_010, 50_011, "pair"),
    ];
    /// An enum type of the labels `sad` and `happy`.
    pub(crate) const MOOD: u32 = 50_000;
    /// What the session of [`rows`] is.
    pub(crate) const IDENTITY: &str = "{pg_catalog,public} as me";

    pub(crate) struct TableRow(Value, Vec<Key>);

    /// Columns that refer to a table and its columns.
    type Key = (Vec<&'static str>, &'static str, Vec<&'static str>);

    pub(crate) struct ColumnRow(Value);

    /// An ordinary, visible table in the schema `public`.
    pub(crate) fn table(name: &str) -> TableRow {
        let row = json!({
            "oid": 0, "schema": "public", "name": name, "kind": "r", "visible": true, "insert": true, "select": true,
            "rls": false, "trigger": false, "rule": false, "changes": null, "change_rule": false, "view": null, "foreign": false, "checks": null, "columns": [],
        });
        TableRow(row, Vec::new())
    }

    /// A column that may be NULL and has no default, of a type such as `int4`, `varchar(5)`, `numeric(6,2)`, `text[]`.
    pub(crate) fn column(name: &str, sql_type: &str) -> ColumnRow {
        let (element, is_array) = sql_type.strip_suffix("[]").map_or((sql_type, false), |element| (element, true));
        let (bare, modifier) = element.split_once('(').map_or((element, None), |(bare, rest)| (bare, Some(rest)));
        let &(type_name, oid, array, sql) = TYPES.iter().find(|(known, ..)| *known == bare).unwrap();
        let type_kind = match oid {
            MOOD => "e",
            50_010 => "c",
            _ => "b",
        };
        let (oid, array, element) = if is_array { (array, 0, oid) } else { (oid, array, 0) };
        ColumnRow(json!({
            "name": name, "number": 0, "type": oid, "type_name": type_name, "type_sql": sql, "base_sql": sql,
            "array": array, "type_kind": type_kind, "base": oid, "modifier": modifier.map_or(-1, |m| encode(bare, m)),
            "is_array": is_array, "element": element, "domain_default": null, "not_null": false, "generated": false,
            "identity": "", "default": null, "deterministic": true, "sequence": null,
        }))
    }

    /// `atttypmod` of what follows `type(`.
    fn encode(sql_type: &str, modifier: &str) -> i32 {
        let numbers: Vec<i32> = modifier.trim_end_matches(')').split(',').map(|n| n.parse().unwrap()).collect();
        match (sql_type, numbers.as_slice()) {
            ("numeric", [precision, scale]) => ((precision << 16) | (scale & 0x7ff)) + 4,
            ("timestamp" | "timestamptz" | "time", [digits]) => *digits,
            (_, [length]) => length + 4,
            _ => panic!("{sql_type}({modifier}"),
        }
    }

    impl TableRow {
        /// Replaces what [`table`] says.
        pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
            self.0[key] = value.into();
            self
        }

        pub(crate) fn column(mut self, mut column: ColumnRow) -> Self {
            let columns = self.0["columns"].as_array_mut().unwrap();
            column.0["number"] = (columns.len() + 1).into();
            columns.push(column.0);
            self
        }

        /// A CHECK constraint that calls these functions beside immutable ones; `calls` says whether one of the user's is not
        /// immutable.
        pub(crate) fn check(self, functions: &[&str], calls: bool) -> Self {
            self.with("checks", json!([{ "functions": functions, "calls": calls }]))
        }

        /// A foreign key.
        pub(crate) fn references(mut self, columns: &[&'static str], table: &'static str, to: &[&'static str]) -> Self {
            self.1.push((columns.to_vec(), table, to.to_vec()));
            self
        }
    }

    impl ColumnRow {
        /// Replaces what [`column`] says.
        pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
            self.0[key] = value.into();
            self
        }

        pub(crate) fn not_null(self) -> Self {
            self.with("not_null", true)
        }

        pub(crate) fn default(self, expression: &str) -> Self {
            self.with("default", expression)
        }

        /// `nextval` of the sequence `public.s<oid>` is the default.
        pub(crate) fn serial(self, sequence: u32) -> Self {
            self.not_null().default(&format!("nextval('s{sequence}'::regclass)")).sequence(sequence, "usable", true)
        }

        /// GENERATED ALWAYS (`a`) or BY DEFAULT (`d`) AS IDENTITY.
        pub(crate) fn identity(self, kind: &str, sequence: u32) -> Self {
            self.not_null().with("identity", kind).sequence(sequence, "usable", true)
        }

        /// The sequence that the default depends on, with one thing said otherwise.
        pub(crate) fn sequence(self, oid: u32, key: &str, value: impl Into<Value>) -> Self {
            let name = format!("public.s{oid}");
            let mut row =
                json!({ "oid": oid, "name": name, "increment": 1, "cycle": false, "caches": false, "usable": true });
            row[key] = value.into();
            self.with("sequence", row)
        }

        /// Of a domain over the type.
        pub(crate) fn domain(self, oid: u32, name: &str) -> Self {
            self.with("type", oid)
                .with("array", oid + 1)
                .with("type_name", name)
                .with("type_sql", name)
                .with("type_kind", "d")
        }
    }

    /// The rows that the catalog query would bring for these tables.
    pub(crate) fn rows(tables: impl IntoIterator<Item = TableRow>) -> Vec<TextRow> {
        let mut tables: Vec<TableRow> = tables.into_iter().collect();
        for (at, table) in tables.iter_mut().enumerate() {
            table.0["oid"] = (at + 100).into();
        }
        let keys: Vec<Value> =
            tables.iter().map(|table| table.1.iter().map(|key| foreign_key(&tables, table, key)).collect()).collect();
        let tables = tables.into_iter().zip(keys).map(|(table, keys)| row("table", table.with("foreign_keys", keys).0));
        let labels = json!({ "oid": MOOD, "labels": ["sad", "happy"] });
        [session("UTF8"), row("enum", labels)].into_iter().chain(tables).collect()
    }

    /// The row about the session, on a server with this encoding.
    pub(crate) fn session(encoding: &str) -> TextRow {
        let session = json!({ "version": 150_000, "product": "PostgreSQL 15", "encoding": encoding, "identity": IDENTITY,
                "isolation": "read committed", "event_triggers": false, "read_only": false, "own_operators": false });
        row("session", session)
    }

    pub(crate) fn row(what: &str, json: Value) -> TextRow {
        vec![Some(what.to_owned()), Some(json.to_string())]
    }

    fn foreign_key(tables: &[TableRow], child: &TableRow, (columns, parent, to): &Key) -> Value {
        let parent = tables.iter().find(|table| table.0["name"] == *parent).unwrap();
        let numbers = |table: &TableRow, names: &[&str]| -> Vec<Value> {
            let columns = table.0["columns"].as_array().unwrap();
            names.iter().map(|name| columns.iter().find(|c| c["name"] == *name).unwrap()["number"].clone()).collect()
        };
        json!({ "table": parent.0["oid"], "columns": numbers(child, columns), "referenced": numbers(parent, to),
            "cascades": false, "sets_default": false })
    }

    /// What [`Catalog::read`] makes of these tables.
    pub(crate) fn catalog(tables: impl IntoIterator<Item = TableRow>) -> Arc<Catalog> {
        Arc::new(Catalog::read(&rows(tables), 0).unwrap())
    }

    /// A catalog of one table `t` with one column `c`, and that table.
    pub(crate) fn one_column(column: ColumnRow) -> (Arc<Catalog>, Arc<Table>) {
        let catalog = catalog([table("t").column(column.with("name", "c"))]);
        let table = Arc::clone(&catalog.tables()[0]);
        (catalog, table)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::{IDENTITY, catalog, column, one_column, row, rows, table};
    use super::*;

    fn named(schema: Option<&str>, name: &str) -> TableName {
        TableName { schema: schema.map(str::to_owned), name: name.to_owned() }
    }

    fn unfit(row: testing::TableRow) -> Option<Reason> {
        catalog([row.column(column("c", "text"))]).tables()[0].unfit
    }

    #[test]
    fn a_plain_or_partitioned_table_is_fit() {
        assert_eq!(unfit(table("t")), None);
        assert_eq!(unfit(table("t").with("kind", "p")), None);
    }

    #[test]
    fn what_postgres_does_beside_the_insert_makes_a_table_unfit() {
        for kind in ["v", "m", "f"] {
            assert_eq!(unfit(table("t").with("kind", kind)), Some(Reason::NotATable), "{kind}");
        }
        assert_eq!(unfit(table("t").with("kind", "p").with("foreign", true)), Some(Reason::NotATable));
        assert_eq!(unfit(table("t").with("insert", false)), Some(Reason::NoPrivilege));
        assert_eq!(unfit(table("t").with("rls", true)), Some(Reason::RowSecurity));
        assert_eq!(unfit(table("t").with("trigger", true)), Some(Reason::Trigger));
        assert_eq!(unfit(table("t").with("rule", true)), Some(Reason::Rule));
    }

    #[test]
    fn a_check_may_call_only_functions_that_never_change_their_mind() {
        let check = |functions: &[&str]| unfit(table("t").check(functions, false));
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["now"]), None);
        assert_eq!(check(&["clock_timestamp"]), Some(Reason::CheckCalls));
        assert_eq!(check(&["now", "random"]), Some(Reason::CheckCalls));
        assert_eq!(check(&["2200.upper"]), Some(Reason::CheckCalls));
        assert_eq!(check(&["?"]), Some(Reason::CheckCalls));
        assert_eq!(unfit(table("t").check(&[], true)), Some(Reason::CheckCalls));
    }

    #[test]
    fn a_default_is_what_its_sequence_and_its_text_say() {
        let default = |row| one_column(row).1.columns[0].default.in_words();
        assert_eq!(default(column("c", "int4")), "null");
        assert_eq!(default(column("c", "int4").default("5")), "constant 5");
        assert_eq!(default(column("c", "int4").serial(7)), "sequence 7");
        assert_eq!(default(column("c", "int4").identity("a", 7)), "sequence 7");
        assert_eq!(default(column("c", "int4").with("domain_default", "3")), "constant 3");
        assert_eq!(default(column("c", "int4").serial(7).with("generated", true)), "null");
        assert_eq!(default(column("c", "timestamptz").default("now()")), "now");
        assert_eq!(default(column("c", "uuid").default("gen_random_uuid()")), "uuid");
    }

    #[test]
    fn a_sequence_that_the_engine_cannot_use_like_postgres_is_unfit() {
        let default = |row| match &one_column(row).1.columns[0].default {
            Default::Unfit(reason) => Some(*reason),
            _ => None,
        };
        let serial = |key: &str, value: bool| column("c", "int4").serial(7).sequence(7, key, value);
        assert_eq!(default(serial("cycle", true)), Some(Reason::SequenceCycles));
        assert_eq!(default(serial("usable", false)), Some(Reason::SequencePrivilege));
        let expression = column("c", "int4").default("(nextval('s7'::regclass) * 10)").sequence(7, "usable", true);
        assert_eq!(default(expression), Some(Reason::SequenceExpression));
        let lost = column("c", "int4").with("identity", "d");
        assert_eq!(default(lost), Some(Reason::SequenceUnknown));
    }

    impl Default {
        fn in_words(&self) -> String {
            match self {
                Self::Null => "null".into(),
                Self::Constant(sql) => format!("constant {sql}"),
                Self::Sequence(sequence) => format!("sequence {}", sequence.oid),
                Self::Now(..) => "now".into(),
                Self::RandomUuid(_) => "uuid".into(),
                Self::Unfit(reason) => format!("unfit: {reason}"),
            }
        }
    }

    #[test]
    fn a_sequence_behind_a_column_that_is_no_integer_is_an_expression() {
        let default = |row| one_column(row).1.columns[0].default.in_words();
        let text = column("c", "text").default("nextval('s7'::regclass)").sequence(7, "usable", true);
        assert_eq!(default(text), format!("unfit: {}", Reason::SequenceExpression));
        let domain = column("c", "int8").domain(60_000, "key").serial(7);
        assert_eq!(default(domain), "sequence 7");
    }

    #[test]
    fn same_named_tables_in_different_schemas_never_mix() {
        let catalog = catalog([
            table("t").column(column("mine", "int4")),
            table("t").with("schema", "other").with("visible", false).column(column("theirs", "int4")),
        ]);
        let column = |schema, name| catalog.table(&named(schema, name)).map(|t| t.columns[0].name.clone());
        assert_eq!(column(None, "t").as_deref(), Some("mine"));
        assert_eq!(column(Some("public"), "t").as_deref(), Some("mine"));
        assert_eq!(column(Some("other"), "t").as_deref(), Some("theirs"));
        assert_eq!(column(Some("third"), "t"), None);
        assert_eq!(column(None, "T"), None);
    }

    #[test]
    fn a_table_that_is_not_visible_is_found_only_by_its_full_name() {
        let catalog = catalog([table("t").with("schema", "other").with("visible", false)]);
        assert!(catalog.table(&named(None, "t")).is_none());
        assert!(catalog.table(&named(Some("other"), "t")).is_some());
    }

    #[test]
    fn ids_are_always_reserved_where_others_use_the_sequence_or_refer_to_the_column() {
        let catalog = catalog([
            table("alone").column(column("id", "int4").serial(1)),
            table("one").column(column("id", "int4").serial(2)),
            table("two").column(column("id", "int4").serial(2)),
            table("parent").column(column("id", "int4").serial(3)),
            table("child").column(column("id", "int4").serial(4)).column(column("parent", "int4")).references(
                &["parent"],
                "parent",
                &["id"],
            ),
        ]);
        let always: Vec<bool> = catalog
            .tables()
            .iter()
            .flat_map(|table| table.sequences())
            .map(|sequence| sequence.always_reserve)
            .collect();
        assert_eq!(always, [false, true, true, true, false]);
    }

    #[test]
    fn foreign_keys_are_known_from_both_sides() {
        let catalog = catalog([
            table("parent").column(column("a", "int4")).column(column("b", "int4")),
            table("child").column(column("x", "int4")).column(column("y", "int4")).references(
                &["y", "x"],
                "parent",
                &["a", "b"],
            ),
        ]);
        let [parent, child] = catalog.tables() else { panic!("two tables") };
        assert_eq!(child.foreign_keys[0].columns, [1, 0]);
        assert_eq!((parent.referenced_by[0].table, &parent.referenced_by[0].columns[..]), (child.oid, &[0, 1][..]));
    }

    #[test]
    fn another_product_or_an_old_version_is_refused() {
        let read = |version: u32, product: &str| {
            let session = json!({ "version": version, "product": product, "encoding": "UTF8", "identity": IDENTITY,
                "isolation": "read committed", "event_triggers": false, "read_only": false, "own_operators": false });
            Catalog::read(&[row("session", session)], 0).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(read(130_000, "PostgreSQL 13.0"), Ok(()));
        assert!(read(120_011, "PostgreSQL 12.11").unwrap_err().contains("13 or later"));
        assert!(read(130_000, "CockroachDB CCL v23").unwrap_err().contains("CockroachDB"));
    }

    #[test]
    fn rows_that_make_no_sense_are_an_error_and_no_panic() {
        let read = |rows: &[TextRow]| Catalog::read(rows, 0).map(|_| ()).map_err(|error| error.to_string());
        assert!(read(&[]).unwrap_err().contains("no row about the session"));
        assert!(read(&[vec![None]]).is_err());
        assert!(read(&[row("table", json!({ "oid": 1 }))]).is_err());
        let mut without_session = rows([table("t")]);
        without_session.remove(0);
        assert!(read(&without_session).is_err());
    }
}
