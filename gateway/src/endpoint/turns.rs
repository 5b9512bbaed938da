//! Connections to one endpoint that are being made: so many at a time, and past that each call in its turn, unless a connection
//! becomes idle before (docs/decisions/0034).

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Endpoint;
use super::pool::{Given, Share};
use crate::connection::Connection;
use crate::function::Protocol;

/// How many connections one worker makes to one endpoint at a time.
const MOST: usize = 16;

/// How long a connection counts as being made whose call was taken back: its function has still to take it, and to see that it
/// was in vain.
const IN_VAIN: Duration = Duration::from_millis(10);

/// What a call goes on with that found no idle connection.
pub(crate) enum Next {
    /// A connection that another call is done with.
    Connection(Connection),
    /// Its turn to make one.
    Turn(Box<Turn>),
}

impl Endpoint {
    fn share(&self, worker: usize) -> MutexGuard<'_, Share> {
        self.connections.share(worker)
    }
}

/// What comes first, for a call of this worker that found no idle connection; `None` if it is sent away, because the endpoint is
/// not to be called any more.
pub(super) async fn next(
    endpoint: &Arc<Endpoint>,
    worker: usize,
    protocol: Protocol,
) -> Option<Next> {
    // Over HTTP/2 all calls share the first one.
    let most = if protocol == Protocol::H2c { 1 } else { MOST };
    let receiver = {
        let mut share = endpoint.share(worker);
        if share.connecting < most {
            share.connecting += 1;
            return Some(Next::Turn(Turn::new(endpoint, worker, most)));
        }
        let (sender, receiver) = oneshot::channel();
        // Whoever sends all away that wait does so once it is not ready.
        if endpoint.is_ready() {
            share.waiting.push_back(sender);
        }
        receiver
    };
    let mut waiting = Waiting {
        endpoint,
        worker,
        most,
        receiver,
    };
    Some(match (&mut waiting.receiver).await.ok()? {
        Given::Connection(connection) => Next::Connection(connection),
        Given::Turn => Next::Turn(Turn::new(endpoint, worker, most)),
    })
}

/// A call that waits, until it is dropped. What it was given and did not look at goes to others.
struct Waiting<'a> {
    endpoint: &'a Endpoint,
    worker: usize,
    most: usize,
    receiver: oneshot::Receiver<Given>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        match self.receiver.try_recv() {
            Ok(Given::Connection(connection)) => self.endpoint.keep_idle(self.worker, connection),
            Ok(Given::Turn) => self.endpoint.share(self.worker).end_turn(self.most),
            Err(_) => {}
        }
    }
}

/// The turn to make a connection. The call that has it holds it until it has an answer, or can have none; dropped before that, the
/// call was taken back.
pub(crate) struct Turn {
    endpoint: Arc<Endpoint>,
    worker: usize,
    most: usize,
    stage: Stage,
}

enum Stage {
    Connecting,
    /// It no longer counts.
    Connected,
    Over,
}

impl Turn {
    fn new(endpoint: &Arc<Endpoint>, worker: usize, most: usize) -> Box<Self> {
        Box::new(Self {
            endpoint: endpoint.clone(),
            worker,
            most,
            stage: Stage::Connecting,
        })
    }

    /// The connection is made, and another call may make one.
    pub(crate) fn connected(&mut self) {
        self.enter(Stage::Connected);
    }

    /// The call has come as far as it can on this connection.
    pub(crate) fn end(&mut self) {
        self.enter(Stage::Over);
    }

    fn enter(&mut self, stage: Stage) {
        if let Stage::Connecting = std::mem::replace(&mut self.stage, stage) {
            self.endpoint.share(self.worker).end_turn(self.most);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Without a runtime we are at an end.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        match self.stage {
            Stage::Over => return,
            Stage::Connected => self.endpoint.share(self.worker).connecting += 1,
            Stage::Connecting => {}
        }
        let (endpoint, worker, most) = (self.endpoint.clone(), self.worker, self.most);
        runtime.spawn(async move {
            tokio::time::sleep(IN_VAIN).await;
            endpoint.share(worker).end_turn(most);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http1::Http1;
    use crate::life::{Event, Fault};

    fn ready() -> Arc<Endpoint> {
        let endpoint = super::super::tests::endpoint();
        endpoint.meet(Event::Accepted, "connected");
        endpoint
    }

    type Coming<'a> = Pin<Box<dyn Future<Output = Result<Next, String>> + 'a>>;

    /// A call that asks for a connection, and waits if it has to.
    fn call(endpoint: &Arc<Endpoint>) -> Coming<'_> {
        Box::pin(endpoint.next_connection(0, Protocol::Http1, Duration::from_secs(1)))
    }

    fn is_waiting(call: &mut Coming<'_>) -> bool {
        call.as_mut().now_or_never().is_none()
    }

    async fn turn(call: Coming<'_>) -> Box<Turn> {
        match call.await {
            Ok(Next::Turn(turn)) => turn,
            Ok(Next::Connection(_)) => panic!("a connection"),
            Err(why) => panic!("{why}"),
        }
    }

    /// All turns that there are.
    async fn turns(endpoint: &Arc<Endpoint>) -> Vec<Box<Turn>> {
        let mut turns = Vec::new();
        for _ in 0..MOST {
            turns.push(turn(call(endpoint)).await);
        }
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_connected_or_gives_up_lets_the_next_one_connect() {
        let endpoint = ready();
        let mut turns = turns(&endpoint).await;
        let [mut first, mut second, mut third] = [(); 3].map(|()| call(&endpoint));
        assert!(is_waiting(&mut first) && is_waiting(&mut second) && is_waiting(&mut third));
        turns[0].connected();
        assert!(is_waiting(&mut second), "one after the other");
        let mut first = turn(first).await;
        turns.pop().unwrap().end();
        // It has been given the turn, and does not look.
        drop(second);
        turn(third).await.end();
        first.end();
        turns.iter_mut().for_each(|turn| turn.end());
        assert_eq!(endpoint.share(0).connecting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_taken_back_keeps_its_turn_for_a_moment() {
        let endpoint = ready();
        let mut turns = turns(&endpoint).await;
        let (mut next, began) = (call(&endpoint), tokio::time::Instant::now());
        assert!(is_waiting(&mut next));
        drop(turns.pop());
        let next = turn(next).await;
        assert!(began.elapsed() >= IN_VAIN);

        // Those whose connections are made take turns again.
        turns.push(next);
        turns.iter_mut().for_each(|turn| turn.connected());
        assert_eq!(endpoint.share(0).connecting, 0);
        let mut one = turn(call(&endpoint)).await;
        drop(turns);
        let (mut next, began) = (call(&endpoint), tokio::time::Instant::now());
        assert!(is_waiting(&mut next));
        one.end();
        assert!(is_waiting(&mut next), "there were more than may be");
        turn(next).await.end();
        assert!(began.elapsed() >= IN_VAIN);
        tokio::time::sleep(IN_VAIN).await;
        assert_eq!(endpoint.share(0).connecting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_too_long_or_for_an_endpoint_that_is_ejected_is_told() {
        let endpoint = ready();
        let mut turns = turns(&endpoint).await;
        let late = call(&endpoint).await.err().unwrap();
        assert!(late.contains("no turn within 1s"), "{late}");
        let mut waiting = call(&endpoint);
        assert!(is_waiting(&mut waiting));
        endpoint.meet(Event::Failed(Fault::Refused), "it says no");
        for told in [waiting, call(&endpoint)] {
            let why = told.now_or_never().unwrap().err().unwrap();
            assert_eq!(why, "connect 127.0.0.1:1: it says no");
        }
        turns.iter_mut().for_each(|turn| turn.end());
    }

    #[tokio::test]
    async fn a_connection_that_becomes_idle_goes_to_who_waits_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        let _theirs = listener.accept().await.unwrap();
        let endpoint = ready();
        let mut turns = turns(&endpoint).await;
        let [mut gone, mut unlooked, mut second] = [(); 3].map(|()| call(&endpoint));
        assert!(is_waiting(&mut gone) && is_waiting(&mut unlooked) && is_waiting(&mut second));
        drop(gone);
        endpoint.keep_idle(0, Connection::One(Box::new(Http1::new(stream))));
        assert!(is_waiting(&mut second), "another one was first");
        drop(unlooked);
        let Ok(Next::Connection(connection)) = second.await else {
            panic!("no connection");
        };
        endpoint.keep_idle(0, connection);
        assert!(endpoint.take_idle(0).is_some(), "nobody waits");
        turns.iter_mut().for_each(|turn| turn.end());
    }
}
