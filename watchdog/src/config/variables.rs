//! Every environment variable of the watchdog, for `-help` and for the test that holds the documentation to it.

/// One environment variable as `--help` and the documentation list it.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default,
        meaning,
    }
}

/// All variables, in the order of interest.
pub(crate) const VARIABLES: &[Variable] = &[
    variable(
        "fprocess",
        "(required)",
        "command that is run once per request: body in on stdin, answer out on stdout",
    ),
    variable(
        "function_process",
        "(unset)",
        "other name of fprocess; wins when both are set",
    ),
    variable(
        "exec_timeout",
        "0 (off), 30s with other modes",
        "how long one run may take before its whole process tree is ended",
    ),
    variable(
        "read_timeout",
        "30s",
        "how long a request's head, and its body, may take to arrive (answer 408)",
    ),
    variable(
        "write_timeout",
        "30s",
        "how long an answer may take to begin (504), then to go on; also the limit of the drain",
    ),
    variable(
        "healthcheck_interval",
        "= write_timeout",
        "accepted for compatibility; the drain never sleeps it through",
    ),
    variable(
        "max_inflight",
        "0 (no limit)",
        "calls at the same time; further ones are answered 429",
    ),
    variable(
        "combine_output",
        "true",
        "stderr becomes part of the answer; false: it goes to the watchdog's stderr",
    ),
    variable(
        "content_type",
        "(unset)",
        "Content-Type of every successful answer; with other modes application/octet-stream",
    ),
    variable(
        "cgi_headers",
        "true",
        "request head in the command's environment as Http_* variables",
    ),
    variable(
        "response_buffer",
        "65536",
        "bytes of output held back until the run ends; longer answers are streamed",
    ),
    variable(
        "marshal_request",
        "false",
        "stdin is a JSON object with the headers and the body in base64",
    ),
    variable(
        "input_mode",
        "stdin",
        "args: the body is a JSON array, or an object with args, and becomes arguments",
    ),
    variable(
        "prefork",
        "0 (off)",
        "processes started ahead, each waiting for a request; at most 255",
    ),
    variable(
        "prefork_idle",
        "0 (off)",
        "after so long without a call no process is kept waiting; the next call brings them back",
    ),
    variable(
        "max_cpu_seconds",
        "0 (no limit)",
        "seconds of processor time that each process of a run may use",
    ),
    variable(
        "max_open_files",
        "0 (no limit)",
        "file descriptors that each process of a run may have open",
    ),
    variable(
        "write_debug",
        "false",
        "copy the command's output to the watchdog's stdout",
    ),
    variable(
        "prefix_logs",
        "true",
        "other modes than classic: time and stream before each line of the command",
    ),
    variable(
        "log_buffer_size",
        "65536",
        "bytes of a line of the command's output that are kept together",
    ),
    variable(
        "log_callid",
        "false",
        "other modes than classic: X-Call-Id at the end of the line of each call",
    ),
    variable(
        "debug_headers",
        "false",
        "print the headers of requests and answers to stdout",
    ),
    variable("suppress_lock", "false", "do not create the lock file"),
    variable(
        "port",
        "8080",
        "TCP port; 0 takes a free one and says which",
    ),
    variable(
        "metrics_port",
        "8081",
        "TCP port of /metrics; 0 takes a free one and says which, off: no metrics",
    ),
    variable(
        "mode",
        "classic",
        "classic, streaming, serializing, http or static: how a request is answered",
    ),
    variable(
        "http_upstream_url",
        "required with mode=http",
        "where fprocess listens, for example http://127.0.0.1:3000",
    ),
    variable("upstream_url", "(unset)", "other name of http_upstream_url"),
    variable(
        "http_buffer_req_body",
        "false",
        "mode=http: gather a body and pass it on with its length",
    ),
    variable("buffer_http", "false", "other name of http_buffer_req_body"),
    variable(
        "idle_timeout",
        "0 (off)",
        "mode=http: stop the child after so long without a call; the next call starts it",
    ),
    variable(
        "stream_idle_timeout",
        "10m",
        "mode=http: how long nothing may flow in an answer that has begun, or in a tunnel",
    ),
    variable(
        "static_path",
        "/home/app/public",
        "mode=static: the directory whose files are served",
    ),
    variable(
        "ready_path",
        "(unset)",
        "mode=http: path of the function that answers /_/ready",
    ),
    variable("jwt_auth", "false", "not supported: true refuses to start"),
    variable(
        "jwt_auth_debug",
        "false",
        "goes with jwt_auth; warned of and not used",
    ),
    variable(
        "jwt_auth_local",
        "false",
        "goes with jwt_auth; warned of and not used",
    ),
    variable(
        "TMPDIR",
        "/tmp",
        "directory of the lock file, whose name is .lock",
    ),
    variable(
        "skep_lock_dir",
        "= TMPDIR",
        "directory of the lock file, kept from the command",
    ),
    variable(
        "skep_workers",
        "2 per CPU, at most 4",
        "most threads that serve requests; started as connections come",
    ),
    variable(
        "skep_inherit",
        "(unset)",
        "stdin: file descriptor 0 is the listening socket; exit when stdout's reader is gone",
    ),
];
