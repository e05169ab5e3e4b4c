//! Reads plain objects of an interpreter from outside: strings, numbers, lists, dictionaries, attributes.
//!
//! `Include/cpython/*.h`, `internal/pycore_dict.h` and `pycore_object.h` of each version. Every object is asked for its
//! type's flags before it is read as one, and every count is bounded, for the process may change or free it
//! meanwhile.

use super::layout::Offsets;
use super::memory::Memory;
use super::text;
use super::version::Version;
use std::io;

/// Items of a list or dictionary that are read.
const MAX_ITEMS: u64 = 1 << 18;
/// Bytes of a string that are read.
const MAX_STRING: usize = 1 << 16;

/// Bits of `tp_flags`.
mod flag {
    pub const INLINE_VALUES: u64 = 1 << 2;
    pub const MANAGED_DICT: u64 = 1 << 4;
    pub const LONG: u64 = 1 << 24;
    pub const LIST: u64 = 1 << 25;
    pub const UNICODE: u64 = 1 << 28;
    pub const DICT: u64 = 1 << 29;
}

/// Members of a type, from the end of the object header (`cpython/object.h`).
mod of_type {
    pub const BASIC_SIZE: u64 = 16;
    pub const FLAGS: u64 = 152;
    pub const DICT_OFFSET: u64 = 272;
}

/// The objects of a process.
pub struct Objects<'a, M> {
    memory: &'a M,
    offsets: &'a Offsets,
}

/// The object is not what it is read as.
fn wrong<T>() -> io::Result<T> {
    Err(io::ErrorKind::InvalidData.into())
}

impl<'a, M: Memory> Objects<'a, M> {
    /// Objects that lie in `memory` as `offsets` say.
    pub fn new(memory: &'a M, offsets: &'a Offsets) -> Self {
        Self { memory, offsets }
    }

    /// A `str`.
    pub fn string(&self, object: u64) -> io::Result<String> {
        self.expect(object, flag::UNICODE)?;
        text::read(self.memory, self.offsets, object, MAX_STRING)
    }

    /// An `int` that is not negative and fits.
    pub fn integer(&self, object: u64) -> io::Result<u64> {
        /// Each digit of an `int` holds as many bits of it.
        const DIGIT_BITS: u64 = 30;
        self.expect(object, flag::LONG)?;
        let size = self.memory.u64(self.body(object))?;
        // Up to 3.11 the number of digits, negative for a negative number; then a tag whose two lowest bits are the
        // sign, 0 for a positive number and 1 for zero, and whose bits from the third on are the number.
        let digits = match self.minor() {
            ..=11 => size,
            _ => match size & 3 {
                0 => size >> 3,
                1 => 0,
                _ => return wrong(),
            },
        };
        (0..digits).try_fold(0_u64, |value, index| {
            if index > 2 {
                return wrong();
            }
            let digit = u64::from(self.memory.u32(self.body(object).wrapping_add(8 + 4 * index))?);
            let shifted = digit << (DIGIT_BITS * index);
            if shifted >> (DIGIT_BITS * index) == digit { Ok(value | shifted) } else { wrong() }
        })
    }

    /// The items of a `list`.
    pub fn list(&self, object: u64) -> io::Result<Vec<u64>> {
        self.expect(object, flag::LIST)?;
        let length = self.memory.u64(self.body(object))?;
        let items = self.memory.u64(self.body(object).wrapping_add(8))?;
        self.words(items, length)
    }

    /// The keys and values of a `dict`.
    pub fn dictionary(&self, object: u64) -> io::Result<Vec<(u64, u64)>> {
        self.expect(object, flag::DICT)?;
        // `ma_used` and a version come first.
        let keys = self.memory.u64(self.body(object).wrapping_add(16))?;
        let values = self.memory.u64(self.body(object).wrapping_add(24))?;
        self.items(keys, if values == 0 { None } else { Some(values) })
    }

    /// The value of a `dict` for a key that is a `str`.
    pub fn get(&self, dictionary: u64, key: &str) -> io::Result<Option<u64>> {
        let items = self.dictionary(dictionary)?;
        Ok(self.find(&items, key))
    }

    /// The namespace of a module object.
    pub fn module_get(&self, module: u64, key: &str) -> io::Result<Option<u64>> {
        // `md_dict` is the first member of `PyModuleObject`.
        self.get(self.memory.u64(self.body(module))?, key)
    }

    /// An attribute of an instance of a class written in Python, from the instance itself.
    pub fn attribute(&self, instance: u64, name: &str) -> io::Result<Option<u64>> {
        let class = self.class(instance)?;
        let flags = self.memory.u64(self.body(class).wrapping_add(of_type::FLAGS))?;
        let items = match self.minor() {
            ..=10 => {
                let place = self.memory.u64(self.body(class).wrapping_add(of_type::DICT_OFFSET))?;
                self.dictionary(self.memory.u64(instance.wrapping_add(place))?)?
            }
            _ if flags & flag::MANAGED_DICT == 0 => return Ok(None),
            11 => match self.memory.u64(instance.wrapping_sub(32))? {
                0 => self.dictionary(self.memory.u64(instance.wrapping_sub(24))?)?,
                values => self.items(self.cached_keys(class)?, Some(values))?,
            },
            12 => match self.memory.u64(instance.wrapping_sub(24))? {
                // A tag in the lowest bit says that it is values; they lie one byte on.
                tagged if tagged & 1 == 1 => {
                    self.items(self.cached_keys(class)?, Some(tagged.wrapping_add(1)))?
                }
                dictionary => self.dictionary(dictionary)?,
            },
            _ => {
                // The header in front of an object is that of the garbage collector, unless the build has none.
                let place = if self.offsets.walk.free_threaded == 0 { 24 } else { 8 };
                match self.memory.u64(instance.wrapping_sub(place))? {
                    0 if flags & flag::INLINE_VALUES != 0 => {
                        let size = self.memory.u64(self.body(class).wrapping_add(of_type::BASIC_SIZE))?;
                        self.items(self.cached_keys(class)?, Some(instance.wrapping_add(size)))?
                    }
                    dictionary => self.dictionary(dictionary)?,
                }
            }
        };
        Ok(self.find(&items, name))
    }

    fn minor(&self) -> u8 {
        Version(self.offsets.walk.version).minor()
    }

    /// What follows the object header.
    fn body(&self, object: u64) -> u64 {
        object.wrapping_add(self.offsets.state.object_header)
    }

    fn class(&self, object: u64) -> io::Result<u64> {
        self.memory.u64(object.wrapping_add(self.offsets.walk.object_type.into()))
    }

    fn expect(&self, object: u64, kind: u64) -> io::Result<()> {
        let flags = self.memory.u64(self.body(self.class(object)?).wrapping_add(of_type::FLAGS))?;
        if flags & kind == 0 { wrong() } else { Ok(()) }
    }

    fn cached_keys(&self, class: u64) -> io::Result<u64> {
        self.memory.u64(class.wrapping_add(self.offsets.state.type_cached_keys))
    }

    fn find(&self, items: &[(u64, u64)], key: &str) -> Option<u64> {
        let same = |(object, _): &&(u64, u64)| self.string(*object).is_ok_and(|string| string == key);
        items.iter().find(same).map(|(_, value)| *value)
    }

    fn words(&self, avma: u64, count: u64) -> io::Result<Vec<u64>> {
        if count > MAX_ITEMS {
            return wrong();
        }
        let bytes = self.memory.vec(avma, 8 * count as usize)?;
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        Ok(bytes.chunks_exact(8).map(word).collect())
    }

    /// The items of a table of keys, whose values are in it or, where several dictionaries share it, in an array.
    fn items(&self, keys: u64, values: Option<u64>) -> io::Result<Vec<(u64, u64)>> {
        let entries = self.keys(keys)?;
        let mut items = match values {
            None => entries,
            Some(values) => {
                // From 3.13 on four counters of a byte each, padded to a word, come first.
                let values = if self.minor() >= 13 { values.wrapping_add(8) } else { values };
                let values = self.words(values, entries.len() as u64)?;
                entries.iter().map(|(key, _)| *key).zip(values).collect()
            }
        };
        items.retain(|(key, value)| *key != 0 && *value != 0);
        Ok(items)
    }

    /// The entries of a `PyDictKeysObject` in the order of insertion; 0 for what was deleted, and for values that are
    /// kept elsewhere.
    fn keys(&self, keys: u64) -> io::Result<Vec<(u64, u64)>> {
        let (count, entries, width) = if self.minor() <= 10 {
            // dk_refcnt, dk_size, dk_lookup, dk_usable, dk_nentries, dk_indices
            let size = self.memory.u64(keys.wrapping_add(8))?;
            let index = match size {
                ..=0xff => 1,
                0x100..=0xffff => 2,
                0x1_0000..=0xffff_ffff => 4,
                _ => return wrong(),
            };
            (self.memory.u64(keys.wrapping_add(32))?, keys.wrapping_add(40 + size * index), 3)
        } else {
            // dk_refcnt, dk_log2_size, dk_log2_index_bytes, dk_kind, dk_version, dk_usable, dk_nentries, dk_indices
            let [_, index_bytes, kind, _] = self.memory.array(keys.wrapping_add(8))?;
            let Some(indices) = 1_u64.checked_shl(index_bytes.into()) else { return wrong() };
            let width = if kind == 0 { 3 } else { 2 };
            (self.memory.u64(keys.wrapping_add(24))?, keys.wrapping_add(32).wrapping_add(indices), width)
        };
        if count > MAX_ITEMS / 4 {
            return wrong();
        }
        // An entry is {hash, key, value}, or {key, value} where all keys are strings.
        let words = self.words(entries, count * width as u64)?;
        Ok(words.chunks_exact(width).map(|entry| (entry[width - 2], entry[width - 1])).collect())
    }
}
