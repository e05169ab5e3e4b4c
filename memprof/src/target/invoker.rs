//! Who asked: under sudo, programs run and files belong to the invoking user.

use std::{env, ffi::CString, io, os::fd::AsFd, path::PathBuf};

use nix::unistd::{Gid, Uid, User, fchown, geteuid, initgroups, setgid, setuid};

/// A user to run as.
#[derive(Clone, Debug)]
pub struct Invoker {
    /// User id.
    pub uid: Uid,
    /// Main group.
    pub gid: Gid,
    /// Name, for the supplementary groups.
    pub name: CString,
    /// Home directory.
    pub home: PathBuf,
}

/// Why a user cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum InvokerError {
    /// No such user.
    #[error("there is no user {0:?}: give a name or a number that `getent passwd` knows")]
    Unknown(String),
    /// The user database failed.
    #[error("cannot look up user {0:?}: {1}")]
    Lookup(String, nix::Error),
}

impl Invoker {
    /// By name or number.
    pub fn named(name: &str) -> Result<Self, InvokerError> {
        let found = match name.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(name),
        };
        let user = found
            .map_err(|error| InvokerError::Lookup(name.to_owned(), error))?
            .ok_or_else(|| InvokerError::Unknown(name.to_owned()))?;
        let user_name = CString::new(user.name).map_err(|_| InvokerError::Unknown(name.to_owned()))?;
        Ok(Self { uid: user.uid, gid: user.gid, name: user_name, home: user.dir })
    }

    /// The user who called sudo, if this is root under sudo.
    pub fn of_sudo() -> Result<Option<Self>, InvokerError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        match env::var("SUDO_UID") {
            Ok(uid) if uid != "0" => Self::named(&uid).map(Some),
            _ => Ok(None),
        }
    }

    /// Makes this process run as the user, for good.
    pub fn become_them(&self) -> Result<(), nix::Error> {
        initgroups(&self.name, self.gid)?;
        setgid(self.gid)?;
        setuid(self.uid)
    }

    /// Gives them a file that was just made.
    pub fn give(&self, file: impl AsFd) -> io::Result<()> {
        Ok(fchown(file, Some(self.uid), Some(self.gid))?)
    }
}
