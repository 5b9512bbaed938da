//! A network namespace, and how a thread gets into it.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::run;

/// A network namespace.
pub(super) struct Namespace(pub(super) String);

impl Namespace {
    pub(super) fn new(name: String) -> Self {
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    pub(super) fn file(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    pub(super) fn enter(&self) -> impl FnOnce() + Send + 'static {
        let namespace = File::open(self.file()).unwrap();
        move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap()
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The last one inside has ended.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
