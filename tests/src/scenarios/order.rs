//! DESIGN.md §2.5: the order in which rows, tables and statements are sent.

use batch_core::BatchOptions;

use super::both::{Both, same};
use crate::{Adapter, Batching, Outcome, Session, Value, World};

const NODES: &str = "CREATE TABLE nodes (id serial PRIMARY KEY, parent_id int REFERENCES nodes, name text)";
const ADD_NODE: &str = "INSERT INTO nodes (parent_id, name) VALUES ($1, $2) RETURNING id";

fn add_node<S: Session>(conn: &mut S, parent: Option<i64>, name: &str) -> Outcome<i64> {
    let parent = match parent {
        Some(id) => Value::int4(id as i32),
        None => Value::int4(0).null(),
    };
    Ok(conn.one(ADD_NODE, &[parent, Value::text(name)])?.int())
}

/// §2.5: rows of one table are inserted in creation order.
pub fn rows_of_one_table_are_inserted_in_creation_order<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE t (n int, kind text, labels text[])");
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 0..200 {
                let n = Value::int4(n);
                match n.bytes.as_ref().unwrap()[3] % 3 {
                    0 => conn.run("INSERT INTO t (n, kind) VALUES ($1, 'kind')", &[n])?,
                    1 => conn.run("INSERT INTO t (kind, n) VALUES (DEFAULT, $1)", &[n])?,
                    _ => conn.run(
                        "INSERT INTO t (n, labels) VALUES ($1, $2)",
                        &[n, Value::text_array(&[Some("a"), Some("b")])],
                    )?,
                };
            }
            Ok(())
        })
        .unwrap()
    });
    both.same_rows("SELECT n, kind, labels FROM t ORDER BY ctid");
    assert_eq!(
        both.world.count("SELECT count(*) FROM (SELECT n < lag(n) OVER (ORDER BY ctid) AS back FROM t) t WHERE back"),
        0
    );
    assert_eq!(both.world.inserts_on_the_wire(), 1);
}

/// §2.5: rows that travel as arrays and rows that cannot, of one table.
pub fn rows_of_one_table_with_arrays_are_in_creation_order_too<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE t (id serial, n int, labels text[])");
    same!(both, |conn| {
        conn.transaction(|conn| {
            (0..50)
                .map(|n| {
                    let labels: Vec<Option<&str>> = vec![Some("x"); n % 4];
                    match n % 2 {
                        0 => conn.rows(
                            "INSERT INTO t (n, labels) VALUES ($1, $2) RETURNING *",
                            &[Value::int4(n as i32), Value::text_array(&labels)],
                        ),
                        _ => conn.rows("INSERT INTO t (n) VALUES ($1) RETURNING *", &[Value::int4(n as i32)]),
                    }
                })
                .collect::<Outcome<Vec<_>>>()
        })
        .unwrap()
    });
    both.same_rows("SELECT id, n, labels FROM t ORDER BY ctid");
}

/// §2.5: across tables the flush is one statement, and foreign keys need no sorting.
pub fn parents_and_children_go_out_in_one_statement<A: Adapter>() {
    let schema = "CREATE TABLE children (id serial PRIMARY KEY, parent_id int NOT NULL);
        CREATE TABLE parents (id serial PRIMARY KEY, favourite_id int REFERENCES children);
        ALTER TABLE children ADD FOREIGN KEY (parent_id) REFERENCES parents";
    let mut both = Both::<A>::new(schema);
    for _ in 0..2 {
        same!(both, |conn| {
            conn.transaction(|conn| {
                let mut ids = Vec::new();
                for _ in 0..10 {
                    let parent = conn.one("INSERT INTO parents DEFAULT VALUES RETURNING id", &[])?;
                    for _ in 0..3 {
                        let sql = "INSERT INTO children (parent_id) VALUES ($1) RETURNING id, parent_id";
                        ids.push(conn.rows(sql, &[Value::int4(parent.int() as i32)])?);
                    }
                }
                Ok(ids)
            })
            .unwrap()
        });
    }
    both.same_rows("SELECT * FROM children ORDER BY id");
    both.same_rows("SELECT * FROM parents ORDER BY id");
    let wire = both.world.wire();
    let last = &wire[wire.len() - 1];
    assert!(
        last.starts_with("WITH s0 AS (INSERT INTO children") && last.contains("s1 AS (INSERT INTO parents"),
        "{last}"
    );
}

/// §2.5: the order of tables within a flush is that of their first use, whatever their foreign keys or names: of rows
/// that all fail, that of the table used first says so.
pub fn tables_go_out_in_the_order_of_their_first_use<A: Adapter>() {
    let tables = ["a", "b", "c"];
    let mut world = World::<A>::new(
        "CREATE TABLE c (n int CONSTRAINT one_c UNIQUE); CREATE TABLE a (n int CONSTRAINT one_a UNIQUE);
         CREATE TABLE b (n int CONSTRAINT one_b UNIQUE)",
    );
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut flushes = Vec::new();
        for _ in 0..2 {
            let outcome = world.conn.transaction(|conn| {
                for at in [0, 1, 0, 2, 1, 2] {
                    let table = tables[order[at]];
                    conn.run(&format!("INSERT INTO {table} (n) VALUES ($1)"), &[Value::int4(1)])?;
                }
                Ok(())
            });
            let first = format!("one_{}", tables[order[0]]);
            assert_eq!(outcome.unwrap_err().constraint, Some(first));
            flushes.push(world.wire().swap_remove(0));
        }
        assert_eq!(flushes[0], flushes[1], "the same work, the same statement");
    }
}

/// §2.5: a flush that must be split is split by creation order across all tables, never by table.
pub fn a_split_flush_is_split_by_creation_order<A: Adapter>() {
    let schema = "CREATE TABLE parents (id serial PRIMARY KEY, name text);
        CREATE TABLE children (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parents, name text)";
    for budget in [1, 2, 3, 4, 7] {
        let mut both = Both::<A>::with(schema, BatchOptions::new().max_rows(budget));
        same!(both, |conn| {
            conn.transaction(|conn| {
                for n in 0..12 {
                    let parent = conn.insert_name("parents", &format!("p{n}"))?;
                    for m in 0..n % 4 {
                        let sql = "INSERT INTO children (parent_id, name) VALUES ($1, $2) RETURNING id";
                        conn.one(sql, &[Value::int4(parent as i32), Value::text(&format!("c{n}.{m}"))])?;
                    }
                }
                Ok(())
            })
            .unwrap()
        });
        both.same_rows("SELECT * FROM parents ORDER BY ctid");
        both.same_rows("SELECT * FROM children ORDER BY ctid");
        let stats = both.world.conn.stats();
        assert!(stats.inserts_deferred > 20 && stats.flush_statements > 24 / budget as u64, "{budget}: {stats}");
    }
}

/// §2.5: what travels row by row is split before Postgres' limit of 65,535 parameters.
pub fn more_array_rows_than_parameters_are_split<A: Adapter>() {
    let mut world = World::<A>::with(
        "CREATE TABLE t (n int, a int[], b int, c int, d int, e int, f int, g int, h int, i int)",
        BatchOptions::new().max_rows(100_000).max_bytes(64 << 20),
    );
    let sql = "INSERT INTO t VALUES ($1, $2, $1, $1, $1, $1, $1, $1, $1, $1)";
    world
        .conn
        .transaction(|conn| {
            (0..7_000).try_for_each(|n| conn.run(sql, &[Value::int4(n), Value::int4_array(&[n, n])]).map(drop))
        })
        .unwrap();
    let stats = world.conn.stats();
    assert_eq!((stats.inserts_deferred, stats.flush_statements), (7_000, 2));
    assert_eq!(world.count("SELECT count(*) FROM t WHERE a[2] = n AND i = n"), 7_000);
}

/// §2.5: interleaved foreign-key cycles: x1; y1→x1; x2→y1.
pub fn interleaved_cycles_of_foreign_keys_need_no_sorting<A: Adapter>() {
    let schema = "CREATE TABLE x (id serial PRIMARY KEY, y_id int); CREATE TABLE y (id serial PRIMARY KEY, x_id int REFERENCES x);
        ALTER TABLE x ADD FOREIGN KEY (y_id) REFERENCES y";
    for options in [
        BatchOptions::new(),
        BatchOptions::new().max_rows(1),
        BatchOptions::new().max_rows(2),
        BatchOptions::new().max_rows(3),
    ] {
        let mut both = Both::<A>::with(schema, options);
        for _ in 0..3 {
            same!(both, |conn| {
                conn.transaction(|conn| {
                    let mut y = Value::int4(0).null();
                    let mut ids = Vec::new();
                    for _ in 0..10 {
                        let x = conn.one("INSERT INTO x (y_id) VALUES ($1) RETURNING id", &[y])?.int();
                        let y_id =
                            conn.one("INSERT INTO y (x_id) VALUES ($1) RETURNING id", &[Value::int4(x as i32)])?.int();
                        ids.push((x, y_id));
                        y = Value::int4(y_id as i32);
                    }
                    Ok(ids)
                })
                .unwrap()
            });
        }
        both.same_rows("SELECT * FROM x ORDER BY id");
        both.same_rows("SELECT * FROM y ORDER BY id");
        assert!(both.world.conn.stats().inserts_deferred > 40, "{}", both.world.conn.stats());
    }
}

/// §2.5: self-references, also across a split.
pub fn self_references_need_no_sorting<A: Adapter>() {
    for options in [BatchOptions::new(), BatchOptions::new().max_rows(2), BatchOptions::new().max_rows(5)] {
        let mut both = Both::<A>::with(NODES, options);
        same!(both, |conn| {
            conn.transaction(|conn| {
                let mut ids = vec![add_node(conn, None, "root")?];
                for n in 0_usize..30 {
                    let parent = ids[n * 7 % ids.len()];
                    ids.push(add_node(conn, Some(parent), &format!("node {n}"))?);
                }
                Ok(ids)
            })
            .unwrap()
        });
        both.same_rows("SELECT * FROM nodes ORDER BY id");
        assert!(both.world.conn.stats().inserts_deferred >= 29, "{}", both.world.conn.stats());
    }
}

/// §2.5: a row that refers to itself, and one statement whose rows refer to each other.
pub fn rows_of_one_statement_may_refer_to_each_other<A: Adapter>() {
    let mut both = Both::<A>::new("CREATE TABLE nodes (id int PRIMARY KEY, parent_id int REFERENCES nodes)");
    same!(both, |conn| {
        conn.transaction(|conn| {
            conn.run("INSERT INTO nodes (id, parent_id) VALUES ($1, $1)", &[Value::int4(1)])?;
            conn.run("INSERT INTO nodes (id, parent_id) VALUES (2, 3), (3, 2), (4, 1)", &[])
        })
        .unwrap()
    });
    assert_eq!(both.world.conn.stats().inserts_deferred, 2);
    both.same_rows("SELECT * FROM nodes ORDER BY id");
}

/// §2.5, §2.6: a row that refers to one which comes only later fails, as it would have: foreign keys are checked at
/// the end of one statement, so the two must not share it.
pub fn a_row_that_refers_to_a_later_one_fails_as_it_would<A: Adapter>() {
    for (schema, key) in [
        ("CREATE TABLE nodes (id int PRIMARY KEY, parent_id int REFERENCES nodes)", Value::int4 as fn(i32) -> Value),
        ("CREATE TABLE nodes (id bigint PRIMARY KEY, parent_id int REFERENCES nodes)", Value::int4),
        ("CREATE TABLE nodes (id int PRIMARY KEY, parent_id bigint REFERENCES nodes)", |n| Value::int8(n.into())),
        ("CREATE TABLE nodes (id text PRIMARY KEY, parent_id varchar REFERENCES nodes)", |n| {
            Value::text(&n.to_string())
        }),
        ("CREATE TABLE nodes (id numeric PRIMARY KEY, parent_id numeric REFERENCES nodes)", |n| {
            Value::numeric(&n.to_string())
        }),
        // Equal, but not in their bytes.
        ("CREATE TABLE nodes (id date PRIMARY KEY, at timestamp, parent_id timestamp REFERENCES nodes)", Value::date),
    ] {
        let mut both = Both::<A>::new(schema);
        let failure = same!(both, |conn| {
            conn.transaction(|conn| {
                let sql = "INSERT INTO nodes (id, parent_id) VALUES ($1, $2)";
                let parent = |n: i32| match schema.contains("timestamp") {
                    true => Value::timestamp(i64::from(n) * 86_400_000_000),
                    false => key(n),
                };
                conn.run(sql, &[key(1), parent(1).null()])?;
                conn.run(sql, &[key(2), parent(3)])?;
                conn.run(sql, &[key(3), parent(1)])
            })
            .unwrap_err()
        });
        assert_eq!(failure.kind, "ForeignKeyViolation", "{schema}: {failure}");
        assert_eq!(both.same_rows("SELECT * FROM nodes"), Vec::<Vec<Option<String>>>::new());
    }
    // By an id that the program guessed.
    let mut both = Both::<A>::new(NODES);
    let failure = same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 1..=4 {
                add_node(conn, None, &n.to_string())?;
            }
            add_node(conn, Some(6), "5")?;
            add_node(conn, None, "6")
        })
        .unwrap_err()
    });
    assert_eq!(failure.kind, "ForeignKeyViolation");
}

/// §2.5: keys of several columns, deferred ones too.
pub fn keys_of_several_columns_and_deferred_keys_hold<A: Adapter>() {
    for deferred in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let schema = format!(
            "CREATE TABLE p (a int, b text, PRIMARY KEY (a, b));
             CREATE TABLE c (b text, a int, n int, FOREIGN KEY (a, b) REFERENCES p {deferred})"
        );
        for child_first in [false, true] {
            let mut both = Both::<A>::new(&schema);
            let outcome = same!(both, |conn| {
                conn.transaction(|conn| {
                    let key = [Value::int4(1), Value::text("x")];
                    let (parent, child) =
                        ("INSERT INTO p (a, b) VALUES ($1, $2)", "INSERT INTO c (a, b, n) VALUES ($1, $2, 7)");
                    conn.run(if child_first { child } else { parent }, &key)?;
                    conn.run(child, &[Value::int4(1).null(), Value::text("nothing")])?;
                    conn.run(if child_first { parent } else { child }, &key)
                })
            });
            assert_eq!(outcome.is_ok(), !child_first || !deferred.is_empty(), "{outcome:?}");
            both.same_rows("SELECT * FROM c ORDER BY 1");
        }
    }
}

/// §2.5: transactions with the same work lock in the same order, so none of them is a deadlock's victim.
pub fn transactions_with_the_same_work_do_not_lock_each_other_out<A: Adapter>() {
    let world = World::<A>::new(
        "CREATE TABLE p (key int UNIQUE); CREATE TABLE q (key int UNIQUE); CREATE TABLE r (key int UNIQUE)",
    );
    let work = |url: &str| {
        let mut conn = A::Batched::connect(url).unwrap();
        for _ in 0..30 {
            conn.begin().unwrap();
            for key in 0..10 {
                for table in ["q", "r", "p"] {
                    conn.run(&format!("INSERT INTO {table} (key) VALUES ($1)"), &[Value::int4(key)]).unwrap();
                }
            }
            // The keys are free again for those who wait for them.
            conn.flush().unwrap();
            conn.rollback().unwrap();
        }
        assert_eq!(conn.stats().rows_flushed, 900);
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| work(world.proxy.url()))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
