//! A function's own route through the management API: told, and refused where another function has it.

use serde::Serialize;

use super::manager::Manager;
use crate::discovery::operate::{Failed, Trouble, Wanted};
use crate::function::route::{NotARoute, OwnRoute};
use crate::table::{Function, Routes};

/// The host and path that a function wants for itself, and what came of it.
#[derive(Serialize)]
pub(super) struct RouteStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strip: Option<bool>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl<'a> RouteStatus<'a> {
    pub(super) fn of(function: &'a Function, routes: &Routes) -> Option<Self> {
        let route = match &function.deployment.route {
            Ok(route) => route.as_ref()?,
            Err(NotARoute { label, why }) => {
                return Some(Self {
                    host: None,
                    path: None,
                    strip: None,
                    state: "invalid",
                    reason: Some(format!("{label}: {why}")),
                });
            }
        };
        let owner = routes.owner(route);
        let other = owner.filter(|owner| **owner != function.deployment.name);
        Some(Self {
            host: route.host.as_deref(),
            path: Some(route.shown_path()),
            strip: Some(route.strip),
            state: if other.is_some() { "taken" } else { "active" },
            reason: other.map(|owner| route.taken_by(owner)),
        })
    }
}

impl Manager {
    /// Refuses a route that another function has; that its labels are a route was checked before.
    pub(super) fn check_route(&self, wanted: &Wanted) -> Result<(), Failed> {
        let labels = &wanted.spec.labels;
        let route = OwnRoute::read(|label| labels.get(label).map(String::as_str));
        let Ok(Some(route)) = route else {
            return Ok(());
        };
        let snapshot = self.pages.table.snapshot();
        match snapshot.routes().owner(&route) {
            Some(owner) if *owner != wanted.name => {
                Err(Failed::new(Trouble::Conflict, route.taken_by(owner)))
            }
            _ => Ok(()),
        }
    }
}
