//! Which function a host and a path belong to: an index of all own routes, made once for each snapshot.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::Function;
use crate::function::FunctionName;
use crate::function::route::{MAX_HOST, MAX_PATH, OwnRoute};

/// The hosts and paths that are functions' own.
#[derive(Default)]
pub struct Routes {
    /// On these hosts nothing else is found.
    hosts: HashMap<Arc<str>, Paths>,
    /// On all others.
    anywhere: Paths,
    clashes: BTreeSet<Clash>,
}

/// The owners of the paths on a host.
#[derive(Default)]
struct Paths {
    owners: HashMap<Arc<str>, Owner>,
    /// Segments of the longest of them: no more of a request's path need be looked at.
    deepest: usize,
}

struct Owner {
    name: FunctionName,
    strip: bool,
}

/// Somebody wants what somebody else has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Clash {
    route: String,
    without: FunctionName,
    owner: FunctionName,
}

/// Whose own a request's host and path are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// A function's, which sees the path without so many of its first bytes.
    Function(FunctionName, usize),
    /// Nobody's: the host is somebody's own, and the path is not.
    Nothing,
}

impl Routes {
    /// The routes of these functions. Where two want the same, the older one has it, and among equals the first by name: every
    /// gateway comes to the same end, whenever it starts.
    pub(super) fn of<'a>(functions: impl Iterator<Item = &'a Arc<Function>>) -> Self {
        let wanting = functions.filter_map(|function| {
            let route = function.deployment.route.as_ref().ok()?.as_ref()?;
            Some((rank(function), route))
        });
        let mut wanting: Vec<_> = wanting.collect();
        wanting.sort_by_key(|(rank, _)| *rank);
        let mut routes = Self::default();
        for ((_, _, name), route) in wanting {
            if let Some(owner) = routes.owner(route) {
                let clash = Clash {
                    route: route.to_string(),
                    without: name.clone(),
                    owner: owner.clone(),
                };
                routes.clashes.insert(clash);
                continue;
            }
            let paths = match &route.host {
                Some(host) => routes.hosts.entry(host.clone()).or_default(),
                None => &mut routes.anywhere,
            };
            paths.add(route, name);
        }
        routes
    }

    /// Whether no function has one.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.anywhere.owners.is_empty()
    }

    /// Who has this route.
    #[must_use]
    pub fn owner(&self, route: &OwnRoute) -> Option<&FunctionName> {
        let paths = match &route.host {
            Some(host) => self.hosts.get(host)?,
            None => &self.anywhere,
        };
        paths.owners.get(&route.path).map(|owner| &owner.name)
    }

    /// How many functions are without the route that they want.
    #[must_use]
    pub fn clashes(&self) -> u32 {
        u32::try_from(self.clashes.len()).unwrap_or(u32::MAX)
    }

    /// Says in the log who lost a route and who no longer does.
    pub(super) fn tell_what_changed(&self, before: &Self) {
        for Clash {
            route,
            without,
            owner,
        } in self.clashes.difference(&before.clashes)
        {
            tracing::warn!(function = %without, %owner, route, "route refused: another function has it, and keeps it");
        }
        for Clash { route, without, .. } in before.clashes.difference(&self.clashes) {
            tracing::info!(function = %without, route, "route no longer refused for that reason");
        }
    }

    /// Whose own a host and a path are, both as a request has them: compared as they came, nothing decoded or tidied.
    pub(super) fn find(&self, host: &[u8], path: &str) -> Option<Own> {
        let mut lowered = [0; MAX_HOST];
        let paths = name_of(host, &mut lowered).and_then(|name| self.hosts.get(name));
        match paths {
            Some(paths) => Some(paths.find(path).unwrap_or(Own::Nothing)),
            None => self.anywhere.find(path),
        }
    }
}

impl Paths {
    fn add(&mut self, route: &OwnRoute, name: &FunctionName) {
        let segments = route.path.matches('/').count();
        self.deepest = self.deepest.max(segments);
        let owner = Owner {
            name: name.clone(),
            strip: route.strip,
        };
        self.owners.insert(route.path.clone(), owner);
    }

    /// The owner of the longest path that this one begins with, ending where a segment ends.
    fn find(&self, path: &str) -> Option<Own> {
        if self.owners.is_empty() || !path.starts_with('/') {
            return None;
        }
        let slashes = path.match_indices('/').map(|(at, _)| at);
        // The end of no segment, of one, of two; the whole path last.
        let ends = slashes.chain([path.len()]).take(self.deepest + 1);
        let ends = ends.take_while(|end| *end <= MAX_PATH);
        let owners = ends.filter_map(|end| Some((end, self.owners.get(&path[..end])?)));
        owners.last().map(|(end, owner)| {
            Own::Function(owner.name.clone(), if owner.strip { end } else { 0 })
        })
    }
}

/// The older comes first, one that does not say when it was made last; then by name.
fn rank(function: &Function) -> (bool, Option<SystemTime>, &FunctionName) {
    let made = function.deployment.spec.created_at.as_deref();
    let made = made.and_then(|text| humantime::parse_rfc3339(text).ok());
    (made.is_none(), made, &function.deployment.name)
}

/// The name in a `Host` field or an authority, in small letters: without its port and the dot of the root.
fn name_of<'a>(host: &[u8], lowered: &'a mut [u8; MAX_HOST]) -> Option<&'a str> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let name = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if host[colon + 1..].iter().all(is_digit) => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let lowered = lowered.get_mut(..name.len())?;
    lowered.copy_from_slice(name);
    lowered.make_ascii_lowercase();
    std::str::from_utf8(lowered).ok()
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
