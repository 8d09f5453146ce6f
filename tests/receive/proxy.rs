//! A network between the receiver and the server that does what networks do.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgwal_testkit::server::Server;

/// TCP on one side, the socket of a server on the other.
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
}

#[derive(Default)]
struct Network {
    /// Nothing is forwarded, and nothing closed.
    stalled: AtomicBool,
    /// After how many bytes of the server the next connections are cut.
    cuts: Mutex<VecDeque<usize>>,
    /// A bit of the next of these bytes is flipped.
    flip: Mutex<Option<&'static [u8]>>,
    connections: AtomicUsize,
    /// The test is over.
    over: AtomicBool,
}

impl Proxy {
    pub fn new(server: &Server) -> Proxy {
        let socket = server.socket().join(format!(".s.PGSQL.{}", server.port()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let network = Arc::new(Network::default());
        let shared = Arc::clone(&network);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (socket, shared) = (socket.clone(), Arc::clone(&shared));
                std::thread::spawn(move || connection(client, socket, &shared));
            }
        });
        Proxy { port, network }
    }

    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres sslmode=disable application_name=pgwal", self.port)
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.network.connections.load(Ordering::Relaxed)
    }

    pub fn stall(&self, stalled: bool) {
        self.network.stalled.store(stalled, Ordering::Relaxed);
    }

    /// The next connections are cut after so many bytes each.
    pub fn cut(&self, after: impl IntoIterator<Item = usize>) {
        self.network.cuts.lock().unwrap().extend(after);
    }

    pub fn cuts_left(&self) -> usize {
        self.network.cuts.lock().unwrap().len()
    }

    /// Flips a bit where the server next sends this.
    pub fn flip(&self, bytes: &'static [u8]) {
        *self.network.flip.lock().unwrap() = Some(bytes);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connection(client: TcpStream, socket: PathBuf, network: &Arc<Network>) {
    // A server that is down: the client finds its connection closed.
    let Ok(server) = UnixStream::connect(socket) else { return };
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let shared = Arc::clone(network);
    let upstream = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from_client.read(&mut buffer) {
            shared.wait();
            if to_server.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client) = (server, client);
    let mut left = network.cuts.lock().unwrap().pop_front().unwrap_or(usize::MAX);
    let mut buffer = vec![0; 100_000];
    while let Ok(len @ 1..) = from_server.read(&mut buffer) {
        network.wait();
        let bytes = &mut buffer[..len.min(left)];
        let mut flip = network.flip.lock().unwrap();
        if let Some(place) = flip.and_then(|flip| bytes.windows(flip.len()).position(|window| window == flip)) {
            bytes[place + 3] ^= 0x10;
            *flip = None;
        }
        drop(flip);
        left -= bytes.len();
        if to_client.write_all(bytes).is_err() || left == 0 {
            break;
        }
    }
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
    let _ = upstream.join();
}

impl Network {
    fn wait(&self) {
        while self.stalled.load(Ordering::Relaxed) && !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
