//! `/proc/PID/maps` (`proc_pid_maps(5)`). The content is the target's to choose: a path in it is for
//! display only, files are reached by device, inode and `map_files`.

/// One mapping. Addresses are avma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub begin: u64,
    /// First address after it.
    pub end: u64,
    /// May be executed.
    pub executable: bool,
    /// May be written.
    pub writable: bool,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Inode; 0 for no file.
    pub inode: u64,
    /// The path as shown, with the kernel's escape of newlines; empty for anonymous memory.
    pub path: String,
}

/// Parses the whole file. Lines that are not of the form are left out: only the kernel writes it, so there are none.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|&byte| byte == b'\n').filter_map(|line| parse_line(&String::from_utf8_lossy(line))).collect()
}

fn parse_line(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let trimmed = rest.trim_start_matches(' ');
        let (word, tail) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
        rest = tail;
        word
    };
    let (begin, end) = word().split_once('-')?;
    let permissions = word();
    let offset = word();
    let (major, minor) = word().split_once(':')?;
    let inode = word();
    Some(Mapping {
        begin: u64::from_str_radix(begin, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        executable: permissions.contains('x'),
        writable: permissions.contains('w'),
        offset: u64::from_str_radix(offset, 16).ok()?,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        path: rest.trim_start_matches(' ').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_spaces() {
        let text = b"7f00-8000 r-xp 00001000 fe:01 42                         /tmp/a  b (deleted)\n\
            8000-9000 rw-p 00000000 00:00 0 \n";
        let mappings = parse(text);
        assert_eq!(mappings.len(), 2);
        assert_eq!(mappings[0].path, "/tmp/a  b (deleted)");
        assert_eq!((mappings[0].begin, mappings[0].end, mappings[0].offset), (0x7f00, 0x8000, 0x1000));
        assert_eq!((mappings[0].device, mappings[0].inode), ((0xfe, 1), 42));
        assert!(mappings[0].executable && !mappings[0].writable);
        assert_eq!(mappings[1].path, "");
    }

    #[test]
    fn nonsense_is_left_out() {
        assert_eq!(parse(b"\n\xff\xff\nzz-11 r 0 0:0 0\n1-2\n"), vec![]);
    }
}
