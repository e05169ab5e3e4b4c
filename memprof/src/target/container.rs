//! Finds a container by its name or id: by the paths of control groups, and by what runtimes keep of their containers where that
//! can be read.
//!
//! Sources: runc `libcontainer/container.go` (`state.json`), crun `src/libcrun/status.c`, Docker `container/container.go`
//! (`config.v2.json`), containers/storage `containers.go` (`containers.json`), containerd's bundles (the OCI `config.json`).

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    cgroup::{self, Group},
    identity,
};

/// Where runc keeps its containers: by itself, under Docker, under containerd.
const RUNC: [&str; 3] = ["run/runc", "run/docker/runtime-runc/moby", "run/containerd/runc/k8s.io"];
const CRUN: &str = "run/crun";
const DOCKER: &str = "var/lib/docker/containers";
/// Podman and CRI-O.
const STORAGE: &str = "var/lib/containers/storage/overlay-containers/containers.json";
/// A folder for each namespace, in it one for each container.
const CONTAINERD: &str = "run/containerd/io.containerd.runtime.v2.task";
/// Annotations of the OCI configuration that hold a name.
const NAMES: [&str; 3] = ["nerdctl/name", "io.kubernetes.cri.container-name", "io.kubernetes.container.name"];

/// Bytes of a file of state; real ones have some kilobytes.
const MAX_STATE: u64 = 16 << 20;

/// Letters of an id that are enough to name it, if no other begins like that.
const SHORTEST: usize = 3;

/// Why no container was found.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// None of that name.
    #[error("there is no running container {0}: `memprof ps` shows those with processes")]
    Unknown(String),
    /// Several ids begin so.
    #[error("{0} stands for several containers: {1}: give more of the id")]
    Ambiguous(String, String),
}

/// A container that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, or its id where it has none.
    pub name: String,
    /// The groups that hold its processes.
    pub groups: Vec<Group>,
}

/// What is known of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    id: String,
    names: Vec<String>,
    groups: Vec<Group>,
}

/// The container of this name or id, or the only one whose id begins so.
pub fn find(wanted: &str) -> Result<Found, ContainerError> {
    choose(wanted, all(Path::new("/")))
}

/// The name of the container that a process runs in, or its id where it has no name.
pub fn of_process(pid: i32) -> Option<String> {
    let groups = cgroup::of_process(pid);
    if groups.is_empty() {
        return None;
    }
    let id = cgroup::container(&groups).map(|container| container.id);
    let told = told_by_runtimes(Path::new("/")).into_iter().find(|known| match &id {
        Some(id) => known.id == *id,
        None => known.groups.iter().any(|own| groups.iter().any(|group| own.holds(group))),
    });
    match told {
        Some(known) => Some(known.names.into_iter().next().unwrap_or(known.id)),
        None => id,
    }
}

/// The names of containers by their ids, where a runtime tells them.
pub fn names() -> HashMap<String, String> {
    let named = |known: Known| Some((known.id, known.names.into_iter().next()?));
    told_by_runtimes(Path::new("/")).into_iter().filter_map(named).collect()
}

fn choose(wanted: &str, all: Vec<Known>) -> Result<Found, ContainerError> {
    let all: Vec<Known> = all.into_iter().filter(|known| !known.groups.is_empty()).collect();
    let exact = |known: &&Known| known.id == wanted || known.names.iter().any(|name| name == wanted);
    let begins = |known: &&Known| wanted.len() >= SHORTEST && known.id.starts_with(wanted);
    let mut fitting: Vec<&Known> = all.iter().filter(exact).collect();
    if fitting.is_empty() {
        fitting = all.iter().filter(begins).collect();
    }
    match fitting[..] {
        [] => Err(ContainerError::Unknown(wanted.to_owned())),
        [known] => {
            Ok(Found { name: known.names.first().unwrap_or(&known.id).clone(), groups: known.groups.clone() })
        }
        _ => {
            let ids: Vec<&str> = fitting.iter().map(|known| known.id.as_str()).collect();
            Err(ContainerError::Ambiguous(wanted.to_owned(), ids.join(", ")))
        }
    }
}

/// Every container that has processes or that a runtime tells of.
fn all(root: &Path) -> Vec<Known> {
    let mut all = Vec::new();
    for pid in identity::all_pids() {
        let groups = cgroup::of_process(pid);
        if let Some(container) = cgroup::container(&groups) {
            let id = container.id;
            let groups = groups.iter().filter_map(|group| up_to(group, &id)).collect();
            add(&mut all, Known { id, names: Vec::new(), groups });
        }
    }
    for known in told_by_runtimes(root) {
        add(&mut all, known);
    }
    all
}

/// The part of a group's path up to the folder that the container's id stands in.
fn up_to(group: &Group, id: &str) -> Option<Group> {
    let at = group.path.find(id)? + id.len();
    let end = group.path[at..].find('/').map_or(group.path.len(), |slash| at + slash);
    Some(Group { hierarchy: group.hierarchy.clone(), path: group.path[..end].to_owned() })
}

fn add(all: &mut Vec<Known>, more: Known) {
    match all.iter_mut().find(|known| known.id == more.id) {
        Some(known) => {
            known.names.extend(more.names);
            known.groups.extend(more.groups);
            known.groups.sort_unstable();
            known.groups.dedup();
        }
        None => all.push(more),
    }
}

fn told_by_runtimes(root: &Path) -> Vec<Known> {
    let mut told = Vec::new();
    for (id, state) in RUNC.iter().flat_map(|folder| states(&root.join(folder), "state.json")) {
        let paths: Vec<&str> = state["cgroup_paths"]
            .as_object()
            .map_or_else(Vec::new, |paths| paths.values().filter_map(Value::as_str).collect());
        let groups = groups_of(&state["init_process_pid"], &paths);
        told.push(Known { id, names: Vec::new(), groups });
    }
    for (id, state) in states(&root.join(CRUN), "status") {
        let paths: Vec<&str> = state["cgroup-path"].as_str().into_iter().collect();
        told.push(Known { id, names: Vec::new(), groups: groups_of(&state["pid"], &paths) });
    }
    for (id, state) in states(&root.join(DOCKER), "config.v2.json") {
        let names = state["Name"].as_str().map(|name| name.trim_start_matches('/').to_owned());
        told.push(Known { id, names: names.into_iter().collect(), groups: Vec::new() });
    }
    for namespace in entries(&root.join(CONTAINERD)) {
        for (id, state) in states(&namespace, "config.json") {
            let annotations = &state["annotations"];
            let names = NAMES.iter().filter_map(|name| annotations[*name].as_str()).map(str::to_owned);
            told.push(Known { id, names: names.collect(), groups: Vec::new() });
        }
    }
    for container in read(&root.join(STORAGE)).as_ref().and_then(Value::as_array).into_iter().flatten() {
        let names = container["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names = names.map(str::to_owned).collect();
        let id = container["id"].as_str().unwrap_or_default().to_owned();
        told.push(Known { id, names, groups: Vec::new() });
    }
    told.retain(|known| !known.id.is_empty());
    told
}

/// The groups of a container's first process that its runtime has made for it. `made` are their folders or paths.
fn groups_of(pid: &Value, made: &[&str]) -> Vec<Group> {
    let Some(pid) = pid.as_i64().and_then(|pid| i32::try_from(pid).ok()) else { return Vec::new() };
    let mut groups = cgroup::of_process(pid);
    groups.retain(|group| made.iter().any(|made| made.ends_with(&group.path)));
    groups
}

/// The file `name` in each folder of `folder`, with the folder's name, which is the container's id.
fn states(folder: &Path, name: &str) -> Vec<(String, Value)> {
    let state = |entry: PathBuf| {
        let id = entry.file_name()?.to_str()?.to_owned();
        Some((id, read(&entry.join(name))?))
    };
    entries(folder).into_iter().filter_map(state).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map_or_else(|_| Vec::new(), |entries| entries.flatten().map(|entry| entry.path()).collect())
}

fn read(path: &Path) -> Option<Value> {
    let size = fs::metadata(path).ok()?.len();
    (size <= MAX_STATE).then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f5e0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab";

    fn known(id: &str, names: &[&str]) -> Known {
        let groups = vec![Group { hierarchy: None, path: format!("/{id}") }];
        Known { id: id.to_owned(), names: names.iter().map(|name| (*name).to_owned()).collect(), groups }
    }

    #[test]
    fn a_container_is_found_by_name_id_or_the_beginning_of_its_id() {
        let all = || vec![known(ID, &["web"]), known("4f5f", &[]), known("web2", &[])];
        for wanted in ["web", ID, "4f5e", "4f5e01"] {
            assert_eq!(choose(wanted, all()).unwrap().name, "web", "{wanted}");
        }
        assert_eq!(choose("web2", all()).unwrap().name, "web2");
        assert!(matches!(choose("4f5", all()), Err(ContainerError::Ambiguous(..))));
        assert!(matches!(choose("4f", all()), Err(ContainerError::Unknown(_))));
        assert!(matches!(choose("", all()), Err(ContainerError::Unknown(_))));
    }

    #[test]
    fn runtimes_tell_names() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            (format!("{DOCKER}/{ID}/config.v2.json"), r#"{"Name": "/web"}"#.to_owned()),
            (STORAGE.to_owned(), format!(r#"[{{"id": "{ID}", "names": ["pod_web"]}}, {{"x": 1}}]"#)),
            (
                format!("{CONTAINERD}/default/{ID}/config.json"),
                r#"{"annotations": {"nerdctl/name": "nerd"}}"#.to_owned(),
            ),
            (format!("{CRUN}/broken/status"), "{".to_owned()),
        ];
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut all = Vec::new();
        for known in told_by_runtimes(root.path()) {
            add(&mut all, known);
        }
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].names, ["web", "nerd", "pod_web"]);
    }

    #[test]
    fn the_groups_below_a_containers_own_are_its_too() {
        let group = |path: &str| Group { hierarchy: Some(String::new()), path: path.to_owned() };
        let own = up_to(&group(&format!("/machine.slice/libpod-{ID}.scope/container/x")), ID);
        assert_eq!(own, Some(group(&format!("/machine.slice/libpod-{ID}.scope"))));
        assert_eq!(up_to(&group("/system.slice"), ID), None);
    }
}
