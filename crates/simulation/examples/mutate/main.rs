//! Breaks the product on purpose, one defect at a time, on a scratch copy, and demands that the tests notice:
//! `make mutate`, or `make mutate ARGS="I4"` for the defects whose invariant or words hold that text. `ARGS=--check` only looks
//! whether each still finds the text that it changes, as a test does with every run (`tests/mutations.rs`).
#![allow(clippy::print_stdout)]

mod list;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use list::{MUTATIONS, Mutation};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    if wanted == ["--check"] {
        return check(&root);
    }
    let scratch = root.join("target/mutants/tree");
    copy(&root, &scratch)?;
    let chosen = MUTATIONS.iter().filter(|mutation| {
        let text = format!("{} {}", mutation.breaks, mutation.defect);
        wanted.is_empty() || wanted.iter().any(|part| text.contains(part))
    });
    let (mut caught, mut survived) = (0, 0);
    for mutation in chosen {
        let started = Instant::now();
        let verdict = run(&scratch, mutation)?;
        let seconds = started.elapsed().as_secs();
        let name = format!("{:<12} {}", mutation.breaks, mutation.defect);
        if let Some(test) = verdict {
            caught += 1;
            println!("caught   {name} ({seconds} s): {test}");
        } else {
            survived += 1;
            println!("SURVIVED {name} ({seconds} s)");
        }
    }
    println!("{caught} caught, {survived} survived");
    Ok(if survived == 0 && caught > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Names the defects whose text is not there once.
fn check(root: &Path) -> Result<ExitCode> {
    let mut stale = 0;
    for mutation in MUTATIONS {
        let text = fs::read_to_string(root.join(mutation.file))?;
        let found = text.matches(mutation.text).count();
        if found != 1 {
            stale += 1;
            let (breaks, defect, file) = (mutation.breaks, mutation.defect, mutation.file);
            println!("STALE {breaks} {defect}: found {found} times in {file}");
        }
    }
    println!("{} mutations, {stale} stale", MUTATIONS.len());
    Ok(if stale == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the tests on one defect: the first that notices, or `None`.
fn run(scratch: &Path, mutation: &Mutation) -> Result<Option<String>> {
    let file = scratch.join(mutation.file);
    let original = fs::read_to_string(&file)?;
    fs::write(&file, original.replacen(mutation.text, mutation.becomes, 1))?;
    let output = Command::new("cargo")
        .arg("test")
        .args(mutation.tests)
        // It compares the texts that are changed here.
        .args(["--", "--skip", "every_mutation_still_fits"])
        .current_dir(scratch)
        .env("CARGO_TARGET_DIR", scratch.with_file_name("target"))
        .env("RUSTFLAGS", "--cap-lints warn")
        .stdin(Stdio::null())
        .output();
    fs::write(&file, original)?;
    let output = output?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if said.contains("error: could not compile") {
        return Err(format!("{}: does not compile:\n{said}", mutation.defect).into());
    }
    let failed = said.lines().find(|line| line.ends_with("... FAILED"));
    let test = failed.map_or("a test", |line| line.trim_start_matches("test "));
    Ok((!output.status.success()).then(|| test.to_owned()))
}

/// Copies what is under version control, as it is in the work tree.
fn copy(root: &Path, scratch: &Path) -> Result<()> {
    if scratch.exists() {
        fs::remove_dir_all(scratch)?;
    }
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to): (PathBuf, PathBuf) = (root.join(name), scratch.join(name));
        if !from.is_file() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        // With its time, so that what was not changed is not built again.
        fs::copy(&from, &to)?;
        let time = fs::metadata(&from)?.modified()?;
        fs::File::options()
            .write(true)
            .open(&to)?
            .set_modified(time)?;
    }
    Ok(())
}
