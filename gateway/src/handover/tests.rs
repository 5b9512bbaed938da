//! The parts that need no gateway; each step of the protocol is in gateway/tests/local/handover.rs, with real ones.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;

use super::*;

#[test]
fn listeners_arrive_with_the_connections_that_wait_on_them() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = std::net::TcpStream::connect(own.local_addr().unwrap()).unwrap();
    let path = std::env::temp_dir().join(format!("skep-handover-{:x}", fastrand::u64(..)));
    assert!(Predecessor::ask(&path).unwrap().is_none(), "no gateway");
    let ours = Listeners {
        calls: vec![own],
        ..Listeners::default()
    };
    let (told, turns) = channel();
    let running =
        HotRestart::start(&path, ours, None, move |turn| told.send(turn).unwrap()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // One that gives up first changes nothing.
    drop(Predecessor::ask(&path).unwrap());
    let (predecessor, theirs) = Predecessor::ask(&path).unwrap().unwrap();
    assert!(turns.try_recv().is_err() && theirs.metrics.is_empty());
    let again = theirs.held_again().unwrap();
    let next = HotRestart::start(&path, again, Some(predecessor), |_| {}).unwrap();
    assert_eq!(turns.recv().unwrap(), Turn::Given);
    assert!(running.end(), "the listeners are shared");
    let (_, peer) = theirs.calls[0].accept().unwrap();
    assert_eq!(peer, waiting.local_addr().unwrap());
    let _ = next.end();
    let _ = std::fs::remove_file(&path);
}
