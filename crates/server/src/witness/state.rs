//! What a witness must not forget: the last checkpoint of each log that it cosigned.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use quittance_evidence::note::KeyName;
use quittance_evidence::{Checkpoint, CheckpointError, Hash};
use rustix::fs::{FlockOperation, flock};

/// Held while a process uses the directory.
const LOCK_FILE: &str = "lock";
/// Largest file of a log: the three lines of a checkpoint.
const MAX_STATE_BYTES: u64 = 1024;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another witness", .0.display())]
    InUse(PathBuf),
    /// Nothing is known of a log: it was never taken up here, or its file is lost.
    #[error(
        "there is no state for the log {0}. If this witness never cosigned for it, run `quittance witness init`; \
         if its state is lost, retire its key"
    )]
    Missing(KeyName),
    /// The log is followed already.
    #[error("there is a state for the log {0} already")]
    Present(KeyName),
    /// A file does not hold a checkpoint of its log.
    #[error("{} does not hold the state of a log", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Option<CheckpointError>,
    },
}

/// A directory with one file for each log, locked for this process.
#[derive(Debug)]
pub struct WitnessState {
    directory: PathBuf,
    /// Unlocked when it is closed.
    _lock: File,
}

impl WitnessState {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// `InUse`, `Io`.
    pub fn lock(directory: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let path = directory.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false);
        let lock = options.open(&path).map_err(failed(&path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StateError::InUse(directory.to_owned()))?;
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    /// Begins to follow a log, from before its first entry.
    ///
    /// # Errors
    /// `Present` rather than forget what was seen; `Io`.
    pub fn init(&self, origin: &KeyName) -> Result<(), StateError> {
        match self.load(origin) {
            Err(StateError::Missing(_)) => self.store(&Checkpoint::empty(origin.clone())),
            Ok(_) => Err(StateError::Present(origin.clone())),
            Err(error) => Err(error),
        }
    }

    /// The last checkpoint of a log.
    ///
    /// # Errors
    /// `Missing`, `Broken`, `Io`.
    pub fn load(&self, origin: &KeyName) -> Result<Checkpoint, StateError> {
        let path = self.path(origin);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::Missing(origin.clone()));
            }
            Err(error) => return Err(failed(&path)(error)),
        };
        let mut text = String::new();
        file.take(MAX_STATE_BYTES)
            .read_to_string(&mut text)
            .map_err(failed(&path))?;
        let broken = |source| StateError::Broken {
            path: path.clone(),
            source,
        };
        let checkpoint = Checkpoint::parse_text(&text).map_err(|error| broken(Some(error)))?;
        if checkpoint.origin == *origin {
            Ok(checkpoint)
        } else {
            Err(broken(None))
        }
    }

    /// Keeps a checkpoint as the last one of its log. When this returns, it is on the disk.
    ///
    /// # Errors
    /// `Io`; what was kept before may still be there, or the new one.
    pub fn store(&self, checkpoint: &Checkpoint) -> Result<(), StateError> {
        let path = self.path(&checkpoint.origin);
        let new = path.with_extension("new");
        let mut file = File::create(&new).map_err(failed(&new))?;
        file.write_all(checkpoint.text().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed(&new))?;
        fs::rename(&new, &path).map_err(failed(&path))?;
        // The name is on the disk only once the directory is.
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed(&self.directory))
    }

    /// Names of logs may hold `/`, so a file is named by a digest.
    fn path(&self, origin: &KeyName) -> PathBuf {
        let digest = Hash::of(origin.as_str().as_bytes());
        self.directory.join(format!("{digest}.checkpoint"))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        path: path.clone(),
        source,
    }
}
