//! Notes which commit this is, for `/healthz`, `/system/info` and `skep --version`.

use std::path::Path;
use std::process::Command;

fn main() {
    for (name, format) in [("SKEP_GIT_SHA", "%H"), ("SKEP_GIT_SUBJECT", "%s")] {
        // An image is built without the repository: then the build passes the value in.
        println!("cargo::rerun-if-env-changed={name}");
        let given = std::env::var(name).ok().filter(|value| !value.is_empty());
        let value = given
            .or_else(|| git(&["log", "-1", &format!("--format={format}")]))
            .unwrap_or_else(|| "unknown".to_owned());
        println!("cargo::rustc-env={name}={value}");
    }
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        // Relative, or absolute in a second working tree.
        let head = Path::new("..").join(head);
        println!("cargo::rerun-if-changed={}", head.display());
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(args)
        .current_dir("..")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}
