//! Stack files of every kind, understood or refused.

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "PATH" => Some("/bin:/usr/bin".to_owned()),
        "WHO" => Some("me".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Stack, Vec<String>> {
    Ok(Stack::parse(text, Path::new("/tmp"), &env)?.0)
}

#[test]
fn reads_what_clients_write() {
    let stack = parse(
        "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://127.0.0.1:8080\nfunctions:\n  cat:\n    lang: dockerfile\n    handler: ./\n    image: skep/cat\n    \
         fprocess: cat\n    environment:\n      write_debug: true\n      who: ${WHO}\n      level: ${LEVEL:-low}\n      n: 3\n    labels:\n      com.openfaas.scale.min: 2\n      \
         skep.timeout: 5s\n    limits:\n      memory: 40Mi\n    build_args:\n      X: y\n",
    )
    .unwrap();
    let cat = stack.functions.values().next().unwrap();
    assert_eq!(
        cat.run,
        Run::Command {
            replicas: 2,
            folder: "/tmp".into()
        }
    );
    let vars: Vec<_> = cat
        .spec
        .env_vars
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(vars, ["level=low", "n=3", "who=me", "write_debug=true"]);
    assert_eq!(cat.limits.timeout.unwrap().as_secs(), 5);
    assert_eq!(cat.spec.limits.memory.as_deref(), Some("40Mi"));
}

#[test]
fn an_upstream_needs_no_command() {
    let stack = parse(
        "functions:\n  there:\n    annotations:\n      skep.upstream: http://localhost:9000/\n",
    )
    .unwrap();
    assert_eq!(
        stack.functions.values().next().unwrap().run,
        Run::Upstream("localhost:9000".to_owned())
    );
}

#[test]
fn a_function_whose_runtime_is_missing_is_skipped_with_a_reason() {
    let stack = parse("functions:\n  x:\n    fprocess: nosuch run\n    annotations:\n      skep.requires: nosuch\n").unwrap();
    assert_eq!(
        stack.skipped.values().next().unwrap(),
        "nosuch is not on this machine"
    );
    assert!(stack.functions.is_empty());
}

#[test]
fn every_mistake_is_reported_at_once() {
    let mistakes = parse(
        "functions:\n  a/b:\n    fprocess: cat\n  none:\n    image: x\n  missing:\n    fprocess: nosuchcommand -x\n  up:\n    \
         annotations:\n      skep.upstream: ftp://x\n  many:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 1000\n",
    )
    .unwrap_err();
    assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    for part in [
        "'a/b'",
        "'nosuchcommand' was not found",
        "skep.upstream",
        "from 1 to 64",
    ] {
        assert!(
            mistakes.iter().any(|line| line.contains(part)),
            "{part} in {mistakes:?}"
        );
    }
}

#[test]
fn what_is_no_stack_file_is_refused_in_words() {
    for text in [
        "",
        "hello",
        "functions: 3",
        "functions: {}",
        "a: [1",
        "functions:\n  x: [1]\n",
    ] {
        assert!(!parse(text).unwrap_err().is_empty(), "{text}");
    }
    assert!(
        Stack::load(Path::new("/nosuch/stack.yml"), env).unwrap_err()[0]
            .contains("cannot read /nosuch/stack.yml")
    );
}

fn warnings(text: &str) -> Vec<String> {
    Stack::parse(text, Path::new("/tmp"), &env).unwrap().1
}

fn only(text: &str) -> Spec {
    let stack = parse(text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
    stack.functions.into_values().next().unwrap().spec
}

#[test]
fn scalars_keep_their_text() {
    let scalars = [
        ("0049123", "0049123"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("True", "True"),
        ("true", "true"),
        ("1e3", "1e3"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("1.10", "1.10"),
        ("+1", "+1"),
        (".5", ".5"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("18446744073709551616", "18446744073709551616"),
        (
            "99999999999999999999999999999999999999999999",
            "99999999999999999999999999999999999999999999",
        ),
        ("2001-12-14", "2001-12-14"),
        (
            "2001-12-14t21:59:43.10-05:00",
            "2001-12-14t21:59:43.10-05:00",
        ),
        ("12:30:45", "12:30:45"),
        ("'007'", "007"),
        ("\"a\\tb\"", "a\tb"),
        ("'~'", "~"),
        ("~", ""),
        ("null", ""),
        ("", ""),
        ("\"\"", ""),
        ("a # comment", "a"),
        ("a#b", "a#b"),
    ];
    for (written, read) in scalars {
        let text = format!(
            "functions:\n  f:\n    fprocess: cat\n    environment:\n      a: {written}\n    labels:\n      b: {written}\n    annotations:\n      c: {written}\n    constraints:\n      - {written}\n    \
             secrets:\n      - {written}\n    build_args:\n      d: {written}\n    limits:\n      memory: {written}\n"
        );
        let spec = only(&text);
        assert_eq!(spec.env_vars["a"], read, "{written}");
        assert_eq!(spec.labels["b"], read, "{written}");
        assert_eq!(spec.annotations["c"], read, "{written}");
        assert_eq!(
            [spec.constraints, spec.secrets].concat(),
            [read, read],
            "{written}"
        );
    }
}

#[test]
fn keys_keep_their_text_too() {
    let spec = only(
        "functions:\n  f:\n    fprocess: cat\n    environment:\n      007: x\n      NO: y\n      1.0: z\n",
    );
    let names: Vec<_> = spec.env_vars.keys().map(String::as_str).collect();
    assert_eq!(names, ["007", "1.0", "NO"]);
}

#[test]
fn a_variable_is_text_whatever_is_in_it() {
    let value = "a: b\n  - \"c' # d\\";
    let env = |name: &str| match name {
        "EVIL" => Some(value.to_owned()),
        "NULL" => Some("null".to_owned()),
        other => env(other),
    };
    let text = "functions:\n  # ${NONE} ${EVIL/x} ${\n  f: # ${NONE}\n    fprocess: cat ${NULL}\n    environment:\n      plain: ${EVIL}\n      single: '${EVIL}'\n      double: \"${EVIL}\"\n      \
                flow: ${NULL}\n      quoted: \"${NONE:-it's}\"\n      block: |\n        # kept ${NULL} $${NULL}\n    constraints: [\"${NULL}\", ${NULL}, ${NONE:-x}]\n    secrets: [${EVIL}]\n";
    let (stack, warnings) = Stack::parse(text, Path::new("/tmp"), &env).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let spec = &stack.functions.values().next().unwrap().spec;
    for name in ["plain", "single", "double"] {
        assert_eq!(spec.env_vars[name], value, "{name}");
    }
    assert_eq!(spec.env_vars["flow"], "null");
    assert_eq!(spec.env_vars["quoted"], "it's");
    assert_eq!(spec.env_vars["block"], "# kept null ${NULL}\n");
    assert_eq!(spec.constraints, ["null", "null", "x"]);
    assert_eq!(spec.secrets, [value]);
}

#[test]
fn unset_variables_are_named_and_unknown_forms_refused_with_their_line() {
    let warned = warnings(
        "functions:\n  f:\n    fprocess: cat\n    environment:\n      a: ${NONE}\n      b: ${NONE}\n",
    );
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].starts_with("line 5: the variable of ${NONE} is not set"),
        "{warned:?}"
    );
    let mistakes =
        parse("functions:\n  f:\n    fprocess: cat\n    build_args:\n      a: ${WHO/x/y}\n")
            .unwrap_err();
    assert!(
        mistakes[0].starts_with("line 5: ${WHO/x/y} is a form that is not known"),
        "{mistakes:?}"
    );
}

#[test]
fn the_files_of_users_work() {
    let anchors = "x-defaults: &defaults\n  fprocess: cat\n  environment: &env\n    tier: 007\n  labels:\n    team: a\nprovider:\n  name: faas\n  network: func_functions\nfunctions:\n  f:\n    <<: *defaults\n    \
                   x-note: mine\n    lang: python3\n    image: r/f:0.1\n    environment:\n      <<: *env\n      more: yes\n    skip_build: true\n    build_options: [dev]\n    build_args:\n      PIP: 1.10\n    \
                   requests:\n      memory: 40Mi\n      cpu: 100m\n    annotations:\n      topic: cron-function\n      schedule: \"*/5 * * * *\"\nconfiguration:\n  templates:\n    - name: python3\n      source: https://example.com/t\n";
    assert_eq!(warnings(anchors), Vec::<String>::new());
    let spec = only(anchors);
    assert_eq!(spec.env_vars["tier"], "007");
    assert_eq!(spec.env_vars["more"], "yes");
    assert_eq!(spec.annotations["schedule"], "*/5 * * * *");
    assert_eq!(spec.requests.cpu.as_deref(), Some("100m"));
    // As Windows' editors write it, and with keys that have nothing after them.
    let windows = format!("\u{feff}---\n{anchors}").replace('\n', "\r\n");
    assert_eq!(only(&windows), spec);
    let empty = only(
        "provider:\nfunctions:\n  f:\n    fprocess: cat\n    environment:\n    labels:\n    secrets:\n    limits:\n    handler:\n    lang:\n    readonly_root_filesystem: yes\n",
    );
    assert!(empty.env_vars.is_empty() && empty.read_only);
}

#[test]
fn mistakes_in_the_yaml_have_line_and_column() {
    for (text, line) in [
        ("functions:\n  f:\n\t  fprocess: cat\n", "line 3"),
        (
            "functions:\n  f:\n    fprocess: cat\n    fprocess: wc\n",
            "line 4",
        ),
        (
            "functions:\n  f:\n    fprocess: cat\n  f:\n    fprocess: wc\n",
            "line 4",
        ),
        ("functions:\n  f:\n    environment: [a, b]\n", "line 3"),
        ("functions:\n  f:\n    labels:\n      a: [1]\n", "line 4"),
        ("functions:\n  f:\n    secrets: one\n", "line 3"),
        ("functions:\n  f:\n    build_args: [x]\n", "line 3"),
        ("functions:\n  f:\n    fprocess: \"cat\n", "line 3"),
        ("functions:\n  f:\n    <<: *none\n", "line 3"),
        (
            "functions:\n  f:\n    environment:\n      a: \"\\0\"\n",
            "line 4",
        ),
    ] {
        let mistakes = parse(text).unwrap_err().join("\n");
        assert!(
            mistakes.contains(line) && mistakes.contains("column"),
            "{text}: {mistakes}"
        );
        assert!(mistakes.lines().count() == 1, "{mistakes}");
    }
}

#[test]
fn odd_keys_labels_and_providers_are_warned_of_with_the_near_name() {
    let warned = warnings(
        "version: 1.0\nprovider:\n  name: lambda\n  gatway: x\nfunctons: 1\nfunctions:\n  f:\n    fprocess: cat\n    enviroment:\n      a: b\n    limits:\n      memry: 1\n    \
         labels:\n      skep.timeuot: 5s\n      com.openfaas.scale.mim: 2\n      canary: true\n    annotations:\n      skep.timeout: 5s\n",
    );
    for part in [
        "line 4: provider.gatway is not known, and ignored: did you mean gateway?",
        "line 5: functons is not known, and ignored: did you mean functions?",
        "line 9: functions.f.enviroment is not known, and ignored: did you mean environment?",
        "line 12: functions.f.limits.memry is not known, and ignored: did you mean memory?",
        "provider.name is 'lambda'",
        "label skep.timeuot ignored: it is not known: did you mean skep.timeout?",
        "label com.openfaas.scale.mim ignored: it is not known: did you mean com.openfaas.scale.min?",
        "annotation skep.timeout ignored: it is a label, and no annotation",
    ] {
        assert!(
            warned.iter().any(|line| line.contains(part)),
            "{part} in {warned:#?}"
        );
    }
    assert_eq!(warned.len(), 8, "{warned:#?}");
}

#[test]
fn a_function_without_a_command_is_skipped_and_the_others_run() {
    let folder = std::env::temp_dir().join(format!("skep-stack-{}", std::process::id()));
    let language = folder.join("template/shell");
    std::fs::create_dir_all(&language).unwrap();
    std::fs::write(
        language.join("template.yml"),
        "language: shell\nfprocess: cat -u\n",
    )
    .unwrap();
    let text = "functions:\n  a:\n    fprocess: cat\n  b:\n    lang: shell\n  c:\n    lang: go\n  d:\n    lang: ../shell\n  e:\n";
    let (stack, _) = Stack::parse(text, &folder, &env).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let run: Vec<_> = stack
        .functions
        .values()
        .map(|function| function.spec.env_process.as_deref().unwrap())
        .collect();
    assert_eq!(run, ["cat", "cat -u"]);
    let skipped: Vec<_> = stack
        .skipped
        .iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    assert_eq!(skipped.len(), 3);
    assert!(
        skipped[0]
            .starts_with("c: it has no fprocess, and there is none in template/go/template.yml"),
        "{skipped:?}"
    );
}
