//! A server that answers each connection as it is told: what a function behind no watchdog of ours may do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A server whose requests can be looked at.
pub struct Upstream {
    pub address: SocketAddr,
    heads: Receiver<String>,
}

impl Upstream {
    /// Reads a request head, hands it on, lets `answer` do what it likes with the connection, closes it.
    pub fn new(answer: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heads) = channel();
        let answer = std::sync::Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, tell) = (answer.clone(), tell.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    stream
                        .set_read_timeout(Some(Duration::from_secs(20)))
                        .unwrap();
                    let head = head(&mut stream);
                    if !head.is_empty() {
                        // Nobody may be looking.
                        let _ = tell.send(head.clone());
                        answer(&mut stream, &head);
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// A server that sends these bytes to every request.
    pub fn says(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::new(move |stream, _| {
            let _ = stream.write_all(&bytes);
        })
    }

    /// The next request head it saw.
    pub fn saw(&self) -> String {
        self.heads
            .recv_timeout(Duration::from_secs(10))
            .expect("a request reaches the upstream")
    }

    /// Whether any request came that nobody looked at.
    pub fn saw_nothing(&self) -> bool {
        self.heads.try_recv().is_err()
    }

    /// The stack file entry of a function served here.
    pub fn entry(&self, name: &str, more: &str) -> String {
        format!(
            "  {name}:\n    annotations:\n      skep.upstream: http://{}\n{more}\n",
            self.address
        )
    }
}

/// Reads to the end of a head, byte by byte so that the body is left.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}
