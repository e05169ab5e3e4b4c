//! Control groups, and the containers that their paths tell of (cgroups(7)).
//!
//! Every container runtime puts its containers into groups of their own and writes the container's id into their names:
//! - Docker, Podman, CRI-O and containerd an id of 64 hexadecimal digits, bare (`/docker/ID`), or as a scope of systemd
//!   (`docker-ID.scope`, `libpod-ID.scope`, `crio-ID.scope`, `cri-containerd-ID.scope`);
//! - LXC the name: `/lxc/NAME`, `/lxc.payload.NAME`, `/lxc.payload/NAME`;
//! - Kubernetes the pod above it: `pod` and its UID, with underscores in a slice of systemd.

use std::fs;

/// Before the id in the name of a scope or slice of systemd, or of a folder, with the runtime.
const PREFIXES: [(&str, &str); 7] = [
    ("docker-", "docker"),
    ("libpod-conmon-", ""),
    ("libpod-", "podman"),
    ("crio-conmon-", ""),
    ("crio-", "cri-o"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
];

/// Before the name of a container of LXC.
const LXC: [&str; 2] = ["lxc.payload.", "lxc.monitor."];

/// Hexadecimal digits of an id.
const ID_LENGTH: usize = 64;

/// A container, as the path of a group tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id; for LXC its name.
    pub id: String,
    /// The runtime, where it can be told.
    pub runtime: &'static str,
    /// The UID of its pod, where it has one.
    pub pod: Option<String>,
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The controllers of its hierarchy, as `/proc/PID/cgroup` has them; empty for version 2. `None` stands for every hierarchy.
    pub hierarchy: Option<String>,
    /// Its path from the hierarchy's root on.
    pub path: String,
}

impl Group {
    /// Whether `other` is this group or lies below it.
    pub fn holds(&self, other: &Self) -> bool {
        let same = |ours: &String| other.hierarchy.as_ref().is_none_or(|theirs| ours == theirs);
        let below = other.path.strip_prefix(self.path.trim_end_matches('/'));
        self.hierarchy.as_ref().is_none_or(same)
            && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The groups of a process, one for each hierarchy. None for a process that is no more.
pub fn of_process(pid: i32) -> Vec<Group> {
    parse(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default())
}

/// Lines `number:controllers:path`; root groups are left out, for they say nothing.
fn parse(text: &str) -> Vec<Group> {
    let parse_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (hierarchy, path) = (fields.next()?, fields.next()?);
        Some(Group { hierarchy: Some(hierarchy.to_owned()), path: path.to_owned() })
    };
    text.lines().filter_map(parse_line).filter(|group| !matches!(group.path.as_str(), "/" | "")).collect()
}

/// The group of a folder in a mounted hierarchy, such as `/sys/fs/cgroup/unified/web`, by the text of `/proc/self/mountinfo`;
/// `None` for a path that lies in none.
pub fn of_folder(folder: &str, mountinfo: &str) -> Option<Group> {
    let mut found: Option<(usize, Group)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(root), Some(place)) = (left.split(' ').nth(3), left.split(' ').nth(4)) else { continue };
        let mut fields = right.split(' ');
        let (kind, options) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let hierarchy = match kind {
            "cgroup2" => String::new(),
            "cgroup" => controllers(options),
            _ => continue,
        };
        let Some(rest) = folder.strip_prefix(place).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        else {
            continue;
        };
        if found.as_ref().is_none_or(|(length, _)| *length < place.len()) {
            let path = format!("{}{rest}", root.trim_end_matches('/'));
            found = Some((place.len(), Group { hierarchy: Some(hierarchy), path }));
        }
    }
    found.map(|(_, group)| group)
}

/// The controllers among a mount's options; a hierarchy without any has a name instead.
fn controllers(options: &str) -> String {
    const OTHERS: [&str; 6] = ["rw", "ro", "xattr", "clone_children", "noprefix", "release_agent"];
    let is_controller = |word: &&str| !OTHERS.iter().any(|other| word.split('=').next() == Some(other));
    options.split(',').filter(is_controller).collect::<Vec<_>>().join(",")
}

/// The container that one of these groups tells of.
pub fn container(groups: &[Group]) -> Option<Container> {
    groups.iter().find_map(|group| container_of_path(&group.path))
}

fn container_of_path(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let pod = parts.iter().find_map(|part| pod(part));
    // The innermost that names one: containers can run in containers.
    parts.iter().enumerate().rev().find_map(|(index, part)| {
        let above = index.checked_sub(1).and_then(|above| parts.get(above)).copied().unwrap_or_default();
        let (id, runtime) = id(part, above)?;
        Some(Container { id: id.to_owned(), runtime, pod: pod.clone() })
    })
}

fn id<'p>(part: &'p str, above: &str) -> Option<(&'p str, &'static str)> {
    if let Some(name) = LXC.iter().find_map(|prefix| part.strip_prefix(prefix)) {
        return Some((name, "lxc"));
    }
    if matches!(above, "lxc" | "lxc.payload") {
        return Some((part, "lxc"));
    }
    let scope = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = scope.strip_prefix(prefix) {
            return (is_id(id) && !runtime.is_empty()).then_some((id, runtime));
        }
    }
    // As above.
    let id = part.rsplit(':').next().unwrap_or(part);
    let runtime = match above {
        "docker" => "docker",
        "libpod_parent" => "podman",
        _ => "",
    };
    is_id(id).then_some((id, runtime))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The UID in `pod1234-..`, or `kubepods-burstable-pod1234_...slice`.
fn pod(part: &str) -> Option<String> {
    // Under systemd containerd names a group slice:prefix:id.
    let slice = part.split(':').next().unwrap_or(part);
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.strip_prefix("kubepods").and_then(|rest| rest.split("-pod").nth(1))?,
    };
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "6b2d4f5e-1c3a-4e0b-9d67-0123456789ab";

    fn found(path: &str) -> Option<(String, &'static str, Option<String>)> {
        container_of_path(&path.replace("ID", ID)).map(|found| (found.id, found.runtime, found.pod))
    }

    #[test]
    fn every_runtimes_paths_are_understood() {
        for (path, runtime) in [
            ("/docker/ID", "docker"),
            ("/system.slice/docker-ID.scope", "docker"),
            ("/machine.slice/libpod-ID.scope/container", "podman"),
            ("/libpod_parent/ID", "podman"),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", "podman"),
            ("/default/ID", ""),
            ("/kubepods/besteffort/ID", ""),
            ("/system.slice/nerdctl-ID.scope", "containerd"),
        ] {
            assert_eq!(found(path), Some((ID.to_owned(), runtime, None)), "{path}");
        }
        for path in ["/lxc/web", "/lxc.payload.web", "/lxc.payload/web", "/lxc.payload.web/init.scope"] {
            assert_eq!(found(path), Some(("web".to_owned(), "lxc", None)), "{path}");
        }
    }

    #[test]
    fn a_pod_is_told_with_its_container() {
        let slice = POD.replace('-', "_");
        for (path, runtime) in [
            (format!("/kubepods/burstable/pod{POD}/ID"), ""),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/crio-ID.scope"
                ),
                "cri-o",
            ),
            (format!("/kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-ID.scope"), "containerd"),
            (format!("/system.slice/kubepods-besteffort-pod{slice}.slice:cri-containerd:ID"), ""),
        ] {
            let (id, told, pod) = found(&path).unwrap();
            assert_eq!((id.as_str(), told), (ID, runtime), "{path}");
            assert_eq!(pod.as_deref(), Some(POD), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/",
            "/user.slice/user-0.slice/session-1.scope",
            "/crio-conmon-ID.scope",
            "/pods/web",
            "/docker/short",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    fn group(hierarchy: Option<&str>, path: &str) -> Group {
        Group { hierarchy: hierarchy.map(str::to_owned), path: path.to_owned() }
    }

    #[test]
    fn the_file_is_read_whatever_its_version() {
        let text = "12:cpu,cpuacct:/a/b\n1:name=systemd:/a\n3:pids:/\n0::/c:d\n";
        let expected =
            [group(Some("cpu,cpuacct"), "/a/b"), group(Some("name=systemd"), "/a"), group(Some(""), "/c:d")];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn a_group_holds_those_below_it_in_its_hierarchy() {
        let process = group(Some("pids"), "/a/b");
        assert!(group(None, "/a").holds(&process) && group(None, "/a/b/").holds(&process));
        assert!(group(Some("pids"), "/a/b").holds(&process));
        assert!(!group(Some("cpu"), "/a/b").holds(&process) && !group(None, "/a/bc").holds(&process));
        assert!(!group(None, "/a").holds(&group(None, "/ab")));
    }

    #[test]
    fn a_folder_is_found_in_its_mount() {
        let mountinfo = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 /outer /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n";
        let find = |folder| of_folder(folder, mountinfo);
        assert_eq!(find("/sys/fs/cgroup/cpu,cpuacct/a"), Some(group(Some("cpu,cpuacct"), "/a")));
        assert_eq!(find("/sys/fs/cgroup/systemd/a"), Some(group(Some("name=systemd"), "/a")));
        assert_eq!(find("/sys/fs/cgroup/unified/a"), Some(group(Some(""), "/outer/a")));
        assert_eq!(find("/sys/fs/cgroup/a"), None);
        assert_eq!(find("/a"), None);
    }
}
