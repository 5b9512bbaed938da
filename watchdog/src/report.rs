//! What the log says of a run. The beginnings of these lines are known to programs that read such logs; in the other
//! modes than the classic one a run that went well has the line of its call only, see `record`.

use crate::duration::seconds;
use crate::fork::Run;
use crate::mode::Mode;
use crate::watchdog::Watchdog;

/// A run is about to start.
pub(crate) fn starting(watchdog: &Watchdog) {
    if watchdog.config.mode == Mode::Classic {
        watchdog.log.line(format_args!("Forking fprocess"));
    }
}

/// A run has ended well.
pub(crate) fn succeeded(run: &Run, written: usize) {
    if run.watchdog().config.mode != Mode::Classic {
        return;
    }
    let seconds = seconds(run.timing().elapsed());
    if run.watchdog().config.write_debug {
        run.watchdog()
            .log
            .line(format_args!("Duration: {seconds}s"));
    } else {
        run.watchdog()
            .log
            .line(format_args!("Wrote {written} Bytes - Duration: {seconds}s"));
    }
}

/// A run has failed or was ended.
pub(crate) fn failed(run: &Run, written: usize, reason: &str) {
    let seconds = seconds(run.timing().elapsed());
    run.watchdog().log.line(format_args!(
        "Failed: {reason} - wrote {written} bytes - Duration: {seconds}s"
    ));
}

/// A call that never became a run.
pub(crate) fn refused(watchdog: &Watchdog, sentence: &str) {
    watchdog.log.line(format_args!("Failed: {sentence}"));
}
