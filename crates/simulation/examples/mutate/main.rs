//! Breaks the product on purpose, one defect at a time, on a scratch copy, and demands that the tests notice:
//! `make mutate`, or `make mutate ARGS="I4"` for the defects whose invariant or words hold that text. `ARGS=--check` only looks
//! whether each still finds the text that it changes, as a test does with every run (`tests/mutations.rs`).
//!
//! Only a test that fails counts as noticing. So the tests are run once without any defect, and must pass; and a run that
//! ends otherwise (it takes too long, a process dies) says nothing, and is named.
#![allow(clippy::print_stdout)]

mod list;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use list::{MUTATIONS, Mutation};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longest run of the tests on one defect, building included; of the first it is several times as long.
const LONGEST_RUN: Duration = Duration::from_secs(30 * 60);
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What the tests said.
enum Verdict {
    /// None failed.
    Passed,
    /// This one failed, first of all.
    Failed(String),
    /// Nothing that can be relied upon.
    Unclear(String),
}

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
    let chosen: Vec<_> = chosen.collect();
    if !pass_without_defect(&scratch, &chosen)? {
        return Ok(ExitCode::FAILURE);
    }
    let (mut caught, mut survived, mut unclear) = (0, 0, 0);
    for mutation in chosen {
        let started = Instant::now();
        let verdict = run(&scratch, mutation)?;
        let seconds = started.elapsed().as_secs();
        let name = format!("{:<12} {}", mutation.breaks, mutation.defect);
        match verdict {
            Verdict::Failed(test) => {
                caught += 1;
                println!("caught   {name} ({seconds} s): {test}");
            }
            Verdict::Passed => {
                survived += 1;
                println!("SURVIVED {name} ({seconds} s)");
            }
            Verdict::Unclear(why) => {
                unclear += 1;
                println!("UNCLEAR  {name} ({seconds} s): {why}");
            }
        }
    }
    println!("{caught} caught, {survived} survived, {unclear} unclear");
    Ok(if survived + unclear == 0 && caught > 0 {
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

/// Whether the tests pass where nothing is broken: each set of them once.
fn pass_without_defect(scratch: &Path, chosen: &[&Mutation]) -> Result<bool> {
    let sets: BTreeSet<_> = chosen.iter().map(|mutation| mutation.tests).collect();
    for tests in sets {
        let started = Instant::now();
        let verdict = test(scratch, tests, LONGEST_RUN * 4)?;
        let (seconds, tests) = (started.elapsed().as_secs(), tests.join(" "));
        let failed = match verdict {
            Verdict::Passed => {
                println!("passes   {tests} ({seconds} s)");
                continue;
            }
            Verdict::Failed(test) => test,
            Verdict::Unclear(why) => why,
        };
        println!("BROKEN   {tests} without any defect ({seconds} s): {failed}");
        return Ok(false);
    }
    Ok(true)
}

/// Runs the tests on one defect.
fn run(scratch: &Path, mutation: &Mutation) -> Result<Verdict> {
    let file = scratch.join(mutation.file);
    let original = fs::read_to_string(&file)?;
    fs::write(&file, original.replacen(mutation.text, mutation.becomes, 1))?;
    let verdict = test(scratch, mutation.tests, LONGEST_RUN);
    fs::write(&file, original)?;
    verdict.map_err(|error| format!("{}: {error}", mutation.defect).into())
}

/// Runs tests, for so long at most. Where they do not compile, that says nothing: the defect is to be one of the running
/// product.
fn test(scratch: &Path, tests: &[&str], longest: Duration) -> Result<Verdict> {
    let said_to = scratch.with_file_name("said");
    let said_here = fs::File::create(&said_to)?;
    let mut cargo = Command::new("cargo")
        .arg("test")
        .args(tests)
        // It compares the texts that are changed here.
        .args(["--", "--skip", "every_mutation_still_fits"])
        .current_dir(scratch)
        .env("CARGO_TARGET_DIR", scratch.with_file_name("target"))
        .env("RUSTFLAGS", "--cap-lints warn")
        .stdin(Stdio::null())
        .stderr(said_here.try_clone()?)
        .stdout(said_here)
        // A group of its own, so that it ends with its tests.
        .process_group(0)
        .spawn()?;
    let ended = ended_within(&mut cargo, longest)?;
    let said = String::from_utf8_lossy(&fs::read(&said_to)?).into_owned();
    if said.contains("error: could not compile") {
        let error = said.lines().find(|line| line.starts_with("error"));
        let why = error.unwrap_or_default();
        return Ok(Verdict::Unclear(format!("it does not compile: {why}")));
    }
    let failed = said.lines().find(|line| line.ends_with("... FAILED"));
    Ok(match (ended, failed) {
        (None, _) => Verdict::Unclear(format!("no end within {} s", longest.as_secs())),
        (Some(status), None) if status.success() => Verdict::Passed,
        (Some(status), None) => Verdict::Unclear(format!("no test failed, but {status}")),
        (Some(_), Some(line)) => Verdict::Failed(line.trim_start_matches("test ").to_owned()),
    })
}

/// How it ended; `None` where it had to be ended, with all that it started.
fn ended_within(cargo: &mut Child, longest: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = cargo.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= longest {
            let group = format!("-{}", cargo.id());
            Command::new("kill")
                .args(["-KILL", "--", &group])
                .status()?;
            cargo.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
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
