//! The user that the server runs as.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::Error;

const PASSWD: &str = "/etc/passwd";
/// Who runs the server when we are root, in order of preference.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The user that the server runs as: ourselves, or, because PostgreSQL refuses to run as root,
/// somebody unprivileged.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    uid: u32,
    gid: u32,
    name: String,
    switch: bool,
}

impl Identity {
    /// Ourselves, or as root the first of [`UNPRIVILEGED`] that exists.
    pub(crate) fn choose() -> Result<Self, Error> {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self {
                uid,
                gid,
                name: format!("with id {uid}"),
                switch: false,
            });
        }
        let passwd = fs::read_to_string(PASSWD).map_err(Error::io("read", Path::new(PASSWD)))?;
        unprivileged(&passwd).ok_or(Error::NoUnprivilegedUser)
    }

    /// As root: whoever owns this directory, so that data stays usable when the preferred user
    /// changes (for example when the package that makes user `postgres` is installed later).
    /// `is_data`: it is PostgreSQL's own, whose owner nothing here changes.
    pub(crate) fn or_owner_of(self, directory: &Path, is_data: bool) -> Result<Self, Error> {
        let Ok(metadata) = fs::metadata(directory) else {
            return Ok(self);
        };
        let (uid, gid) = (metadata.uid(), metadata.gid());
        if uid == self.uid || (self.switch && uid == 0 && !is_data) {
            Ok(self) // root's own directory is given to the user
        } else if self.switch && uid != 0 {
            Ok(Self {
                uid,
                gid,
                name: format!("with id {uid}"),
                switch: true,
            })
        } else {
            Err(Error::NotOwner {
                directory: directory.to_owned(),
                owner: uid,
            })
        }
    }

    /// The user id.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Makes the command run as this user.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if self.switch {
            command.uid(self.uid).gid(self.gid)
        } else {
            command
        }
    }

    /// Gives the file to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.switch {
            chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("change owner of", path))
        } else {
            Ok(())
        }
    }

    /// Checks that this user can reach the directory; names the directory on the way that is
    /// closed. It asks the kernel by trying, because mode bits do not tell the whole truth.
    pub(crate) fn check_reach(&self, directory: &Path) -> Result<(), Error> {
        if !self.switch || self.reaches(directory)? {
            return Ok(());
        }
        let mut blocked_at = directory;
        for ancestor in directory.ancestors() {
            if self.reaches(ancestor)? {
                break;
            }
            blocked_at = ancestor;
        }
        Err(Error::NotTraversable {
            directory: directory.to_owned(),
            blocked_at: blocked_at.to_owned(),
            user: self.name.clone(),
        })
    }

    fn reaches(&self, directory: &Path) -> Result<bool, Error> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", ":"])
            .current_dir(directory)
            .stdin(Stdio::null());
        match self.apply(&mut command).status() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(Error::io("enter", directory)(error)),
        }
    }

    /// Can this user run that program?
    pub(crate) fn output(&self, program: &PathBuf, argument: &str) -> io::Result<String> {
        let mut command = Command::new(program);
        command.arg(argument).current_dir("/").stdin(Stdio::null());
        let output = self.apply(&mut command).output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(io::Error::other(format!("ended with {}", output.status)))
        }
    }
}

/// `name:password:uid:gid:…` (passwd(5)); entries with id 0 do not count as unprivileged.
fn unprivileged(passwd: &str) -> Option<Identity> {
    UNPRIVILEGED.iter().find_map(|wanted| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| name == wanted)?;
            let uid = fields.nth(1)?.parse().ok().filter(|&uid| uid != 0)?;
            let gid = fields.next()?.parse().ok()?;
            Some(Identity {
                uid,
                gid,
                name: name.to_owned(),
                switch: true,
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_postgres_to_nobody_and_never_takes_root() {
        let nobody = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        let found = unprivileged(nobody).unwrap();
        assert_eq!(
            (found.uid, found.gid, found.name.as_str()),
            (65534, 65533, "nobody")
        );
        let both = format!("{nobody}postgres:x:101:104:a,b:/var/lib/postgresql:/bin/bash\n");
        assert_eq!(unprivileged(&both).unwrap().uid, 101);
        assert!(unprivileged("postgres:x:0:0::/:/bin/sh\nnobody:x:y:1::/:\n").is_none());
        assert!(unprivileged("").is_none());
    }
}
