//! Which processes of the host are to be traced.

use std::{collections::HashSet, fs, io, path::Path};

use super::{
    cgroup::{self, Group},
    container::{self, ContainerError},
    identity,
};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Every process.
    pub all: bool,
    /// Names or ids of containers.
    pub containers: Vec<String>,
    /// UIDs of pods, or their beginnings.
    pub pods: Vec<String>,
    /// Control groups: folders in a mounted hierarchy, or paths in any.
    pub cgroups: Vec<String>,
    /// Names of processes (`/proc/PID/comm`).
    pub comms: Vec<String>,
    /// User ids.
    pub uids: Vec<u32>,
    /// Names of processes that are left out whatever else holds for them.
    pub except_comms: Vec<String>,
}

/// Why nothing can be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// No such container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// No such group.
    #[error(
        "there is no control group {0}: give its folder below /sys/fs/cgroup, or the path in /proc/PID/cgroup"
    )]
    NoGroup(String),
    /// The mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mounts(#[source] io::Error),
}

/// A choice of processes, to be asked about each.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    all: bool,
    groups: Vec<Group>,
    pods: Vec<String>,
    comms: Vec<String>,
    uids: Vec<u32>,
    except_comms: Vec<String>,
    /// This process and those that it descends from.
    ancestors: HashSet<i32>,
}

impl Selection {
    /// Looks up what was asked for.
    pub fn new(wanted: Wanted) -> Result<Self, SelectionError> {
        let mut groups = Vec::new();
        for name in &wanted.containers {
            groups.extend(container::find(name)?.groups);
        }
        if !wanted.cgroups.is_empty() {
            let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(SelectionError::Mounts)?;
            for path in &wanted.cgroups {
                groups.push(group(path, &mounts)?);
            }
        }
        Ok(Self {
            all: wanted.all,
            groups,
            pods: wanted.pods,
            comms: wanted.comms,
            uids: wanted.uids,
            except_comms: wanted.except_comms,
            ancestors: ancestors(),
        })
    }

    /// Whether it goes by what processes are, not by where they are: such can always come.
    pub fn is_lasting(&self) -> bool {
        self.all || !self.comms.is_empty() || !self.uids.is_empty()
    }

    /// The processes there are now, by id.
    pub fn processes(&self) -> Vec<i32> {
        identity::all_pids().into_iter().filter(|pid| self.holds(*pid)).collect()
    }

    /// Whether a process is one of those. `false` for one that is no more, for kernel threads, for this process
    /// and those that it descends from.
    pub fn holds(&self, pid: i32) -> bool {
        if self.ancestors.contains(&pid) {
            return false;
        }
        let Some(identity) = identity::identity(pid) else { return false };
        if self.except_comms.contains(&identity.comm) {
            return false;
        }
        let in_groups = || {
            if self.groups.is_empty() && self.pods.is_empty() {
                return false;
            }
            let groups = cgroup::of_process(pid);
            let in_pod = || {
                let pod = cgroup::container(&groups).and_then(|container| container.pod);
                pod.is_some_and(|pod| self.pods.iter().any(|wanted| pod.starts_with(wanted.as_str())))
            };
            groups.iter().any(|group| self.groups.iter().any(|own| own.holds(group))) || in_pod()
        };
        self.all || self.comms.contains(&identity.comm) || self.uids.contains(&identity.uid) || in_groups()
    }
}

fn group(path: &str, mounts: &str) -> Result<Group, SelectionError> {
    if let Some(group) = cgroup::of_folder(path, mounts) {
        return if Path::new(path).is_dir() {
            Ok(group)
        } else {
            Err(SelectionError::NoGroup(path.to_owned()))
        };
    }
    let group = Group { hierarchy: None, path: format!("/{}", path.trim_matches('/')) };
    let exists = identity::all_pids()
        .into_iter()
        .any(|pid| cgroup::of_process(pid).iter().any(|other| group.holds(other)));
    if exists { Ok(group) } else { Err(SelectionError::NoGroup(path.to_owned())) }
}

/// This process, its parent, its parent's, and so on.
fn ancestors() -> HashSet<i32> {
    let mut found = HashSet::new();
    let mut pid = std::process::id() as i32;
    while pid > 0 && found.insert(pid) {
        pid = identity::identity(pid).map_or(0, |identity| identity.parent);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_parents_are_left_out() {
        let selection = Selection::new(Wanted { all: true, ..Wanted::default() }).unwrap();
        let own = std::process::id() as i32;
        assert!(!selection.holds(own) && !selection.holds(std::os::unix::process::parent_id() as i32));
        assert!(!selection.processes().contains(&own));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let none = |wanted| Selection::new(wanted).unwrap_err().to_string();
        let container = Wanted { containers: vec!["no such one".to_owned()], ..Wanted::default() };
        assert!(none(container).contains("no such one"));
        let cgroup = Wanted { cgroups: vec!["/no/such/group".to_owned()], ..Wanted::default() };
        assert!(none(cgroup).contains("/no/such/group"));
    }
}
