//! The options that select processes by what they are or where they run.

use crate::target::{
    invoker::Invoker,
    selection::{Selection, Wanted},
};

/// Every process that one of these holds for is traced, also those that come later: from some hundredths of a second after
/// their start on. The captures go into a folder.
#[derive(clap::Args)]
#[group(id = "selection", multiple = true)]
pub(super) struct Arguments {
    /// All processes of a container (Docker, containerd, Podman, CRI-O, runc, crun, LXC), by its name, its id, or the id's beginning
    #[arg(long, value_name = "NAME|ID", help_heading = "Selection")]
    container: Vec<String>,
    /// All processes of a Kubernetes pod, by its UID or the UID's beginning
    #[arg(long, value_name = "UID", help_heading = "Selection")]
    pod: Vec<String>,
    /// All processes of a control group and those below it: a folder under /sys/fs/cgroup, or a path from its root
    #[arg(long, value_name = "PATH", help_heading = "Selection")]
    cgroup: Vec<String>,
    /// All processes of this name (as in /proc/PID/comm)
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    comm: Vec<String>,
    /// All processes of this user
    #[arg(long, value_name = "USER|UID", help_heading = "Selection")]
    uid: Vec<String>,
    /// Every process of the host but memprof and those that it was started by
    #[arg(long, help_heading = "Selection")]
    all: bool,
    /// But none of this name
    #[arg(long, value_name = "NAME", requires = "selection", help_heading = "Selection")]
    exclude: Vec<String>,
}

impl Arguments {
    /// What they select; `None` where none is given.
    pub(super) fn selection(self) -> anyhow::Result<Option<Selection>> {
        let uids = self.uid.iter().map(|user| match user.parse() {
            // A number need not be of a user that is known here.
            Ok(uid) => Ok(uid),
            Err(_) => Invoker::named(user).map(|user| user.uid.as_raw()),
        });
        let wanted = Wanted {
            all: self.all,
            uids: uids.collect::<Result<_, _>>()?,
            containers: self.container,
            pods: self.pod,
            cgroups: self.cgroup,
            comms: self.comm,
            except_comms: self.exclude,
        };
        if wanted == (Wanted { except_comms: wanted.except_comms.clone(), ..Wanted::default() }) {
            return Ok(None);
        }
        Ok(Some(Selection::new(wanted)?))
    }
}
