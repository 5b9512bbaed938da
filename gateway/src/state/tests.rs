//! Documents over real files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use serde::Deserialize;

use super::*;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Marks {
    marks: BTreeMap<String, u32>,
}

/// A folder that goes with its holder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("skep-state-{}-{:x}", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    fn marks(&self) -> Document<Marks> {
        State::open(&self.0).document("marks", 1)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mark(document: &Document<Marks>, name: &str) {
    let count = |marks: &mut Marks| *marks.marks.entry(name.to_owned()).or_default() += 1;
    document.change(count).unwrap();
}

#[test]
fn what_was_changed_is_there_again_and_nobody_elses_to_read() {
    let folder = Folder::new();
    let document = folder.marks();
    mark(&document, "a");
    mark(&document, "a");
    assert_eq!(folder.marks().value().marks["a"], 2);
    assert_eq!(folder.names(), ["lock", "marks.json"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.0), 0o700);
    assert_eq!(mode(&folder.0.join("marks.json")), 0o600);
    // What a gateway left that was ended in the middle.
    std::fs::write(folder.0.join(".marks.json.new"), "{").unwrap();
    mark(&document, "a");
    assert_eq!(folder.marks().value().marks["a"], 3);
    assert_eq!(folder.names(), ["lock", "marks.json"]);
}

#[test]
fn many_who_change_one_file_lose_nothing_of_each_other() {
    let folder = Folder::new();
    let writers = [0; 4].map(|_| {
        let document = folder.marks();
        std::thread::spawn(move || (0..25).for_each(|_| mark(&document, "a")))
    });
    let reader = folder.marks();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(folder.marks().value().marks["a"], 100);
    assert_eq!(reader.refreshed().unwrap().marks["a"], 100);
    assert_eq!(reader.refreshed(), None, "nothing new");
    std::fs::remove_file(folder.0.join("marks.json")).unwrap();
    assert_eq!(
        reader.refreshed(),
        Some(Marks::default()),
        "the file is the truth"
    );
}

#[test]
fn a_corrupt_file_is_set_aside_and_the_others_stay() {
    for corrupt in [
        "",
        "{\"version\":1,\"marks\":{\"a\":",
        "{\"marks\":{}}",
        "{\"version\":1,\"marks\":7}",
    ] {
        let folder = Folder::new();
        mark(&folder.marks(), "a");
        let other: Document<Marks> = State::open(&folder.0).document("other", 1);
        mark(&other, "b");
        std::fs::write(folder.0.join("marks.json"), corrupt).unwrap();
        let document = folder.marks();
        assert!(document.is_kept() && document.value() == Marks::default());
        mark(&document, "c");
        assert_eq!(folder.marks().value().marks["c"], 1);
        let names = folder.names();
        let aside = names
            .iter()
            .find(|name| name.starts_with("marks.json.aside-"));
        let aside = folder.0.join(aside.unwrap_or_else(|| panic!("{names:?}")));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), corrupt);
        let other: Document<Marks> = State::open(&folder.0).document("other", 1);
        assert_eq!(other.value().marks["b"], 1);
    }
}

#[test]
fn a_file_that_becomes_corrupt_is_not_overwritten() {
    let folder = Folder::new();
    let document = folder.marks();
    mark(&document, "a");
    std::fs::write(folder.0.join("marks.json"), "?").unwrap();
    let told = document.change(|marks| marks.marks.clear()).unwrap_err();
    assert!(told.to_string().contains("cannot be understood"), "{told}");
    assert_eq!(document.refreshed(), None);
    assert_eq!(document.value().marks["a"], 1, "what was known goes on");
    let text = std::fs::read_to_string(folder.0.join("marks.json")).unwrap();
    assert_eq!(text, "?");
}

#[test]
fn a_file_of_a_later_release_stays_as_it_is() {
    let folder = Folder::new();
    mark(&State::open(&folder.0).document("marks", 2), "a");
    let document = folder.marks();
    assert!(!document.is_kept() && document.value() == Marks::default());
    let told = document.change(|marks| marks.marks.insert("b".into(), 1));
    assert!(told.unwrap_err().to_string().contains("later release"));
    assert_eq!(document.value(), Marks::default(), "not in memory neither");
    let later: Document<Marks> = State::open(&folder.0).document("marks", 2);
    assert_eq!(later.value().marks.len(), 1);
}

#[test]
fn a_change_that_cannot_be_kept_is_not_made() {
    let folder = Folder::new();
    mark(&folder.marks(), "a");
    let running = folder.marks();
    // Not even root can write over this, nor make a folder there.
    std::fs::create_dir(folder.0.join(".marks.json.new")).unwrap();
    let began_later = folder.marks();
    let nowhere = State::open(Path::new("/proc/skep")).document("marks", 1);
    for (document, known) in [(running, 1), (began_later, 1), (nowhere, 0)] {
        assert_eq!(document.value().marks.len(), known, "what is there is read");
        assert!(document.change(|marks| marks.marks.clear()).is_err() || known == 0);
        let told = document.change(|marks| marks.marks.insert("b".into(), 1));
        assert!(told.is_err());
        assert_eq!(document.value().marks.len(), known);
        assert!(!document.value().marks.contains_key("b"));
    }
    std::fs::remove_dir(folder.0.join(".marks.json.new")).unwrap();
    assert_eq!(folder.marks().value().marks.len(), 1);
    mark(&folder.marks(), "b");
    assert_eq!(
        folder.marks().value().marks.len(),
        2,
        "as soon as it can be"
    );
}

#[test]
fn without_a_folder_all_stays_in_memory() {
    let document: Document<Marks> = State::default().document("marks", 1);
    mark(&document, "b");
    assert!(!document.has_file() && document.value().marks["b"] == 1);
}

#[test]
fn a_file_that_is_a_fifo_or_a_device_is_not_waited_for() {
    for make in ["mkfifo", "mknod"] {
        let folder = Folder::new();
        mark(&folder.marks(), "a");
        for name in ["marks.json", "lock"] {
            let file = folder.0.join(name);
            std::fs::remove_file(&file).unwrap();
            let mut command = std::process::Command::new(make);
            command.arg(&file);
            if make == "mknod" {
                // /dev/zero
                command.args(["c", "1", "5"]);
            }
            if !command.status().unwrap().success() {
                continue;
            }
            let document = folder.marks();
            assert!(document.change(|marks| marks.marks.clear()).is_err() || name == "lock");
            std::fs::remove_file(&file).unwrap();
            mark(&folder.marks(), "a");
        }
    }
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let folder = Folder::new();
    mark(&folder.marks(), "a");
    let file = File::create(folder.0.join("marks.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(folder.marks().value(), Marks::default());
}
