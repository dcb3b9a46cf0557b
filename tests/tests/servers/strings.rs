//! Connection strings that do not tell databases apart, and databases that change behind one.

use std::process::Command;
use std::{env, fs};

use super::*;

#[test]
fn databases_that_a_string_does_not_tell_apart_share_nothing() {
    let Some(cluster) = cluster() else { return };
    finish(each!(named_like_their_roles(&cluster)));
    finish(each!(made_again(&cluster)));
    finish(each!(without_the_identifier(&cluster)));
    services(&cluster);
}

/// A URL without a database leads to the one that is named like the role. Both are copies of one template, so with the same
/// oids.
fn named_like_their_roles<A: Adapter>(cluster: &Cluster) -> Then {
    let (alice, bob) = (named::<A>("alice"), named::<A>("bob"));
    for name in [&alice, &bob] {
        cluster.execute("postgres", &format!("CREATE ROLE {name} SUPERUSER LOGIN"));
    }
    cluster.execute("postgres", &format!("CREATE DATABASE {alice}"));
    cluster.execute(&alice, PARENTS);
    cluster.execute("postgres", &format!("CREATE DATABASE {bob} TEMPLATE {alice}"));
    cluster.execute(&bob, "SELECT setval('parents_id_seq', 1000)");
    let mut of_alice = A::Batched::connect(&cluster.url_as(&alice, "")).unwrap();
    of_alice.enable(BatchOptions::new()).unwrap();
    let mut bobs = A::Batched::connect(&cluster.url_as(&bob, "")).unwrap();
    Box::new(move || {
        let ids = [names(&mut of_alice, "parents", 5).unwrap(), names(&mut of_alice, "parents", 5).unwrap()];
        assert!(ids.concat().into_iter().all(|id| id < 1000), "{}: alice has {ids:?}", A::NAME);
        let ids = names(&mut bobs, "parents", 5).unwrap();
        assert!(ids.iter().all(|&id| id > 1000), "{}: bob has {ids:?}", A::NAME);
        bobs.enable(BatchOptions::new()).unwrap();
        let ids = [names(&mut bobs, "parents", 5).unwrap(), names(&mut bobs, "parents", 5).unwrap()];
        assert!(ids.concat().into_iter().all(|id| id > 1005), "{}: bob has {ids:?}", A::NAME);
        assert!(bobs.stats().inserts_deferred >= 9, "{}: {}", A::NAME, bobs.stats());
    })
}

/// A database that is dropped and created again under its name, as tests do.
fn made_again<A: Adapter>(cluster: &Cluster) -> Then {
    let (shape, shop) = (named::<A>("shape"), named::<A>("shop"));
    let make = format!("CREATE DATABASE {shop} TEMPLATE {shape}");
    cluster.execute("postgres", &format!("CREATE DATABASE {shape}"));
    cluster.execute(&shape, PARENTS);
    cluster.execute("postgres", &make);
    let url = cluster.url(&shop);
    let mut program = Program::<A>::start(&url);
    for _ in 0..3 {
        names(&mut program.conn, "parents", 3).unwrap();
    }
    program.proxy.cut();
    cluster.execute("postgres", &format!("DROP DATABASE {shop} WITH (FORCE)"));
    cluster.execute("postgres", &make);
    Box::new(move || {
        program.reconnect();
        let deferred = program.deferred();
        assert_eq!(names(&mut program.conn, "parents", 3).unwrap(), [1, 2, 3], "{}", A::NAME);
        plain_names::<A>(&url, "parents", 20).unwrap();
        names(&mut program.conn, "parents", 3).unwrap();
        assert!(
            program.deferred() - if A::POOLED { deferred } else { 0 } >= 5,
            "{}: {}",
            A::NAME,
            program.conn.stats()
        );
    })
}

/// A role that may not ask for the cluster's identifier batches as well.
fn without_the_identifier<A: Adapter>(cluster: &Cluster) -> Then {
    let name = named::<A>("limited");
    cluster.execute("postgres", &format!("CREATE ROLE {name} LOGIN"));
    cluster.execute("postgres", &format!("CREATE DATABASE {name} OWNER {name}"));
    cluster.execute(&name, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    let url = cluster.url_as(&name, &name);
    A::Plain::connect(&url).unwrap().script(PARENTS).unwrap();
    let mut program = Program::<A>::start(&url);
    Box::new(move || {
        let mut ids = names(&mut program.conn, "parents", 5).unwrap();
        ids.extend(names(&mut program.conn, "parents", 5).unwrap());
        let mut other = A::Batched::connect(program.proxy.url()).unwrap();
        if A::POOLED {
            other.enable(BatchOptions::new()).unwrap();
        }
        ids.extend(names(&mut other, "parents", 5).unwrap());
        assert_eq!(ids, Vec::from_iter(1..=15), "{}", A::NAME);
        assert!(other.stats().inserts_deferred >= 5, "{}: {}", A::NAME, other.stats());
    })
}

/// Services are libpq's: `service=a` and `service=b` have nothing but their names in the string. The file that says what they
/// are is named by the environment, and so by that of a process of its own.
fn services(cluster: &Cluster) {
    const CHILD: &str = "BATCH_TEST_SERVICES";
    if env::var_os(CHILD).is_none() {
        cluster.execute("postgres", "CREATE DATABASE first");
        cluster.execute("first", PARENTS);
        cluster.execute("postgres", "CREATE DATABASE second TEMPLATE first");
        cluster.execute("second", "SELECT setval('parents_id_seq', 1000)");
        let file = env::temp_dir().join(format!("batch-test-services-{}", std::process::id()));
        let service =
            |name: &str| format!("[{name}]\nhost=127.0.0.1\nport={}\nuser=postgres\ndbname={name}\n", cluster.port());
        fs::write(&file, service("first") + &service("second")).unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "servers::strings::services_share_nothing", "--nocapture"])
            .env(CHILD, "1")
            .env("PGSERVICEFILE", &file)
            .output()
            .unwrap();
        fs::remove_file(&file).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// In a process whose environment names a file of services; see [`services`].
#[test]
fn services_share_nothing() {
    if env::var_os("BATCH_TEST_SERVICES").is_none() {
        return;
    }
    let connect = |name: &str| batch_diesel::PgConnection::connect(&format!("service={name}")).unwrap();
    let mut first = connect("first");
    first.enable(BatchOptions::new()).unwrap();
    names(&mut first, "parents", 5).unwrap();
    names(&mut first, "parents", 5).unwrap();
    let mut second = connect("second");
    let ids = names(&mut second, "parents", 5).unwrap();
    assert!(ids.iter().all(|&id| id > 1000), "the other service's database has {ids:?}");
}
