use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use url::Url;

use crate::{Error, admin};

mod conversation;
mod delay;
mod frames;

use conversation::{Conversation, Ledger};

/// A TCP proxy in front of a database that adds latency, counts and records what goes over the wire.
///
/// It speaks the protocol in clear, so the server must not insist on TLS.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What went over the wire, summed over all connections of a [`Proxy`].
///
/// Start-up and authentication are not counted, nor is the message that ends a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Statements that the client asked to be run: Execute and simple Query messages.
    pub statements: u64,
    /// How often the client spoke after the server had spoken. Messages sent without waiting count as one.
    pub round_trips: u64,
    /// Bytes from the client.
    pub bytes_sent: u64,
    /// Bytes from the server.
    pub bytes_received: u64,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<SocketAddr>,
    one_way: Duration,
    ledger: Mutex<Ledger>,
    links: Mutex<Vec<Arc<Link>>>,
    stopped: AtomicBool,
}

/// The two connections that the proxy ties together.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
    conversation: Mutex<Conversation>,
}

impl Proxy {
    /// Starts a proxy in front of the database; half of `round_trip` is added in each direction.
    ///
    /// # Panics
    ///
    /// If the URL does not lead to a host and a port.
    #[track_caller]
    pub fn start(url: &str, round_trip: Duration) -> Proxy {
        Self::try_start(url, round_trip).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start(url: &str, round_trip: Duration) -> Result<Proxy, Error> {
        let trouble = |error: io::Error| Error::because("cannot start the proxy", &error);
        let server = address_of(url)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(trouble)?;
        let address = listener.local_addr().map_err(trouble)?;
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            one_way: round_trip / 2,
            ledger: Mutex::default(),
            links: Mutex::default(),
            stopped: AtomicBool::new(false),
        });

        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A connection that fails is its client's to notice.
                thread::spawn(move || shared.serve(client));
            }
        });
        Ok(Proxy { url: url_through(url, address)?, address, shared })
    }

    /// The same database through the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What went over the wire since the start or the last [`reset`](Self::reset).
    pub fn wire(&self) -> Wire {
        lock(&self.shared.ledger).wire
    }

    /// Begins the counters and the [`trace`](Self::trace) anew.
    pub fn reset(&self) {
        let mut ledger = lock(&self.shared.ledger);
        ledger.wire = Wire::default();
        ledger.trace.clear();
    }

    /// What the clients said, in order: the SQL of each Parse and simple Query message, and `EXECUTE `, then the
    /// SQL, for each Execute.
    pub fn trace(&self) -> Vec<String> {
        lock(&self.shared.ledger).trace.clone()
    }

    /// Moves to another server, as a name does whose address changes: connections that are made from now on lead there.
    ///
    /// # Panics
    ///
    /// If the URL does not lead to a host and a port.
    #[track_caller]
    pub fn move_to(&self, url: &str) {
        *lock(&self.shared.server) = address_of(url).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Closes all connections, without a word to either side. New ones are let in.
    pub fn cut(&self) {
        for link in lock(&self.shared.links).drain(..) {
            link.close();
        }
    }

    /// Lets `n` more statements pass and closes the connection on which the next one is sent: the server receives
    /// and runs that one, the client never gets its answer. Happens once.
    ///
    /// Statements that a client sends under one Sync have one fate: none of them is answered.
    pub fn cut_after_statements(&self, n: usize) {
        lock(&self.shared.ledger).fuse = Some(n);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        self.cut();
    }
}

impl Shared {
    /// Carries one connection until either side ends it.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let Some((start, rest)) = decline_encryption(&mut client)? else { return Ok(()) };
        let server = TcpStream::connect(*lock(&self.server))?;
        server.set_nodelay(true)?;
        let (mut client_in, mut client_out) = (client.try_clone()?, client.try_clone()?);
        let (mut server_in, mut server_out) = (server.try_clone()?, server.try_clone()?);
        server_out.write_all(&start)?;

        let link = Arc::new(Link { client, server, conversation: Mutex::new(Conversation::new(rest)) });
        lock(&self.links).push(Arc::clone(&link));
        thread::scope(|scope| {
            let (to_server, from_client) = delay::line(self.one_way);
            let (to_client, from_server) = delay::line(self.one_way);

            scope.spawn(move || {
                from_client.pour(|bytes| server_out.write_all(bytes));
                // The client has left. The server may not be there to be told either.
                let _ = server_out.shutdown(Shutdown::Write);
            });
            scope.spawn({
                let link = &link;
                move || {
                    from_server.pour(|bytes| {
                        lock(&link.conversation).client_hears();
                        client_out.write_all(bytes)
                    });
                    link.close();
                }
            });
            scope.spawn({
                let link = &link;
                move || {
                    read(&mut client_in, |bytes| {
                        lock(&link.conversation).client_says(bytes, &mut lock(&self.ledger));
                        to_server.send(bytes)
                    });
                    // What it said still arrives.
                    drop(to_server);
                }
            });

            read(&mut server_in, |bytes| {
                let reply = lock(&link.conversation).server_says(bytes, &mut lock(&self.ledger));
                to_client.send(&bytes[..reply.passes]) && !reply.cut
            });
            drop(to_client);
        });
        lock(&self.links).retain(|other| !Arc::ptr_eq(other, &link));
        Ok(())
    }
}

impl Link {
    fn close(&self) {
        // Already closed is as good.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

/// Hands on what arrives until there is no more, or nobody takes it.
fn read(from: &mut TcpStream, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !take(&buffer[..n]) {
            return;
        }
    }
}

/// Says no to requests for TLS or GSS, which would hide the messages. Returns the first 8 bytes of the message
/// that then starts the connection and how many are to follow; none if the client leaves.
fn decline_encryption(client: &mut TcpStream) -> io::Result<Option<([u8; 8], usize)>> {
    const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
    const GSS_REQUEST: [u8; 4] = 80_877_104_u32.to_be_bytes();

    loop {
        let mut start = [0; 8];
        if client.read_exact(&mut start).is_err() {
            return Ok(None);
        }
        let [a, b, c, d, code @ ..] = start;
        if code == SSL_REQUEST || code == GSS_REQUEST {
            client.write_all(b"N")?;
            continue;
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        return Ok(Some((start, length.saturating_sub(8))));
    }
}

fn address_of(url: &str) -> Result<SocketAddr, Error> {
    let refusal = || Error::new(format!("the proxy needs a URL with a host, not {}", admin::shown(url)));
    let url = Url::parse(url).map_err(|_| refusal())?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(refusal)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host, url.port().unwrap_or(5432))
        .to_socket_addrs()
        .map_err(|error| Error::because(format_args!("the proxy cannot find {host}"), &error))?
        .next()
        .ok_or_else(refusal)
}

fn url_through(url: &str, proxy: SocketAddr) -> Result<String, Error> {
    let trouble = || Error::new(format!("cannot put the proxy into {}", admin::shown(url)));
    let mut through = Url::parse(url).map_err(|_| trouble())?;
    through.set_host(Some(&proxy.ip().to_string())).map_err(|_| trouble())?;
    through.set_port(Some(proxy.port())).map_err(|()| trouble())?;

    let others: Vec<(String, String)> =
        through.query_pairs().into_owned().filter(|(name, _)| name != "sslmode").collect();
    through.query_pairs_mut().clear().extend_pairs(others).append_pair("sslmode", "disable");
    Ok(through.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
