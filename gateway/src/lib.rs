//! skep's gateway: finds functions, routes calls to them, balances, and says what it sees.
//!
//! The map and the stories are in `docs/architecture.md`. A call is read in this order: [`server`] accepts, [`edge`] gives it an id,
//! [`router`] says where it goes, [`invoke`] finds the function in the [`table`], picks an [`endpoint`] and forwards.
//! A change is read in this order: [`discovery`] hears a hint, lists, and the [`table`] is published anew; [`probe`] speaks to
//! what is new.

pub mod alarm;
pub mod api;
pub mod app;
mod asker;
pub mod auth;
pub mod budget;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod connect;
pub mod connection;
pub mod counts;
pub mod descriptors;
pub mod discovery;
pub mod drain;
pub mod duration;
pub mod edge;
pub mod endpoint;
pub mod escaped;
pub mod function;
pub mod handover;
pub mod http1;
pub mod incoming;
pub mod invoke;
pub mod life;
pub mod metrics;
pub mod probe;
pub mod proxies;
pub mod quantity;
pub mod regular_file;
pub mod reply;
pub mod router;
pub mod server;
pub mod state;
pub mod table;
pub mod tally;
pub mod throttle;
pub mod told;
pub mod turnstile;
pub mod upload;

/// This release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from.
pub const GIT_SHA: &str = env!("SKEP_GIT_SHA");
/// That commit's subject.
pub const GIT_SUBJECT: &str = env!("SKEP_GIT_SUBJECT");
/// What `X-Served-By` says.
pub const SERVED_BY: &str = concat!("skep/", env!("CARGO_PKG_VERSION"));
