//! A started command with our ends of its pipes, whether a call waits for it already or not.

use std::io;
use std::os::fd::OwnedFd;

use crate::command::Command;
use crate::pipes::{self, Writer};
use crate::quota::Quota;
use crate::spawn::{self, Child, ChildEnds, Program};
use crate::strings::Strings;

/// How much of the output of a child that has ended unused is read.
const LAST_WORDS: usize = 4 * 1024;

/// What every start has in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// stderr shares the pipe of stdout.
    pub(crate) is_combined: bool,
    /// There is a pipe for the note on the request.
    pub(crate) has_note: bool,
    pub(crate) quota: Quota,
}

/// A process and our ends of its pipes. None of them is registered with a runtime: they may go to another thread.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) pipes: Pipes,
}

/// Our ends.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: Writer,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) note: Option<Writer>,
}

impl Setup {
    /// Starts the command with these arguments and this environment, marked by this limit of its resident set.
    pub(crate) fn start(
        &self,
        command: &Command,
        arguments: &Strings,
        environment: &Strings,
        resident_limit: u64,
    ) -> io::Result<Started> {
        let path = command.path()?;
        let (stdin, child_stdin) = pipes::into_command()?;
        let (stdout, child_stdout) = pipes::out_of_command()?;
        let stderr = (!self.is_combined)
            .then(pipes::out_of_command)
            .transpose()?;
        let note = self.has_note.then(pipes::into_command).transpose()?;
        let (stderr, child_stderr) = stderr.unzip();
        let (note, child_note) = note.unzip();
        let program = Program {
            path,
            arguments,
            environment,
            quota: self.quota,
            resident_limit,
        };
        let ends = ChildEnds {
            stdin: child_stdin,
            stdout: child_stdout,
            stderr: child_stderr,
            note: child_note,
        };
        let child = spawn::spawn(&program, &ends)?;
        let pipes = Pipes {
            stdin,
            stdout,
            stderr,
            note,
        };
        Ok(Started { child, pipes })
    }
}

impl Pipes {
    /// What a child that has ended unused has left behind, its complaint most likely.
    pub(crate) fn last_words(&self) -> Vec<u8> {
        let mut words = Vec::new();
        pipes::take(
            self.stderr.as_ref().unwrap_or(&self.stdout),
            &mut words,
            LAST_WORDS,
        );
        words
    }
}
