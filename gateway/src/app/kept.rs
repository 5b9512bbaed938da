//! What outlives the gateway: opened at its start, tended while it runs, saved at its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth::keys::Keys;
use crate::auth::{Gate, Login};
use crate::config::Config;
use crate::counts::Counts;
use crate::state::State;
use crate::table::Table;

/// How often keys that another gateway made or revoked in the same folder are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Counts of calls are kept every so many looks.
const COUNTS: u64 = 5;
/// When a key was last used is kept every so many looks: it is known to the minute only.
const USES: u64 = 60;

/// What is kept.
#[derive(Clone)]
pub(super) struct Kept {
    state: State,
    pub(super) gate: Arc<Gate>,
    pub(super) counts: Arc<Counts>,
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
            counts: Arc::new(Counts::open(&state)),
            state,
        })
    }

    /// Looks after everything for as long as the gateway runs.
    pub(super) fn tend(&self, table: Table) {
        if !self.state.has_folder() {
            return;
        }
        let kept = self.clone();
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for look in 1.. {
                looks.tick().await;
                let (kept, table) = (kept.clone(), table.clone());
                let tended = tokio::task::spawn_blocking(move || {
                    kept.gate.keys().refresh();
                    if look % COUNTS == 0 {
                        kept.counts.save(&table);
                    }
                    if look % USES == 0 {
                        kept.gate.keys().save_uses();
                    }
                });
                if let Err(error) = tended.await {
                    tracing::error!("the state could not be looked after: {error}");
                }
            }
        });
    }

    /// Saves what has not been saved yet.
    pub(super) fn save(&self, table: &Table) {
        self.gate.keys().save_uses();
        self.counts.save(table);
    }
}
