//! What outlives the gateway: opened at its start, tended while it runs, saved at its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth::keys::Keys;
use crate::auth::password::{self, Made};
use crate::auth::{Gate, GivenLogin, Login};
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

/// A login whose password ends with this process, and why it could not be kept.
pub(super) struct Unkept {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) why: String,
}

/// The login that was given; what was not is the same at every start, as far as it can be kept.
fn login(given: GivenLogin, state: &State) -> Result<(Login, Option<Unkept>), String> {
    let user = given.user.unwrap_or_else(|| password::USER.to_owned());
    if let Some(password) = given.password {
        return Ok((Login::checked(&user, &password)?, None));
    }
    match password::open(state) {
        Ok(Made { password, is_new }) => {
            let when = if is_new {
                "was made just now"
            } else {
                "is kept"
            };
            tracing::info!(
                "the management API asks for a login: user {user}, with the password that {when} in the data folder; `skep password` shows it (docker exec <container> skep password)"
            );
            Ok((Login::checked(&user, &password)?, None))
        }
        Err(why) => {
            let password = password::make().map_err(|error| format!("no password: {error}"))?;
            let login = Login::checked(&user, &password)?;
            let why = why.to_string();
            let unkept = Unkept {
                user,
                password,
                why,
            };
            Ok((login, Some(unkept)))
        }
    }
}

/// What is kept.
#[derive(Clone)]
pub(super) struct Kept {
    state: State,
    pub(super) gate: Arc<Gate>,
    pub(super) counts: Arc<Counts>,
}

impl Kept {
    /// Opens everything. The second part is the login, where its password was made for this process alone.
    ///
    /// # Errors
    /// One sentence: why there is no login although one is asked for.
    pub(super) fn open(config: &Config) -> Result<(Self, Option<Unkept>), String> {
        let given = config.login.as_ref().map(|login| {
            let (user, password) = (login.user.as_deref(), login.password.as_deref());
            GivenLogin::read(&login.folder, login.is_named, user, password)
        });
        let given = given.transpose()?;
        let folder = config.data_dir.as_deref();
        let state = folder.map(State::open).unwrap_or_default();
        let login = given.map(|given| login(given, &state)).transpose()?;
        let (login, unkept) = login.map_or((None, None), |(login, unkept)| (Some(login), unkept));
        let kept = Self {
            gate: Arc::new(Gate::new(login, Keys::open(&state))),
            counts: Arc::new(Counts::open(&state)),
            state,
        };
        Ok((kept, unkept))
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
