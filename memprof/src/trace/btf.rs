//! Where a member lies in a kernel struct, from the running kernel's BTF
//! (`Documentation/bpf/btf.rst`, `include/uapi/linux/btf.h`).

use std::{collections::HashSet, fs, io};

use memprof_common::unwind::ReturnProbes;

/// Why an offset is not known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel gives none.
    #[error(
        "cannot read the kernel's type information {path}: {source}: memprof needs a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    Read {
        /// The file.
        path: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// It is not of the form.
    #[error("the kernel's type information is of an unknown form")]
    Malformed,
    /// The struct or member is not there.
    #[error("the kernel's type information has no {0}")]
    Missing(String),
}

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// A struct or union.
struct Composite {
    name: u32,
    has_bit_sizes: bool,
    members: Vec<Member>,
}

struct Member {
    name: u32,
    kind: u32,
    offset: u32,
}

struct Btf {
    strings: Vec<u8>,
    types: Vec<Option<Composite>>,
}

/// What the kernel side reads of the running kernel's structs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Offset in bytes of the user thread pointer in `task_struct`.
    pub task_thread_pointer: u64,
    /// Where the return addresses that return probes have replaced are kept; all zero where that is not known, and then
    /// stacks end at a function with a return probe.
    pub return_probes: ReturnProbes,
}

/// Reads the running kernel's type information.
pub fn offsets() -> Result<Offsets, BtfError> {
    let bytes = fs::read(VMLINUX).map_err(|source| BtfError::Read { path: VMLINUX, source })?;
    let btf = parse(&bytes).ok_or(BtfError::Malformed)?;
    let path: &[&str] =
        if cfg!(target_arch = "aarch64") { &["thread", "uw", "tp_value"] } else { &["thread", "fsbase"] };
    let task_thread_pointer = btf
        .offset("task_struct", path)
        .ok_or_else(|| BtfError::Missing(format!("task_struct.{}", path.join("."))))?;
    Ok(Offsets { task_thread_pointer, return_probes: return_probes(&btf).unwrap_or_default() })
}

fn return_probes(btf: &Btf) -> Option<ReturnProbes> {
    let offset = |name, member| btf.offset(name, &[member])?.try_into().ok();
    Some(ReturnProbes {
        task_utask: offset("task_struct", "utask")?,
        utask_instances: offset("uprobe_task", "return_instances")?,
        next: offset("return_instance", "next")?,
        stack: offset("return_instance", "stack")?,
        original: offset("return_instance", "orig_ret_vaddr")?,
        reserved: 0,
    })
}

fn parse(bytes: &[u8]) -> Option<Btf> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    if word(0)? & 0xffff != 0xeb9f {
        return None;
    }
    let header = word(4)? as usize;
    let types_at = header.checked_add(word(8)? as usize)?;
    let types_end = types_at.checked_add(word(12)? as usize)?;
    let strings_at = header.checked_add(word(16)? as usize)?;
    let strings_end = strings_at.checked_add(word(20)? as usize)?;
    let strings = bytes.get(strings_at..strings_end)?.to_vec();
    // Type 0 is `void`.
    let mut types = vec![None];
    let mut at = types_at;
    while at < types_end {
        let (name, info) = (word(at)?, word(at + 4)?);
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        at += 12;
        types.push(None);
        if kind == KIND_STRUCT || kind == KIND_UNION {
            let members = (0..count)
                .map(|index| {
                    let at = at + 12 * index;
                    Some(Member { name: word(at)?, kind: word(at + 4)?, offset: word(at + 8)? })
                })
                .collect::<Option<Vec<_>>>()?;
            *types.last_mut()? = Some(Composite { name, has_bit_sizes: info >> 31 != 0, members });
        }
        at += match kind {
            // int, var, declaration tag
            1 | 14 | 17 => 4,
            // array
            3 => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
            // enum, function prototype
            6 | 13 => 8 * count,
            _ => 0,
        };
    }
    Some(Btf { strings, types })
}

impl Btf {
    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let Some(rest) = self.strings.get(name as usize..) else { return false };
        rest.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn offset(&self, name: &str, path: &[&str]) -> Option<u64> {
        let composite = self.types.iter().flatten().find(|found| self.is_named(found.name, name))?;
        let bits = self.within(composite, path, &mut HashSet::new())?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Offset in bits of a path of members; members of unnamed structs count as the outer one's.
    fn within(&self, composite: &Composite, path: &[&str], under_way: &mut HashSet<u32>) -> Option<u64> {
        let (first, rest) = path.split_first()?;
        for member in &composite.members {
            let offset =
                u64::from(if composite.has_bit_sizes { member.offset & 0xff_ffff } else { member.offset });
            if self.is_named(member.name, first) {
                if rest.is_empty() {
                    return Some(offset);
                }
                let inner = self.types.get(member.kind as usize)?.as_ref()?;
                return Some(offset + self.within(inner, rest, under_way)?);
            }
            if self.is_named(member.name, "") && under_way.insert(member.kind) {
                let inner = self.types.get(member.kind as usize).and_then(Option::as_ref);
                if let Some(found) = inner.and_then(|inner| self.within(inner, path, under_way)) {
                    return Some(offset + found);
                }
                under_way.remove(&member.kind);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_btf() {
        assert!(parse(&[]).is_none());
        assert!(parse(&[0xff; 64]).is_none());
        assert!(
            parse(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0])
                .is_none()
        );
    }
}
