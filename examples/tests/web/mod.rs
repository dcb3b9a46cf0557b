//! The web service, over HTTP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use batch_examples::web;
use batch_seaorm::DbConn;
use batch_support::{Database, Proxy};
use sea_orm::ConnectOptions;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

/// The service on a free port, its database behind a proxy.
struct Service {
    at: SocketAddr,
    db: DbConn,
    runtime: Runtime,
    proxy: Proxy,
    database: Database,
}

impl Service {
    fn start(latency: Duration) -> Self {
        let database = Database::create();
        database.execute(web::SCHEMA);
        let proxy = Proxy::start(database.url(), latency);
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut options = ConnectOptions::new(proxy.url());
        options.max_connections(4).sqlx_logging(false);
        let (at, db) = runtime.block_on(async {
            let db = sea_orm::Database::connect(options).await.unwrap();
            let db = batch_seaorm::enable_batch_inserts(&db).await.unwrap();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let at = listener.local_addr().unwrap();
            tokio::spawn(axum::serve(listener, web::app(db.clone())).into_future());
            (at, db)
        });
        Self { at, db, runtime, proxy, database }
    }

    /// The status and the body.
    fn post(&self, path: &str, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(format!("http://{}{path}", self.at)).content_type("application/json");
        let mut response = request.send(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    fn list(&self) -> Vec<Value> {
        let mut response = ureq::get(format!("http://{}/posts", self.at)).call().unwrap();
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Posts and tags, as Postgres counts them.
    fn rows(&self) -> (usize, usize) {
        (self.database.query("SELECT 1 FROM posts").len(), self.database.query("SELECT 1 FROM tags").len())
    }

    fn inserts_on_the_wire(&self) -> usize {
        self.proxy.trace().iter().filter(|sql| sql.starts_with("EXECUTE") && sql.contains("INSERT INTO")).count()
    }

    /// Waits until no connection is in a transaction.
    fn settle(&self) {
        let open = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
            AND pid <> pg_backend_pid()";
        let start = Instant::now();
        while !self.database.query(open).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "a transaction was left open");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The pool closes its connections on the runtime.
        let db = self.db.clone();
        self.runtime.block_on(async { db.close().await }).unwrap();
    }
}

/// So many posts with two tags each.
fn posts(name: &str, count: usize) -> Value {
    let post =
        |n| json!({ "title": format!("{name} {n}"), "text": "text", "tags": [format!("a{n}"), format!("b{n}")] });
    (0..count).map(post).collect()
}

#[test]
fn posts_are_created_one_by_one_and_in_bulk_and_read_back() {
    let service = Service::start(Duration::ZERO);
    let mut created = Vec::new();
    for n in 0..3 {
        let body = json!({ "title": format!("single {n}"), "text": "text", "tags": ["x", "y"] });
        let (status, body) = service.post("/posts", &body.to_string());
        assert_eq!(status, 201, "{body}");
        created.push(serde_json::from_str::<Value>(&body).unwrap());
    }
    assert_eq!(created[0]["tags"], json!(["x", "y"]));

    service.proxy.reset();
    let (status, body) = service.post("/posts/bulk", &posts("bulk", 50).to_string());
    assert_eq!(status, 201, "{body}");
    assert_eq!(service.inserts_on_the_wire(), 1, "{:#?}", service.proxy.trace());
    created.extend(serde_json::from_str::<Vec<Value>>(&body).unwrap());

    assert_eq!(service.list(), created);
    assert_eq!(service.rows(), (53, 106));
    let ids: Vec<i64> = created.iter().map(|post| post["id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn bad_input_is_a_clear_error_and_leaves_no_rows() {
    let service = Service::start(Duration::ZERO);
    assert_eq!(service.post("/posts/bulk", &posts("there", 3).to_string()).0, 201);
    let before = service.rows();

    let (status, body) = service.post("/posts/bulk", "[{\"title\": ");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("Failed to parse the request body as JSON"), "{body}");

    let (status, body) = service.post("/posts/bulk", "[{\"title\": \"no text\"}]");
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("missing field `text`"), "{body}");

    // The error of a constraint comes out of the commit, and is the same.
    let mut twice = posts("new", 20);
    twice[10]["title"] = json!("there 1");
    let (status, body) = service.post("/posts/bulk", &twice.to_string());
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("posts_title_key"), "{body}");

    let mut untitled = posts("new", 20);
    untitled[10]["title"] = json!("");
    let (status, body) = service.post("/posts/bulk", &untitled.to_string());
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("posts_title_check"), "{body}");

    assert_eq!(service.rows(), before);
    assert_eq!(service.post("/posts/bulk", &posts("new", 20).to_string()).0, 201);
}

/// Sends a bulk request, and goes away after so long.
fn send_and_leave(service: &Service, body: &str, after: Duration) {
    let mut socket = TcpStream::connect(service.at).unwrap();
    let head = "POST /posts/bulk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    write!(socket, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    thread::sleep(after);
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    let service = Service::start(Duration::from_millis(20));
    assert_eq!(service.post("/posts/bulk", &posts("there", 5).to_string()).0, 201);
    let before = service.rows();

    // BEGIN alone takes longer than the client stays.
    send_and_leave(&service, &posts("left early", 30).to_string(), Duration::from_millis(5));
    thread::sleep(Duration::from_millis(300));
    service.settle();
    assert_eq!(service.rows(), before);

    // Half of a request does not reach the handler.
    let mut socket = TcpStream::connect(service.at).unwrap();
    let body = posts("half", 30).to_string();
    let head = "POST /posts/bulk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    write!(socket, "{head}content-length: {}\r\n\r\n{}", body.len(), &body[..body.len() / 2]).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(service.rows(), before);
}

#[test]
fn clients_that_go_away_at_any_moment_leave_all_or_nothing_and_a_service_that_works() {
    let service = Service::start(Duration::from_millis(4));
    assert_eq!(service.post("/posts/bulk", &posts("before", 5).to_string()).0, 201);
    let leave_after = |stay: u64| {
        let body = posts(&format!("stayed{stay}"), 5).to_string();
        send_and_leave(&service, &body, Duration::from_millis(stay));
    };
    let whole_requests = || {
        thread::sleep(Duration::from_millis(100));
        service.settle();
        let sizes = service.database.query("SELECT count(*) FROM posts GROUP BY split_part(title, ' ', 1)");
        assert!(sizes.iter().all(|size| size[0].as_deref() == Some("5")), "{sizes:?}");
        sizes.len() - 1
    };
    (0..40).for_each(leave_after);
    let mut whole = whole_requests();
    // However slow the machine is, some stay until their request is done.
    for stay in (1..=8).map(|n| 40 << n) {
        if whole > 0 {
            break;
        }
        leave_after(stay);
        whole = whole_requests();
    }
    assert!(whole > 0 && whole < 40, "none was cut, or all were: {whole}");
    let (posts_before, tags) = service.rows();
    assert_eq!(tags, 2 * posts_before);
    assert_eq!(service.post("/posts/bulk", &posts("after", 5).to_string()).0, 201);
    assert_eq!(service.rows().0, posts_before + 5);
}
