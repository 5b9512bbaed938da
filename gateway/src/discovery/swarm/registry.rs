//! A login at the registry that a function's image comes from. Nodes pull with it, and say only in a failed task that it is wrong: so
//! the registry is asked before a service is made or changed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::Swarm;
use super::engine::EngineError;
use crate::discovery::operate::{Failed, Notes, RegistryLogin, Trouble, Wanted};

/// Docker's own registry, as logins name it.
const HUB: &str = "https://index.docker.io/v1/";

impl Swarm {
    /// The header by which the engine, and the nodes, log in at the image's registry; and what could not be found out about it. A
    /// registry that this engine does not reach may be reached by the nodes, or their images are there already.
    pub(super) async fn log_in(
        &self,
        wanted: &Wanted,
    ) -> Result<(Option<HeaderValue>, Notes), Failed> {
        let Some(login) = &wanted.registry else {
            return Ok((None, Notes::new()));
        };
        let image = &wanted.spec.image;
        let header = header(login, image)?;
        let path = format!("/distribution/{image}/json");
        let asked = self
            .engine
            .get_with::<Value>(&path, Some(header.clone()))
            .await;
        let registry = registry_of(image);
        let mistake = match asked {
            Ok(_) => return Ok((Some(header), Notes::new())),
            Err(EngineError::Says(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => {
                format!(
                    "registryAuth: the registry {registry} refuses user '{}' for {image}: check name and password, and whether it may pull that",
                    login.user.escape_debug()
                )
            }
            Err(EngineError::Says(StatusCode::NOT_FOUND, _)) => format!(
                "image: the registry {registry} has no {image} for this login: push it, or check its name"
            ),
            Err(error @ EngineError::Away(_)) => return Err(self.failed(&error)),
            Err(error) => {
                let note = format!(
                    "registryAuth: nobody knows whether the registry {registry} takes it: the engine {error}"
                );
                return Ok((Some(header), vec![note]));
            }
        };
        Err(Failed::new(
            Trouble::Invalid,
            format!("{mistake}; nothing was changed"),
        ))
    }
}

/// A login that is none, for a service whose image moves to another registry: the engine would keep the one that it has, and the nodes
/// would show it there.
pub(super) fn forgotten(spec: &Value, image: &str) -> Option<HeaderValue> {
    let had = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str()?;
    // `{}`, as the engine wants it.
    (registry_of(had) != registry_of(image)).then(|| HeaderValue::from_static("e30="))
}

fn header(login: &RegistryLogin, image: &str) -> Result<HeaderValue, Failed> {
    let RegistryLogin { user, password } = login;
    let login =
        json!({ "username": user, "password": password, "serveraddress": registry_of(image) });
    let mut header = HeaderValue::from_str(&URL_SAFE.encode(login.to_string()))
        .map_err(|_| Failed::new(Trouble::Invalid, "registryAuth: cannot be sent"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The registry that an image comes from: its first part, if that can be a host; else Docker Hub.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) => HUB,
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        _ => HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_stays_at_its_registry() {
        let spec = json!({ "TaskTemplate": { "ContainerSpec": { "Image": "a.example/cat:1" } } });
        assert_eq!(forgotten(&spec, "a.example/dog:2"), None);
        assert!(forgotten(&spec, "b.example/cat:1").is_some());
        assert!(forgotten(&spec, "cat").is_some());
    }

    #[test]
    fn an_image_names_its_registry() {
        for (image, registry) in [
            ("cat", HUB),
            ("skep/cat:1", HUB),
            ("docker.io/skep/cat", HUB),
            ("ghcr.io/a/cat@sha256:1", "ghcr.io"),
            ("localhost/cat", "localhost"),
            ("registry:5000/cat", "registry:5000"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }
}
