//! Files that hold secrets, and files that must not be half written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use quittance_evidence::note::KeyError;
use thiserror::Error;
use zeroize::Zeroizing;

/// How `generate` names the key that signs checkpoints.
pub const LOG_KEY_FILE: &str = "log.key";
/// How `generate` names the key that signs receipts.
pub const RECEIPT_KEY_FILE: &str = "receipt.key";
/// Only the owner may read or write.
const SECRET_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What others may do with a file.
const OF_OTHERS: u32 = 0o077;
/// Largest key file that is read.
const MAX_KEY_FILE_BYTES: u64 = 4_096;

/// Why a key file cannot be used. Names the file, never the key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("{}: others than its owner may read or write it; run chmod 600 on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It is no regular file, or too large for a key.
    #[error("{}: not a key file", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// What is in it is no key.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The keys do not belong together.
    #[error("{}: {reason}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// None signs receipts.
    #[error("there is no key that signs receipts")]
    NoReceiptKey,
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] rand::rand_core::OsError),
}

impl KeyFileError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Reads a secret that nobody else may read.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let file = File::open(path).map_err(KeyFileError::io(path))?;
    // Of the file that is open, whatever its name means by now.
    let metadata = file.metadata().map_err(KeyFileError::io(path))?;
    if metadata.mode() & OF_OTHERS != 0 {
        return Err(KeyFileError::Exposed { path: path.into() });
    }
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE_BYTES {
        return Err(KeyFileError::NotAKeyFile { path: path.into() });
    }
    let text = io::read_to_string(file).map_err(KeyFileError::io(path))?;
    Ok(Zeroizing::new(text))
}

/// Writes a new secret; never over an old one.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(SECRET_MODE)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(KeyFileError::io(path))
}

/// Makes a directory that only its owner may use, where it is missing.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Opens the file whose lock tells who may change the others.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(SECRET_MODE)
        .open(path)
}

/// Replaces a file so that after a crash it is the old or the new one, and the new one once this returns.
pub(super) fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let (path, temporary) = (directory.join(name), directory.join(format!(".{name}.new")));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(SECRET_MODE)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    // The rename itself.
    File::open(directory)?.sync_all()
}
