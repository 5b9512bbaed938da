//! Stack files as users write them, for `skep local` and `skep deploy`.

use crate::support::client::get;
use crate::support::gateway::{Folder, Gateway, skep};

#[test]
fn a_function_sees_the_text_of_its_stack_file() {
    let gateway = Gateway::of(
        "  show:\n    fprocess: env\n    environment:\n      id: 0049123\n      country: NO\n      many: 18446744073709551616\n      date: 2001-12-14\n      version: 1.10\n      none: ~\n      \
         unset: ${SKEP_TEST_UNSET}\n      cost: 5$$\n  odd:\n    lang: nosuch\n    labels:\n      skep.timeuot: 5s\n",
    );
    let seen = get(gateway.address, "/function/show").text();
    for line in [
        "id=0049123",
        "country=NO",
        "many=18446744073709551616",
        "date=2001-12-14",
        "version=1.10",
        "none=",
        "unset=",
        "cost=5$",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} in {seen}");
    }
    assert!(
        gateway.greeting.contains("skipped: it has no fprocess"),
        "{}",
        gateway.greeting
    );
    gateway.logs("the variable of ${SKEP_TEST_UNSET} is not set");
    gateway.logs("did you mean skep.timeout?");
}

/// What `skep deploy` prints as an error, in a folder of its own.
fn deploy(folder: &Folder, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = skep();
    command.arg("deploy").args(args).current_dir(&folder.0);
    let output = command.envs(env.iter().copied()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn deploy_takes_the_stack_file_of_the_folder_and_its_gateway() {
    let stack = |port: u16| {
        format!(
            "provider:\n  name: faas\n  gateway: http://127.0.0.1:{port}\nfunctions:\n  f:\n    image: i\n    lang: go\n    enviroment: {{}}\n"
        )
    };
    let folder = Folder::new();
    for args in [[].as_slice(), &["-f"], &["f"]] {
        let said = deploy(&folder, args, &[]);
        assert!(said.contains("neither stack.yml nor stack.yaml"), "{said}");
    }
    // Nothing listens on port 1 and 2, and the error says which one was asked.
    folder.write("stack.yaml", &stack(1));
    for args in [[].as_slice(), &["-f"], &["f"], &["-f", "stack.yaml"]] {
        let said = deploy(&folder, args, &[]);
        assert!(
            said.contains("no answer from http://127.0.0.1:1:"),
            "{args:?}: {said}"
        );
        assert!(
            said.contains("line 8: functions.f.enviroment is not known"),
            "{said}"
        );
        assert!(!said.contains("is taken"), "{said}");
    }
    folder.write("stack.yml", &stack(2));
    let said = deploy(&folder, &[], &[]);
    assert!(said.contains("stack.yml is taken"), "{said}");
    assert!(said.contains("http://127.0.0.1:2:"), "{said}");
    for (args, env, port) in [
        (
            ["--gateway", "127.0.0.1:3"].as_slice(),
            [("skep_gateway", "127.0.0.1:4")],
            3,
        ),
        (&[], [("skep_gateway", "127.0.0.1:4")], 4),
        (&[], [("OPENFAAS_URL", "127.0.0.1:5")], 5),
    ] {
        let said = deploy(&folder, args, &env);
        assert!(
            said.contains(&format!("http://127.0.0.1:{port}:")),
            "{said}"
        );
    }
}
