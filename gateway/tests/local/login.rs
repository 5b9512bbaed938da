//! Who may use the management API.

use crate::support::client::{get, request};
use crate::support::gateway::{Folder, Gateway, run};

const CAT: &str = "  cat:\n    fprocess: cat";
/// `admin:s3cret` and `admin:guess`.
const RIGHT: &str = "Basic YWRtaW46czNjcmV0";
const WRONG: &str = "Basic YWRtaW46Z3Vlc3M=";

fn asked(gateway: &Gateway, authorization: &str) -> (u16, Option<String>) {
    let answer = request(
        gateway.address,
        "GET",
        "/system/functions",
        &[("Authorization", authorization)],
        b"",
    );
    (
        answer.status,
        answer.header("www-authenticate").map(str::to_owned),
    )
}

#[test]
fn without_a_login_the_api_is_open_says_so_and_ignores_what_clients_send() {
    let gateway = Gateway::of(CAT);
    for header in ["Bearer ", WRONG, "nonsense"] {
        assert_eq!(asked(&gateway, header), (200, None), "{header}");
    }
    gateway.logs("/system is open to everybody");
}

#[test]
fn the_login_is_read_from_files_and_functions_never_ask_for_it() {
    let secrets = Folder::new();
    secrets.write("basic-auth-user", "admin\n");
    secrets.write("basic-auth-password", "s3cret\n");
    let gateway = Gateway::with(
        CAT,
        &[
            "--basic-auth",
            "true",
            "--secret-mount-path",
            secrets.0.to_str().unwrap(),
        ],
    );
    assert_eq!(asked(&gateway, RIGHT), (200, None));
    let challenge = Some("Basic realm=\"Restricted\"".to_owned());
    for header in [WRONG, "Bearer x", "Bearer "] {
        assert_eq!(
            asked(&gateway, header),
            (401, challenge.clone()),
            "{header}"
        );
    }
    for path in [
        "/system/functions",
        "/system/function/cat",
        "/system/info",
        "/system/secrets",
    ] {
        assert_eq!(get(gateway.address, path).status, 401, "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(gateway.address, path).status, 200, "{path}");
    }
    let call = request(
        gateway.address,
        "POST",
        "/function/cat",
        &[("Authorization", WRONG)],
        b"hi",
    );
    assert_eq!((call.status, call.text().as_str()), (200, "hi"));
    assert!(!gateway.log().contains("is open") && !gateway.log().contains("s3cret"));
}

#[test]
fn a_login_that_cannot_be_read_is_one_clear_line() {
    let folder = Folder::new();
    let stack = folder.write("stack.yml", "functions:\n  cat:\n    fprocess: cat\n");
    let args = [
        "local",
        stack.to_str().unwrap(),
        "--port",
        "0",
        "--basic-auth",
        "true",
        "--secret-mount-path",
        folder.0.to_str().unwrap(),
    ];
    let ended = run(&args, &[]);
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(
        told.lines().count() == 1
            && told.contains("basic-auth-user")
            && told.contains("basic_auth_user"),
        "{told}"
    );
}
