//! An address that leads to another server than before: a copy, or a standby that has become the primary.

use batch_core::GroupCommit;

use super::*;

#[test]
fn a_program_follows_its_address_to_a_copy_that_has_other_oids() {
    let (Some(cluster), Some(copy)) = (cluster(), cluster()) else { return };
    finish(each!(moved(&cluster, &copy)));
}

/// The copy's tables were made in the other order, as a dump may have it, so that each has the other's oids.
fn moved<A: Adapter>(cluster: &Cluster, copy: &Cluster) -> Then {
    let name = named::<A>("shop");
    let make = format!("CREATE DATABASE {name}");
    cluster.execute("postgres", &make);
    cluster.execute(&name, &format!("{PARENTS}; {TAGS}"));
    copy.execute("postgres", &make);
    copy.execute(&name, &format!("{TAGS}; {PARENTS}"));
    copy.execute(&name, "SELECT setval('parents_id_seq', 1000); SELECT setval('tags_id_seq', 2000)");
    let options = BatchOptions::new().group_commit(GroupCommit::new().always());
    let mut program = Program::<A>::start_with(&cluster.url(&name), options);
    let insert = |program: &mut Program<A>, count| {
        let parents = names(&mut program.conn, "parents", count).unwrap_or_else(|e| panic!("{}: {e}", A::NAME));
        let mut tags = names(&mut program.conn, "tags", count).unwrap_or_else(|e| panic!("{}: {e}", A::NAME));
        // Outside of transactions, by group commit.
        for _ in 0..2 {
            tags.push(program.conn.insert_name("tags", "alone").unwrap_or_else(|e| panic!("{}: {e}", A::NAME)));
        }
        [parents, tags]
    };
    for _ in 0..3 {
        insert(&mut program, 5);
    }
    let copy = copy.url(&name);
    program.proxy.move_to(&copy);
    program.proxy.cut();
    Box::new(move || {
        program.reconnect();
        let before_groups = program.conn.stats().inserts_grouped;
        for round in 0..3 {
            let before = program.deferred();
            let [parents, tags] = insert(&mut program, 5);
            let is_right = parents.iter().all(|id| (1001..2000).contains(id)) && tags.iter().all(|&id| id > 2000);
            assert!(is_right, "{}: parents {parents:?}, tags {tags:?}", A::NAME);
            let grouped = program.conn.stats().inserts_grouped;
            assert!(
                program.deferred() > before && (round < 2 || grouped > before_groups),
                "{}: {}",
                A::NAME,
                program.conn.stats()
            );
            plain_names::<A>(&copy, "parents", 20).unwrap();
            plain_names::<A>(&copy, "tags", 20).unwrap();
        }
    })
}

#[test]
fn a_program_follows_its_address_to_a_standby_that_missed_the_last_wal() {
    let Some(cluster) = cluster() else { return };
    let prepared = each!(prepared(&cluster));
    let standby = cluster.standby().unwrap();
    let then = prepared.map(|missed| missed(&standby.url("")));
    let read_only = each!(on_the_standby(&standby));
    standby.promote();
    finish(then);
    finish(read_only);
}

/// What happens to a program between the copy and its move to the standby, and then.
type Missed = Box<dyn FnOnce(&str) -> Then>;

fn prepared<A: Adapter>(cluster: &Cluster) -> Missed {
    let name = named::<A>("shop");
    cluster.execute("postgres", &format!("CREATE DATABASE {name}"));
    cluster.execute(&name, PARENTS);
    let mut program = Program::<A>::start(&cluster.url(&name));
    names(&mut program.conn, "parents", 5).unwrap();
    Box::new(move |standby| {
        for count in [100, 100, 30] {
            names(&mut program.conn, "parents", count).unwrap();
        }
        let standby = format!("{standby}{name}");
        program.proxy.move_to(&standby);
        program.proxy.cut();
        Box::new(move || {
            program.reconnect();
            for _ in 0..3 {
                let before = program.deferred();
                names(&mut program.conn, "parents", 5).unwrap_or_else(|error| panic!("{}: {error}", A::NAME));
                assert!(program.deferred() > before, "{}: {}", A::NAME, program.conn.stats());
                // Past everything that was reserved before.
                let plain = plain_names::<A>(&standby, "parents", 100);
                plain.unwrap_or_else(|error| panic!("{}: another program: {error}", A::NAME));
            }
        })
    })
}

/// A program whose URL is that of a standby fails as a plain one, and goes on when it is promoted.
fn on_the_standby<A: Adapter>(standby: &Cluster) -> Then {
    let url = standby.url(&named::<A>("shop"));
    let refused = plain_names::<A>(&url, "parents", 1).unwrap_err();
    let options = BatchOptions::new().catalog_max_age(Duration::ZERO);
    let mut program = Program::<A>::start_with(&url, options);
    assert_eq!(names(&mut program.conn, "parents", 1).unwrap_err(), refused, "{}", A::NAME);
    Box::new(move || {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.extend(names(&mut program.conn, "parents", 5).unwrap_or_else(|error| panic!("{}: {error}", A::NAME)));
        }
        ids.extend(plain_names::<A>(&url, "parents", 100).unwrap());
        assert!(program.deferred() > 0, "{}: {}", A::NAME, program.conn.stats());
    })
}
