//! What outlives the gateway: opened at its start, tended while it runs, saved at its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth::keys::Keys;
use crate::auth::{Gate, Login};
use crate::config::Config;
use crate::state::State;

/// How often keys that another gateway made or revoked in the same folder are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// When a key was last used is kept every so many looks: it is known to the minute only.
const USES: u64 = 60;

/// What is kept.
#[derive(Clone)]
pub(super) struct Kept {
    state: State,
    pub(super) gate: Arc<Gate>,
}

impl Kept {
    /// Opens everything.
    ///
    /// # Errors
    /// One sentence: why there is no login although one is asked for.
    pub(super) fn open(config: &Config) -> Result<Self, String> {
        let login = config.login.as_ref().map(|login| {
            Login::from_files(
                &login.folder,
                login.user.as_deref(),
                login.password.as_deref(),
            )
        });
        let login = login.transpose()?;
        let folder = config.data_dir.as_deref();
        let state = folder.map(State::open).unwrap_or_default();
        Ok(Self {
            gate: Arc::new(Gate::new(login, Keys::open(&state))),
            state,
        })
    }

    /// Looks after everything for as long as the gateway runs.
    pub(super) fn tend(&self) {
        if !self.state.has_folder() {
            return;
        }
        let gate = self.gate.clone();
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for look in 1.. {
                looks.tick().await;
                let gate = gate.clone();
                let tended = tokio::task::spawn_blocking(move || {
                    gate.keys().refresh();
                    if look % USES == 0 {
                        gate.keys().save_uses();
                    }
                });
                if let Err(error) = tended.await {
                    tracing::error!("the state could not be looked after: {error}");
                }
            }
        });
    }

    /// Saves what has not been saved yet.
    pub(super) fn save(&self) {
        self.gate.keys().save_uses();
    }
}
