//! The directory in which development mode keeps what outlives a run.

use std::fmt::Display;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Others may pass through it (PostgreSQL runs as another user where this one is root), not look
/// into it.
const DIRECTORY_MODE: u32 = 0o711;
/// Secrets are for the owner alone.
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// Why the data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// A file or the directory cannot be read or written.
    #[error("data directory: cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kept file does not hold what it should.
    #[error("data directory: {} cannot be used ({reason}); remove it to start afresh", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The data directory, which exists.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Opens or makes it.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(failed)?;
        // Absolute, because it is shown to people and handed to other processes.
        fs::canonicalize(path).map(Self).map_err(failed)
    }

    /// The path of a file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory itself.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// A file's text; `None` where there is no such file.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn read(&self, name: &str) -> Result<Option<String>, DataDirError> {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataDirError::Io {
                path: self.path(name),
                source,
            }),
        }
    }

    /// Writes a file that anybody may read.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        self.replace(name, text, PUBLIC_MODE)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write_secret(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        self.replace(name, text, SECRET_MODE)
    }

    /// The error for a kept file that does not hold what it should.
    pub fn broken(&self, name: &str, reason: &dyn Display) -> DataDirError {
        DataDirError::Broken {
            path: self.path(name),
            reason: reason.to_string(),
        }
    }

    /// Renames over the old file, so that no reader sees half of it, and the mode is right from the
    /// first byte on.
    fn replace(&self, name: &str, text: &str, mode: u32) -> Result<(), DataDirError> {
        let path = self.path(name);
        let temporary = self.path(&format!(".{name}.new"));
        let write = || {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| DataDirError::Io {
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_for_their_owner_and_are_replaced_whole() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&parent.path().join("a/b")).unwrap();
        assert_eq!(directory.read("key").unwrap(), None);
        for text in ["first, longer", "second"] {
            directory.write_secret("key", text).unwrap();
            assert_eq!(directory.read("key").unwrap().as_deref(), Some(text));
        }
        let mode = fs::metadata(directory.path("key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, SECRET_MODE);
        assert_eq!(fs::read_dir(directory.as_path()).unwrap().count(), 1);
    }
}
