//! One connection with a client over a real socket, and a service that does as a test says.

use std::time::Duration;

use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::drain::Drain;
use crate::incoming::Asked;
use crate::server::connection;
use crate::told::Ids;

/// What a client hears until the connection is closed. The answer to each of its requests has the body of the request.
async fn heard(sent: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, (server, _)) = (client.unwrap(), server.unwrap());
    let limits = ConnectionLimits {
        read_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        max_header_bytes: 1000,
        max_headers: 10,
    };
    let echo = |asked: Asked| async {
        Answered {
            response: Response::new(Body::stream(asked.into_body())),
            ids: Ids::of(None),
        }
    };
    let connection = connection(server, echo, limits, Drain::default().guest(), ());
    let client = async {
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    };
    tokio::join!(client, connection).0
}

#[tokio::test]
async fn an_answer_without_a_body_says_when_the_rest_of_the_request_is_not_waited_for() {
    let head = "HEAD / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    let next = "HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n";
    for (rest, count) in [("ab".to_owned(), 1), (format!("abc{next}"), 2)] {
        let heard = heard(&format!("{head}{rest}")).await;
        let answers: Vec<_> = heard.split_terminator("\r\n\r\n").collect();
        assert_eq!(answers.len(), count, "{heard}");
        assert!(answers[0].contains("\r\ncontent-length: 3"), "{heard}");
        for (nth, answer) in answers.iter().enumerate() {
            let closes = answer.contains("\r\nconnection: close");
            assert_eq!(closes, nth + 1 == count, "{heard}");
        }
    }
}
