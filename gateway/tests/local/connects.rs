//! Connections that the gateway makes to a function: how many at a time, and what calls do that wait for one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use socket2::{Domain, Socket, Type};

use crate::http2::{connect, grpc_server, run, whole};
use crate::support::client::{read, send};
use crate::support::crowd::entry;
use crate::support::gateway::Gateway;
use crate::support::{eventually, within};

/// How many connections one worker makes to one endpoint at a time.
const MOST: usize = 16;
const CALL: &[u8] = b"GET /function/full HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A function that takes a connection only when it is told to.
struct Shy {
    listener: Socket,
    address: SocketAddr,
}

impl Shy {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(4).unwrap();
        // Of `accept`, too.
        let patience = Some(Duration::from_secs(30));
        listener.set_read_timeout(patience).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self { listener, address }
    }

    /// The next connection on which a request comes; others are probes.
    fn take(&self) -> TcpStream {
        loop {
            let mut stream: TcpStream = self.listener.accept().unwrap().0.into();
            if asked(&mut stream) {
                return stream;
            }
        }
    }

    /// Connects until the kernel takes no more on its behalf.
    fn fill(&self) -> Vec<TcpStream> {
        let limit = Duration::from_millis(200);
        std::iter::from_fn(|| TcpStream::connect_timeout(&self.address, limit).ok()).collect()
    }

    /// How many connections to it have been begun and not taken: in the kernel's list their state is 02.
    fn begun(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let to = format!("0100007F:{:04X} 02", self.address.port());
        table.lines().filter(|line| line.contains(&to)).count()
    }
}

/// Whether a request comes before the end.
fn asked(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 4096]), Ok(1..))
}

#[test]
fn so_many_connections_are_made_at_a_time_and_calls_that_wait_take_what_comes_first() {
    let shy = Shy::new();
    let flags = ["--workers", "1", "--connect-timeout", "30s"];
    let gateway = Gateway::with(&entry("full", shy.address), &flags);
    let in_flight = || gateway.metric("skep_in_flight{function_name=\"full\"}") as usize;
    let first = send(gateway.address, CALL);
    let mut only = shy.take();
    let filling = shy.fill();
    let mut calls: Vec<_> = (0..MOST).map(|_| send(gateway.address, CALL)).collect();
    within(Duration::from_secs(20), "as many as may be", || {
        shy.begun() == MOST
    });
    let waiting = (1..=10).map(|place| {
        let call = send(gateway.address, CALL);
        eventually("it waits", || in_flight() == 1 + MOST + place);
        call
    });
    let waiting: Vec<_> = waiting.collect();
    assert_eq!(shy.begun(), MOST);

    // The one connection serves those who wait, in their order.
    only.write_all(OK).unwrap();
    assert_eq!(read(first, false).text(), "ok");
    for call in waiting {
        assert!(asked(&mut only));
        only.write_all(OK).unwrap();
        assert_eq!(read(call, false).text(), "ok");
    }
    assert_eq!(shy.begun(), MOST);

    // Whoever goes away gives the turn up. The only connection goes first, so that there is nothing else to wait for.
    drop(only);
    calls.push(send(gateway.address, CALL));
    eventually("one waits", || in_flight() == MOST + 1);
    drop(calls.remove(0));
    eventually("its turn has come", || {
        in_flight() == MOST && shy.begun() == MOST
    });
    drop(filling);
    // With room for all: they are begun again ever more seldom.
    shy.listener.listen(2 * MOST as i32).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..MOST {
            let mut stream = shy.take();
            scope.spawn(move || stream.write_all(OK).unwrap());
        }
    });
    for call in calls {
        assert_eq!(read(call, false).text(), "ok");
    }
}

#[test]
fn calls_that_come_at_once_share_the_one_connection_that_is_made_over_http_2() {
    let connections = Arc::new(AtomicUsize::new(0));
    let entry = entry("grpc", grpc_server(connections.clone()));
    let entry = entry + "    labels:\n      skep.protocol: h2c\n";
    let gateway = Gateway::with(&entry, &["--workers", "1"]);
    eventually("it is ready", || connections.load(Ordering::SeqCst) == 1);
    run(async {
        let client = connect::<Full<Bytes>>(gateway.address).await;
        let calls = (0..50).map(|_| {
            let mut client = client.clone();
            let uri = format!("http://{}/function/grpc", gateway.address);
            let call = Request::get(uri).body(Full::default()).unwrap();
            tokio::spawn(async move { whole(client.send_request(call).await.unwrap()).await.0 })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), 200);
        }
    });
    // One for the first contact, one for the calls.
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}
