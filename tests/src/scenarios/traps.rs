//! The ten traps of the issue, each with all that its sentence names.

use batch_core::{BatchOptions, Reason};

use super::both::{Both, ROLE, same};
use crate::{Adapter, Batching, Outcome, Session, Value, World};

/// So many times the same statement in a transaction; each answer.
fn times<S: Session>(conn: &mut S, times: usize, sql: &str) -> Outcome<Vec<Vec<Vec<crate::Cell>>>> {
    conn.transaction(|conn| (0..times).map(|_| conn.rows(sql, &[])).collect())
}

/// Trap 1 is `order::interleaved_cycles_of_foreign_keys_need_no_sorting` and `order::self_references_need_no_sorting`;
/// here with constraints that act on the rows they refer to.
pub fn a_cycle_with_cascades_ends_as_it_would<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE x (id serial PRIMARY KEY, y_id int); CREATE TABLE y (id serial PRIMARY KEY, x_id int REFERENCES x ON DELETE CASCADE);
         ALTER TABLE x ADD FOREIGN KEY (y_id) REFERENCES y ON DELETE SET NULL",
    );
    same!(both, |conn| {
        conn.transaction(|conn| {
            let mut deleted = Vec::new();
            for _ in 0..4 {
                let x1 = conn.one("INSERT INTO x DEFAULT VALUES RETURNING id", &[])?.int() as i32;
                let y1 = conn.one("INSERT INTO y (x_id) VALUES ($1) RETURNING id", &[Value::int4(x1)])?.int() as i32;
                let x2 = conn.one("INSERT INTO x (y_id) VALUES ($1) RETURNING id", &[Value::int4(y1)])?.int() as i32;
                conn.run("INSERT INTO y (x_id) VALUES ($1)", &[Value::int4(x2)])?;
                deleted.push(conn.run("DELETE FROM x WHERE id = $1", &[Value::int4(x1)])?);
            }
            Ok(deleted)
        })
        .unwrap()
    });
    both.same_rows("SELECT * FROM x ORDER BY id");
    both.same_rows("SELECT * FROM y ORDER BY id");
}

/// Trap 2.
pub fn a_table_with_a_trigger_or_a_rule_is_sent_row_by_row<A: Adapter>() {
    const LOG: &str = "CREATE TABLE log (id serial, line text); CREATE TABLE t (id serial, a int);
        CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO log (line) VALUES (TG_OP || ' ' || TG_LEVEL || ' ' || (SELECT count(*) FROM t) || ' ' || txid_status(txid_current()));
            RETURN NEW; END $$;
        CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.a % 3 = 0 THEN RETURN NULL; END IF; NEW.a := NEW.a * 10; RETURN NEW; END $$; ";
    for (trigger, reason) in [
        ("CREATE TRIGGER r AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION log()", Some(Reason::Trigger)),
        ("CREATE TRIGGER r AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION log()", Some(Reason::Trigger)),
        ("CREATE TRIGGER r BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION log()", Some(Reason::Trigger)),
        ("CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION change()", Some(Reason::Trigger)),
        (
            "CREATE TRIGGER r BEFORE INSERT OR UPDATE ON t FOR EACH ROW WHEN (NEW.a > 2) EXECUTE FUNCTION change()",
            Some(Reason::Trigger),
        ),
        (
            "CREATE CONSTRAINT TRIGGER r AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log()",
            Some(Reason::Trigger),
        ),
        (
            "CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO log (line) VALUES ('rule ' || NEW.a)",
            Some(Reason::Rule),
        ),
        ("CREATE RULE r AS ON INSERT TO t WHERE NEW.a = 2 DO INSTEAD NOTHING", Some(Reason::Rule)),
        ("CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING", Some(Reason::Rule)),
        // These do not see an INSERT.
        ("CREATE TRIGGER r AFTER UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION log()", None),
        (
            "CREATE TRIGGER r AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION log(); ALTER TABLE t DISABLE TRIGGER r",
            None,
        ),
        ("CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING", None),
    ] {
        let mut both = Both::<A>::new(&format!("{LOG}{trigger}"));
        same!(both, |conn| {
            conn.transaction(|conn| {
                (0..7)
                    .map(|a| conn.run("INSERT INTO t (a) VALUES ($1)", &[Value::int4(a)]))
                    .collect::<Outcome<Vec<_>>>()
            })
            .unwrap()
        });
        both.same_rows("SELECT id, a FROM t ORDER BY ctid");
        both.same_rows("SELECT id, line FROM log ORDER BY ctid");
        let stats = both.world.conn.stats();
        match reason {
            Some(reason) => assert_eq!((stats.inserts_deferred, stats.inserts_sent[&reason]), (0, 7), "{trigger}"),
            None => assert_eq!(stats.inserts_deferred, 7, "{trigger}"),
        }
    }
}

/// Trap 2: what a trigger of one table does with the rows of another.
pub fn a_trigger_sees_the_rows_that_waited<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE posts (id serial PRIMARY KEY, comments int DEFAULT 0); CREATE TABLE comments (post_id int, line text);
         CREATE FUNCTION recount() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE posts SET comments = comments + 1 WHERE id = NEW.post_id; RETURN NULL; END $$;
         CREATE TRIGGER count AFTER INSERT ON comments FOR EACH ROW EXECUTE FUNCTION recount()",
    );
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 0..5 {
                let post = conn.one("INSERT INTO posts DEFAULT VALUES RETURNING id", &[])?.int();
                for _ in 0..n {
                    conn.run("INSERT INTO comments (post_id) VALUES ($1)", &[Value::int4(post as i32)])?;
                }
            }
            Ok(())
        })
        .unwrap()
    });
    let posts = both.same_rows("SELECT sum(comments) FROM posts");
    assert_eq!(posts, [[Some("10".to_owned())]]);
}

/// Trap 2: a trigger of a partition, and one of the table above.
pub fn a_trigger_of_a_partition_counts<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE t (a int) PARTITION BY RANGE (a); CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (5);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (5) TO (10); CREATE TABLE log (a int);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log SELECT count(*) FROM t; RETURN NEW; END $$;
         CREATE TRIGGER r AFTER INSERT ON high FOR EACH ROW EXECUTE FUNCTION log()",
    );
    same!(both, |conn| {
        conn.transaction(|conn| {
            (0..10).try_for_each(|a| conn.run("INSERT INTO t (a) VALUES ($1)", &[Value::int4(a)]).map(drop))
        })
        .unwrap()
    });
    both.same_rows("SELECT a FROM log ORDER BY ctid");
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::Trigger], 10);
}

/// Trap 3: a setting that a default reads.
pub fn a_default_that_reads_a_setting_reads_it_when_the_row_was_created<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE SCHEMA s; CREATE TABLE t (n int, tenant text DEFAULT current_setting('my.tenant', true), who text DEFAULT current_user,
            path text DEFAULT current_schema, zone text DEFAULT now()::text, at timestamp DEFAULT now(), app text DEFAULT current_setting('application_name'))",
    );
    same!(both, |conn| {
        conn.transaction(|conn| {
            let mut n = 0;
            for set in [
                "SET LOCAL my.tenant = 'a'",
                "SET my.tenant = 'b'",
                "SELECT set_config('my.tenant', 'c', true)",
                "SET LOCAL TIME ZONE 'Asia/Kathmandu'",
                "SET LOCAL search_path = s, public",
                "SET LOCAL application_name = 'another'",
                "RESET my.tenant",
                "SAVEPOINT a; SET LOCAL my.tenant = 'd'; ROLLBACK TO a",
                "DO $$ BEGIN PERFORM set_config('my.tenant', 'e', false); END $$",
            ] {
                conn.script(set)?;
                for _ in 0..4 {
                    n += 1;
                    conn.run("INSERT INTO public.t (n) VALUES ($1)", &[Value::int4(n)])?;
                }
                n += 1;
                conn.rows(
                    "INSERT INTO public.t (n) VALUES ($1) RETURNING n, tenant, who, path, app",
                    &[Value::int4(n)],
                )?;
            }
            Ok(())
        })
        .unwrap()
    });
    both.same_rows("SELECT n, tenant, who, path, app, at - now()::timestamp < interval '1 day' FROM t ORDER BY n");
    // `now()` differs between the two: what the time zone made of it does not.
    both.same_rows("SELECT n, right(zone, 6) LIKE '%+05:45%' FROM t ORDER BY n");
    both.same_rows("SELECT count(DISTINCT at) FROM t");
    assert!(both.world.conn.stats().inserts_deferred > 15, "{}", both.world.conn.stats());
}

/// Trap 3: row-level security that reads a setting or the role.
pub fn row_level_security_sees_each_row_with_its_settings<A: Adapter>() {
    let schema = format!(
        "CREATE TABLE t (tenant text, n int); GRANT ALL ON t TO {ROLE}; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (tenant = current_setting('my.tenant')) WITH CHECK (tenant = current_setting('my.tenant'))"
    );
    let mut both = Both::<A>::new(&schema);
    let failure = same!(both, |conn| {
        let insert = "INSERT INTO t (tenant, n) VALUES ($1, $2)";
        conn.transaction(|conn| {
            // The owner is not bound by it.
            conn.run(insert, &[Value::text("any"), Value::int4(0)])?;
            conn.run(insert, &[Value::text("any"), Value::int4(0)])?;
            conn.script(&format!("SET LOCAL ROLE {ROLE}"))?;
            for (n, tenant) in ["a", "b", "a"].into_iter().enumerate() {
                conn.script(&format!("SET LOCAL my.tenant = '{tenant}'"))?;
                for m in 0..3 {
                    conn.run(insert, &[Value::text(tenant), Value::int4((10 * n + m) as i32)])?;
                }
            }
            conn.script("RESET ROLE")?;
            (0..3).try_for_each(|_| conn.run(insert, &[Value::text("any"), Value::int4(1)]).map(drop))
        })
        .unwrap();
        conn.transaction(|conn| {
            conn.script(&format!("SET LOCAL ROLE {ROLE}; SET LOCAL my.tenant = 'a'"))?;
            conn.run(insert, &[Value::text("a"), Value::int4(1)])?;
            conn.run(insert, &[Value::text("a"), Value::int4(1)])?;
            let failure = conn.run(insert, &[Value::text("b"), Value::int4(1)]).unwrap_err();
            Err::<(), _>(failure)
        })
        .unwrap_err()
    });
    assert!(failure.message.contains("violates row-level security policy"), "{failure}");
    both.same_rows("SELECT * FROM t ORDER BY ctid");
    let stats = both.world.conn.stats();
    assert!(stats.inserts_sent[&Reason::RowSecurity] >= 5, "{stats}");
    assert!(stats.inserts_deferred >= 3, "{stats}");
}

/// Trap 3: the role that inserts, where defaults and privileges follow it.
pub fn a_role_that_changes_between_inserts_inserts_as_itself<A: Adapter>() {
    let mut both = Both::<A>::new(&format!(
        "CREATE TABLE t (who text DEFAULT current_user, n int); GRANT INSERT, SELECT ON t TO {ROLE}"
    ));
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 0..12 {
                match n % 4 {
                    0 => conn.script(&format!("SET LOCAL ROLE {ROLE}"))?,
                    2 => conn.script("SET LOCAL ROLE NONE")?,
                    _ => {}
                }
                for _ in 0..3 {
                    conn.run("INSERT INTO t (n) VALUES ($1)", &[Value::int4(n)])?;
                }
            }
            Ok(())
        })
        .unwrap()
    });
    both.same_rows(&format!("SELECT n, who = '{ROLE}' FROM t ORDER BY ctid"));
}

/// Trap 4: expression values and non-constant defaults.
pub fn a_default_that_changes_is_taken_when_the_row_is_created<A: Adapter>() {
    let mut world = World::<A>::new(
        "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0);
         CREATE FUNCTION tick() RETURNS int LANGUAGE sql AS 'UPDATE counter SET n = n + 1 RETURNING n';
         CREATE TABLE clock (n int, at timestamptz DEFAULT clock_timestamp());
         CREATE TABLE dice (n int, pips float8 DEFAULT random()); CREATE TABLE ticks (n int, tick int DEFAULT tick())",
    );
    world
        .conn
        .transaction(|conn| {
            for n in 0..5 {
                let before = conn.one("SELECT clock_timestamp()", &[])?.int();
                let at = conn.one("INSERT INTO clock (n) VALUES ($1) RETURNING at", &[Value::int4(n)])?.int();
                conn.run("INSERT INTO clock (n) VALUES ($1)", &[Value::int4(n)])?;
                let after = conn.one("SELECT clock_timestamp()", &[])?.int();
                assert!(before <= at && at <= after);
                conn.run("INSERT INTO dice (n) VALUES ($1), ($1)", &[Value::int4(n)])?;
                conn.run("INSERT INTO ticks (n) VALUES ($1)", &[Value::int4(n)])?;
                assert_eq!(conn.one("SELECT n FROM counter", &[])?.int(), i64::from(n) + 1);
            }
            // Nothing of this waits, even where nothing flushes in between.
            (0..5).try_for_each(|n| conn.run("INSERT INTO ticks (n) VALUES ($1)", &[Value::int4(n)]).map(drop))?;
            Ok(())
        })
        .unwrap();
    assert_eq!(world.conn.stats().inserts_deferred, 0);
    assert_eq!(world.count("SELECT count(DISTINCT pips) FROM dice"), 10);
    assert_eq!(world.count("SELECT count(DISTINCT tick) FROM ticks"), 10);
}

/// Trap 4: a function of the database's own that is called as a built-in is, and an operator.
pub fn a_function_of_ones_own_is_not_taken_for_a_built_in<A: Adapter>() {
    for default in ["upper()", "concat(1)", "public.lower(5)", "5 ##### 6", "left(true)"] {
        let mut both = Both::<A>::new(&format!(
            "CREATE SEQUENCE s; CREATE FUNCTION upper() RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM s $$;
             CREATE FUNCTION concat(int) RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM s $$;
             CREATE FUNCTION lower(int) RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM s $$;
             CREATE FUNCTION \"left\"(bool) RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM s $$;
             CREATE FUNCTION op(int, int) RETURNS bigint LANGUAGE sql AS $$ SELECT last_value FROM s $$;
             CREATE OPERATOR ##### (LEFTARG = int, RIGHTARG = int, FUNCTION = op);
             CREATE TABLE t (n int, v bigint DEFAULT {default})"
        ));
        same!(both, |conn| {
            conn.begin().unwrap();
            for n in 0..4 {
                conn.run("INSERT INTO t (n) VALUES ($1)", &[Value::int4(n)]).unwrap();
            }
            conn.commit().unwrap();
        });
        both.same_rows("SELECT n, v FROM t ORDER BY n");
        assert_eq!(both.world.conn.stats().inserts_deferred, 0, "{default}: {}", both.world.conn.stats());
    }
}

/// Trap 5: the sequences are in `ids`; here one that another table's column owns, dropped and made again under its name.
pub fn a_sequence_that_was_made_again_is_another_one<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE SEQUENCE s; CREATE TABLE t (id int DEFAULT nextval('s'), name text)");
    let ids = same!(both, |conn| {
        let sql = "INSERT INTO t (name) VALUES ('x') RETURNING id";
        let before = times(conn, 4, sql).unwrap().concat().concat();
        conn.script("DROP SEQUENCE s CASCADE; CREATE SEQUENCE s START 1000").unwrap();
        conn.script("ALTER TABLE t ALTER id SET DEFAULT nextval('s')").unwrap();
        let after = times(conn, 2, sql).unwrap().concat().concat();
        (before.iter().map(crate::Cell::int).collect::<Vec<_>>(), after[0].int())
    });
    assert_eq!(ids, (vec![1, 2, 3, 4], 1_000));
}

/// Trap 7: ON CONFLICT stays right, whether it is sent at once or waits.
pub fn on_conflict_sees_the_rows_that_waited<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE t (id serial PRIMARY KEY, key text UNIQUE, n int DEFAULT 0)");
    same!(both, |conn| {
        conn.transaction(|conn| {
            let mut seen = Vec::new();
            for n in 0..20 {
                let key = Value::text(&(n % 6).to_string());
                if n < 6 && n % 2 == 0 {
                    conn.run("INSERT INTO t (key) VALUES ($1)", std::slice::from_ref(&key))?;
                }
                seen.push(
                    conn.run("INSERT INTO t (key) VALUES ($1) ON CONFLICT DO NOTHING", std::slice::from_ref(&key))?,
                );
                let upsert = "INSERT INTO t (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET n = t.n + 1";
                seen.push(conn.run(upsert, std::slice::from_ref(&key))?);
                let sql = format!("{upsert} WHERE t.n > 3 RETURNING n");
                seen.push(conn.rows(&sql, &[key])?.len());
            }
            Ok(seen)
        })
        .unwrap()
    });
    both.same_rows("SELECT key, n FROM t ORDER BY key");
    assert_eq!(both.world.conn.stats().inserts_sent[&Reason::OnConflict], 40);
}

/// Trap 8: every type of column in one table, some of them NULL, some left out, none of them disturbing another.
pub fn columns_of_every_type_wait_together<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE DOMAIN short AS varchar(5);
         CREATE TABLE t (id serial PRIMARY KEY, a int[], b text[], d short, e mood DEFAULT 'sad', f jsonb, g numeric(8,2), h char(4),
            i varchar(9), j bytea, k uuid, l timestamptz, m inet, n int4range, o boolean, p float8, q date, r json)",
    );
    let columns = "a b d f g h i j k l m n o p q r".split(' ').collect::<Vec<_>>();
    let values = |n: i32| {
        vec![
            Value::int4_array(&(0..n % 3).collect::<Vec<_>>()),
            Value::text_array(&[Some("x"), None, Some("{\"}")]),
            Value::text(&format!("d{n}")),
            Value::jsonb(&format!("{{\"n\":{n}}}")),
            Value::numeric(&format!("{n}.5")),
            Value::text("h"),
            Value::text(&format!("i{n}")),
            Value::bytea(&n.to_be_bytes()),
            Value::uuid([n as u8; 16]),
            Value::timestamptz(i64::from(n) * 1_000_003),
            Value::inet([10, 0, 0, n as u8], 24),
            Value::int4range(n, n + 5),
            Value::bool(n % 2 == 0),
            Value::float8(f64::from(n) / 3.0),
            Value::date(n),
            Value::json("{ }"),
        ]
    };
    same!(both, |conn| {
        conn.transaction(|conn| {
            let mut answers = Vec::new();
            for n in 0..40_usize {
                // Some columns are left out, some of the others are NULL.
                let used: Vec<usize> = (0..columns.len()).filter(|at| (n / 8 + at) % 5 != 4).collect();
                let names: Vec<&str> = used.iter().map(|&at| columns[at]).collect();
                let binds: Vec<Value> = used
                    .iter()
                    .map(|&at| values(n as i32).swap_remove(at))
                    .enumerate()
                    .map(|(at, value)| if (n + at) % 7 == 0 { value.null() } else { value })
                    .collect();
                let marks: Vec<String> = (1..=binds.len()).map(|at| format!("${at}")).collect();
                let sql = format!(
                    "INSERT INTO t ({}) VALUES ({}) RETURNING id, a, b, d, g, h, i, j, k, l, m, o, p, q",
                    names.join(", "),
                    marks.join(", ")
                );
                answers.push(conn.rows(&sql, &binds)?);
            }
            Ok(answers)
        })
        .unwrap()
    });
    both.same_rows("SELECT * FROM t ORDER BY ctid");
    assert!(both.world.conn.stats().inserts_deferred >= 39, "{}", both.world.conn.stats());
}

/// Trap 8: 0 rows and 5,000 rows.
pub fn a_statement_of_no_rows_and_one_of_5000_are_answered<A: Adapter>() {
    // With larger blocks, ids would be thrown away as the statements of no rows are sent.
    let options = BatchOptions::new().max_id_block(1);
    let marks: Vec<String> = (0..5_000).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect();
    let sql = format!("INSERT INTO t (n, name) VALUES {} RETURNING id, n", marks.join(", "));
    let binds: Vec<Value> = (0..5_000).flat_map(|n| [Value::int4(n), Value::text(&format!("name {n}"))]).collect();
    let none = "INSERT INTO t (n, name) SELECT 1, 'x' WHERE 1 = 0 RETURNING id";
    for none_first in [true, false] {
        let mut both = Both::<A>::with("CREATE TABLE t (id serial PRIMARY KEY, n int, name text)", options.clone());
        let answers = same!(both, |conn| {
            conn.transaction(|conn| {
                let mut rows = vec![conn.rows("INSERT INTO t (n) VALUES (-1) RETURNING id", &[])?];
                for is_none in [none_first, !none_first, none_first, !none_first] {
                    rows.push(if is_none { conn.rows(none, &[])? } else { conn.rows(&sql, &binds)? });
                }
                Ok(rows)
            })
            .unwrap()
        });
        let lens: Vec<usize> = answers.iter().map(Vec::len).collect();
        assert_eq!(lens, if none_first { [1, 0, 5_000, 0, 5_000] } else { [1, 5_000, 0, 5_000, 0] });
        both.same_rows("SELECT * FROM t ORDER BY id");
        // Ids that were asked for in vain are not asked for again at once: the 5,000 go as one statement either way.
        let in_vain = if none_first && A::FIRST_USES == 0 { 2 } else { 0 };
        let stats = both.world.conn.stats();
        assert_eq!(stats.inserts_deferred, 3 - A::FIRST_USES - in_vain, "{stats}");
    }
}

/// Trap 9: constraints that are deferred to the commit.
pub fn deferred_constraints_are_checked_at_the_commit<A: Adapter>() {
    let schema =
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p_id int REFERENCES p DEFERRABLE INITIALLY DEFERRED,
        key int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    let child = "INSERT INTO c (p_id, key) VALUES ($1, $2)";
    for (parents, keys, constraint) in
        [(vec![1, 2], [5, 6], None), (vec![1], [5, 6], Some("c_p_id_fkey")), (vec![1, 2], [5, 5], Some("c_key_key"))]
    {
        let mut both = Both::<A>::new(schema);
        let outcome = same!(both, |conn| {
            conn.transaction(|conn| {
                // Children first: that is what they are deferred for.
                conn.run(child, &[Value::int4(1), Value::int4(keys[0])])?;
                conn.run(child, &[Value::int4(2), Value::int4(keys[1])])?;
                parents
                    .iter()
                    .try_for_each(|&id| conn.run("INSERT INTO p VALUES ($1)", &[Value::int4(id)]).map(drop))?;
                conn.one("SELECT count(*) FROM c", &[])
            })
        });
        assert_eq!(outcome.as_ref().err().and_then(|failure| failure.constraint.as_deref()), constraint, "{outcome:?}");
        both.same_rows("SELECT * FROM c ORDER BY 1");
    }
}

/// Trap 9: `SET CONSTRAINTS … IMMEDIATE` checks the rows that waited, and makes the next ones fail at the flush.
pub fn set_constraints_immediate_checks_the_rows_that_waited<A: Adapter>() {
    let schema = "CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE c (id int, p_id int CONSTRAINT parent REFERENCES p DEFERRABLE INITIALLY DEFERRED)";
    let mut both = Both::<A>::new(schema);
    let failures = same!(both, |conn| {
        let child = "INSERT INTO c (id, p_id) VALUES ($1, $2)";
        let mut failures = Vec::new();
        for set in ["SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS parent IMMEDIATE"] {
            // Before: the statement itself fails.
            conn.begin().unwrap();
            conn.run(child, &[Value::int4(1), Value::int4(7)]).unwrap();
            failures.push(conn.script(set).unwrap_err());
            conn.rollback().unwrap();
            // A child before its parent, now that it is checked at once.
            let failure = conn.transaction(|conn| {
                conn.script(set)?;
                conn.run(child, &[Value::int4(1), Value::int4(7)])?;
                conn.run("INSERT INTO p VALUES (7)", &[])
            });
            failures.push(failure.unwrap_err());
            // And back again.
            conn.transaction(|conn| {
                conn.script(set)?;
                conn.script("SET CONSTRAINTS ALL DEFERRED")?;
                conn.run(child, &[Value::int4(1), Value::int4(8)])?;
                conn.run("INSERT INTO p VALUES (8) ON CONFLICT DO NOTHING", &[])
            })
            .unwrap();
        }
        failures
    });
    assert!(failures.iter().all(|failure| failure.constraint.as_deref() == Some("parent")), "{failures:?}");
    both.same_rows("SELECT * FROM c");
}

/// Trap 10: a unique violation inside a nested transaction that the program catches and survives, with work around it.
pub fn a_unique_violation_in_a_nested_transaction_is_survived<A: Adapter>() {
    let mut both = Both::<A>::new(
        "CREATE TABLE users (id serial PRIMARY KEY, name text UNIQUE); CREATE TABLE posts (user_id int REFERENCES users, n int)",
    );
    let outcome = same!(both, |conn| {
        let mut failures = Vec::new();
        conn.transaction(|conn| {
            for (n, name) in ["a", "b", "a", "c", "a", "b"].into_iter().enumerate() {
                let first = conn.insert_name("users", &format!("{name} {n}"))?;
                conn.run("INSERT INTO posts VALUES ($1, $2)", &[Value::int4(first as i32), Value::int4(n as i32)])?;
                let nested = conn.transaction(|conn| {
                    let id = conn.insert_name("users", name)?;
                    conn.run("INSERT INTO posts VALUES ($1, -1)", &[Value::int4(id as i32)])
                });
                if let Err(failure) = nested {
                    failures.push((n, failure));
                }
            }
            Ok(())
        })
        .unwrap();
        failures
    });
    assert_eq!(outcome.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(outcome.iter().all(|(_, failure)| failure.constraint.as_deref() == Some("users_name_key")));
    both.same_rows("SELECT name FROM users ORDER BY name");
    both.same_rows("SELECT name, n FROM posts JOIN users ON users.id = user_id ORDER BY name, n");
}

/// A CHECK constraint that looks at other rows or at the clock is Postgres' to call when the row is created.
pub fn a_check_that_calls_a_function_is_called_row_by_row<A: Adapter>() {
    for check in [
        "CHECK (below(n))",
        "CHECK (starts_with(n))",
        "CHECK (n >= 0 AND clock_timestamp() > now() - interval '1 day')",
    ] {
        let mut both = Both::<A>::new(&format!(
            "CREATE TABLE limits (top int); INSERT INTO limits VALUES (3);
             CREATE FUNCTION below(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 < top FROM limits';
             CREATE FUNCTION starts_with(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 < top FROM limits';
             CREATE TABLE t (n int {check})"
        ));
        same!(both, |conn| times(conn, 3, "INSERT INTO t (n) VALUES (2) RETURNING n").unwrap());
        assert_eq!(both.world.conn.stats().inserts_sent[&Reason::CheckCalls], 3, "{check}");
    }
}
