//! From a run to its answer: whole and with an exact status when it is over, else begun and streamed.

use hyper::header::{CONTENT_TYPE, TRAILER};
use hyper::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::exit::Exit;
use crate::fork::Run;
use crate::mode::Mode;
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::timing::TRAILERS;
use crate::{content_type, reply, report};

/// The run is over and all its output is there: the status is exact.
pub(crate) fn over(mut run: Run, exit: Exit, headers: &HeaderMap) -> Response<Body> {
    let mode = run.watchdog().config.mode;
    if mode == Mode::Streaming && !run.output().is_empty() && exit != Exit::Status(0) {
        // The first byte commits, even if the failure was seen together with it: the client must not find one answer
        // today and another one tomorrow.
        return stream(run, headers, |run| Stream::ended(run, exit));
    }
    let output = run.take_output();
    match exit {
        Exit::Status(0) => {
            report::succeeded(&run, output.len());
            let kind = content_type::choose(
                run.watchdog().config.content_type.as_ref(),
                headers,
                &output,
            );
            let mut response = Response::new(Body::whole(output));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().extend(run.timing().fields());
            response
        }
        Exit::Status(_) | Exit::Signal(_) | Exit::CpuLimit { .. } => {
            let memory = &run.watchdog().memory;
            let reason = memory.explains(exit).unwrap_or_else(|| exit.to_string());
            report::failed(&run, output.len(), &reason);
            let mut response = reply::text(StatusCode::INTERNAL_SERVER_ERROR, "");
            let shown = if mode == Mode::Serializing {
                &[]
            } else {
                &output[..]
            };
            *response.body_mut() = Body::whole([reason.as_bytes(), b"\n", shown].concat());
            // The contract has no duration here.
            let [_, (name, parts)] = run.timing().fields();
            response.headers_mut().insert(name, parts);
            response
        }
        Exit::Unknown => {
            report::failed(&run, output.len(), &exit.to_string());
            reply::refused(&Refusal::ExitUnknown)
        }
    }
}

/// The answer begins before the end of the run is known.
pub(crate) fn stream(
    run: Run,
    headers: &HeaderMap,
    stream: impl FnOnce(Run) -> Stream,
) -> Response<Body> {
    let kind = content_type::choose(
        run.watchdog().config.content_type.as_ref(),
        headers,
        run.output(),
    );
    let mut response = Response::new(Body::streamed(stream(run)));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(TRAILER, TRAILERS);
    response
}
