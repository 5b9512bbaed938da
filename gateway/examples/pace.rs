//! Calls one URL at a high constant rate over a fixed set of connections, and says how long answers took.
//!
//! Each call has its time, and its latency counts from then, not from when it could be sent: a server that stalls is seen
//! stalling. `steady` is for what goes wrong at low rates; this one, by hand and without an async runtime, leaves the
//! processors to what is measured. `bench/gateway.sh` and `bench/overlay.sh` run it. Exit code 1 if a call failed or the
//! rate was not kept.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::value_parser;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;

/// A call that is overdue for longer means that calls pile up, and what is measured is how long they have been doing so.
const LONGEST: Duration = Duration::from_secs(1);
/// The part of the rate that is answered while calls become due; less is another rate.
const KEPT: f64 = 0.99;
/// What is read of an answer at a time.
const CHUNK: usize = 64 * 1024;
/// Fields that an answer's head may have.
const MAX_FIELDS: usize = 64;

/// Calls a URL at a constant rate over connections that are kept.
#[derive(Parser)]
struct Arguments {
    /// http://host:port/path.
    url: String,
    /// Calls a second.
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    rate: u32,
    /// Calls in all.
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    count: u32,
    /// Connections; as many calls can be under way, others wait, and their wait counts.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// Threads that share them. One is best as long as it keeps up: two take more of what the server needs.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    threads: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("pace: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Report, String> {
    let url = arguments.url.strip_prefix("http://");
    let url = url.ok_or(format!("'{}' does not begin with http://", arguments.url))?;
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let threads = arguments.threads.min(arguments.connections);
    let callers: Result<Vec<_>, String> = (0..threads)
        .map(|number| {
            // The first ones take what does not divide evenly.
            let connections = (arguments.connections + threads - 1 - number) / threads;
            Caller::new(authority, path, connections)
        })
        .collect();
    let callers = callers?;
    // Once all are connected; a moment later, so that every thread is there for its first call.
    let start = Instant::now() + Duration::from_millis(10);
    let plan = |number| Plan {
        start,
        rate: arguments.rate,
        next: number,
        step: threads,
        end: arguments.count,
    };
    let measured: Result<Vec<_>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(callers)
            .map(|(number, caller)| scope.spawn(move || caller.run(plan(number))))
            .collect();
        let panicked = |_| Err("a thread panicked".to_owned());
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    let report = Report::new(measured?, start.elapsed());
    if report.rate() < f64::from(arguments.rate) * KEPT {
        return Err(format!(
            "{} calls a second were not kept: {report}",
            arguments.rate
        ));
    }
    Ok(report)
}

/// Which calls a thread makes, and when.
struct Plan {
    start: Instant,
    rate: u32,
    next: u32,
    step: u32,
    end: u32,
}

impl Plan {
    /// When the next call is due, if there is one.
    fn due(&self) -> Option<Instant> {
        let after = Duration::from_secs(1) * self.next / self.rate;
        (self.next < self.end).then(|| self.start + after)
    }
}

/// What one thread found.
#[derive(Default)]
struct Measured {
    latencies: Vec<Duration>,
    /// How late calls were sent although a connection was free: this part of the latency is ours, not the server's.
    late: Vec<Duration>,
}

/// One thread's connections.
struct Caller {
    epoll: OwnedFd,
    request: Vec<u8>,
    connections: Vec<Connection>,
    /// Those without a call.
    free: Vec<usize>,
    /// Since when there has always been one of them.
    free_since: Instant,
    chunk: Vec<u8>,
    measured: Measured,
}

struct Connection {
    stream: TcpStream,
    /// Of the call that is under way.
    due: Option<Instant>,
    answer: Vec<u8>,
}

impl Caller {
    fn new(authority: &str, path: &str, connections: u32) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let connections: std::io::Result<Vec<_>> = (0..u64::from(connections))
            .map(|number| {
                let stream = TcpStream::connect(authority)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                epoll::add(&epoll, &stream, EventData::new_u64(number), EventFlags::IN)?;
                Ok(Connection {
                    stream,
                    due: None,
                    answer: Vec::new(),
                })
            })
            .collect();
        let connections =
            connections.map_err(|error| format!("no connection to '{authority}': {error}"))?;
        Ok(Self {
            epoll,
            request: format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes(),
            free: (0..connections.len()).collect(),
            free_since: Instant::now(),
            connections,
            chunk: vec![0; CHUNK],
            measured: Measured::default(),
        })
    }

    /// Makes the calls of a plan and waits for the last answer.
    fn run(mut self, mut plan: Plan) -> Result<Measured, String> {
        // Or the kernel may wake us 50 µs late, about as long as a call takes.
        set_current_timer_slack(NonZeroU64::new(1)).map_err(|error| error.to_string())?;
        let mut events = Vec::with_capacity(self.connections.len());
        while plan.due().is_some() || self.free.len() < self.connections.len() {
            self.send_due(&mut plan)?;
            let now = Instant::now();
            self.complain_if_overdue(now, &plan)?;
            let sleep = match plan.due() {
                Some(due) if !self.free.is_empty() => due.saturating_duration_since(now),
                _ => LONGEST,
            };
            let sleep = Timespec::try_from(sleep).map_err(|error| error.to_string())?;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&sleep)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            for event in events.drain(..) {
                let data = event.data;
                self.receive(data.u64() as usize)?;
            }
        }
        Ok(self.measured)
    }

    /// Sends what is due, as long as a connection is free.
    fn send_due(&mut self, plan: &mut Plan) -> Result<(), String> {
        while let (Some(due), Some(&number)) = (plan.due(), self.free.last()) {
            let now = Instant::now();
            if due > now {
                break;
            }
            let connection = &mut self.connections[number];
            // So few bytes always find room on a connection that has none under way.
            match connection.stream.write(&self.request) {
                Ok(sent) if sent == self.request.len() => {}
                Ok(sent) => return Err(format!("only {sent} bytes of a request were taken")),
                Err(error) => return Err(format!("a request could not be sent: {error}")),
            }
            connection.due = Some(due);
            self.free.pop();
            if due >= self.free_since {
                self.measured.late.push(now - due);
            }
            plan.next += plan.step;
        }
        Ok(())
    }

    /// Whether any call, under way or waiting for a connection, is there for too long.
    fn complain_if_overdue(&self, now: Instant, plan: &Plan) -> Result<(), String> {
        let under_way = self.connections.iter().filter_map(|one| one.due).min();
        let oldest = under_way.into_iter().chain(plan.due()).min();
        if oldest.is_none_or(|oldest| now.saturating_duration_since(oldest) < LONGEST) {
            return Ok(());
        }
        Err(format!(
            "calls pile up: after {:.1} s and {} calls the oldest one has no answer for {LONGEST:?}; \
             {} calls a second are too many for the server or for this caller",
            (now - plan.start).as_secs_f64(),
            plan.next,
            plan.rate
        ))
    }

    /// Takes what has come on a connection.
    fn receive(&mut self, number: usize) -> Result<(), String> {
        let connection = &mut self.connections[number];
        let size = match connection.stream.read(&mut self.chunk) {
            Ok(0) => return Err("the server closed a connection".to_owned()),
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("a connection broke: {error}")),
        };
        let Some(due) = connection.due else {
            return Err("an answer came without a call".to_owned());
        };
        connection.answer.extend_from_slice(&self.chunk[..size]);
        match length(&connection.answer)? {
            Some(length) if connection.answer.len() == length => {}
            Some(length) if connection.answer.len() > length => {
                return Err("an answer was longer than it said".to_owned());
            }
            _ => return Ok(()),
        }
        connection.answer.clear();
        connection.due = None;
        let now = Instant::now();
        self.measured.latencies.push(now - due);
        if self.free.is_empty() {
            self.free_since = now;
        }
        self.free.push(number);
        Ok(())
    }
}

/// How long an answer is, head and body, once its head is there. It must be a 200 of a known length.
fn length(answer: &[u8]) -> Result<Option<usize>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(answer);
    let parsed = parsed.map_err(|error| format!("an answer was no HTTP: {error}"))?;
    let httparse::Status::Complete(head_length) = parsed else {
        return Ok(None);
    };
    if head.code != Some(200) {
        let said = String::from_utf8_lossy(&answer[head_length..]);
        return Err(format!(
            "an answer was {}: {said}",
            head.code.unwrap_or_default()
        ));
    }
    let is_length = |field: &&httparse::Header| field.name.eq_ignore_ascii_case("content-length");
    let body: Option<usize> = head
        .headers
        .iter()
        .find(is_length)
        .and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let body = body.ok_or("an answer has no Content-Length")?;
    Ok(Some(head_length + body))
}

/// What all threads found.
struct Report {
    latencies: Vec<Duration>,
    late: Vec<Duration>,
    took: Duration,
}

impl Report {
    fn new(measured: Vec<Measured>, took: Duration) -> Self {
        let (latencies, late): (Vec<_>, Vec<_>) = measured
            .into_iter()
            .map(|measured| (measured.latencies, measured.late))
            .unzip();
        let sorted = |mut all: Vec<Duration>| {
            all.sort_unstable();
            all
        };
        Self {
            latencies: sorted(latencies.concat()),
            late: sorted(late.concat()),
            took,
        }
    }

    /// Answers a second.
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |sorted: &[Duration], quantile: f64| {
            let last = sorted.len().saturating_sub(1);
            let chosen = sorted.get((last as f64 * quantile).round() as usize);
            chosen.copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        write!(
            f,
            "{} calls, {:.0} a second; ms: p50 {:.3}, p99 {:.3}, longest {:.1}; sent late, ms: p50 {:.3}, p99 {:.3}; \
             no connection free for {}",
            self.latencies.len(),
            self.rate(),
            ms(&self.latencies, 0.5),
            ms(&self.latencies, 0.99),
            ms(&self.latencies, 1.0),
            ms(&self.late, 0.5),
            ms(&self.late, 0.99),
            self.latencies.len() - self.late.len(),
        )
    }
}
