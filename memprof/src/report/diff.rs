//! What has changed between two captures: in all, by function, and stack by stack.
//!
//! Stacks are matched by names (`stack_matching`), so that captures of different builds and machines can be
//! compared.

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::frame_tree::{FrameTree, Lifetime, NodeId, Orientation, Shown, StringId, ThreadId, TreeError};
use super::profile_tree::Stacks;
use super::size::human;
use super::stack_matching::matching_name;
use super::visible;
use crate::heap::{Namer, Profile};

/// What was held, or how that has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// In bytes.
    pub bytes: u64,
    /// In how many allocations.
    pub allocations: u64,
}

/// The same, before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// In the first capture.
    pub before: Amount,
    /// In the second.
    pub after: Amount,
}

impl Change {
    /// By how many bytes it has grown.
    pub fn bytes(self) -> i128 {
        i128::from(self.after.bytes) - i128::from(self.before.bytes)
    }

    /// By how many allocations it has grown.
    pub fn allocations(self) -> i128 {
        i128::from(self.after.allocations) - i128::from(self.before.allocations)
    }

    /// By how much the bytes have grown, in percent of those before; `None` where there were none.
    pub fn percent(self) -> Option<f64> {
        (self.before.bytes > 0).then(|| self.bytes() as f64 * 100.0 / self.before.bytes as f64)
    }
}

/// How a function has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionChange {
    /// Its name.
    pub function: String,
    /// The part of its file's path by which it was matched.
    pub file: String,
    /// What it allocated itself.
    pub own: Change,
    /// With all that it called. A function that calls itself counts once.
    pub total: Change,
}

/// How much growth is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// More than so many percent of the bytes before.
    Percent(f64),
    /// More than so many bytes.
    Bytes(u64),
}

impl Limit {
    /// Whether a change goes over the limit. Growth from nothing is over any share.
    pub fn is_exceeded_by(self, change: Change) -> bool {
        match self {
            Self::Percent(limit) => change.percent().map_or(change.bytes() > 0, |percent| percent > limit),
            Self::Bytes(limit) => change.bytes() > i128::from(limit),
        }
    }
}

/// Two captures, compared.
pub struct Diff {
    tree: FrameTree,
    before: ThreadId,
    after: ThreadId,
    /// How everything has changed.
    pub whole: Change,
    /// The functions that have changed, those whose own memory has changed most first.
    pub functions: Vec<FunctionChange>,
}

impl Diff {
    /// Compares the allocations of two profiles.
    pub fn new(
        before: (&Profile, &mut Namer<'_>),
        after: (&Profile, &mut Namer<'_>),
    ) -> Result<Self, TreeError> {
        // The two captures stand where threads stand in the tree of one.
        let mut tree = FrameTree::new(Orientation::CallersFirst);
        let sides = [tree.thread("before")?, tree.thread("after")?];
        add_profile(&mut tree, sides[0], before.0, before.1)?;
        add_profile(&mut tree, sides[1], after.0, after.1)?;
        tree.finish(usize::MAX);
        let [before, after] = sides;
        let mut diff = Self { tree, before, after, whole: Change::default(), functions: Vec::new() };
        let totals = diff.totals();
        diff.whole = totals[0];
        diff.functions = diff.function_changes(&totals);
        Ok(diff)
    }

    /// The matched stacks, for a page; the first thread stands for the capture before, the second for the one
    /// after. The smallest nodes beyond `max_nodes` are folded.
    pub fn into_tree(mut self, max_nodes: usize) -> FrameTree {
        self.tree.finish(max_nodes);
        self.tree
    }

    /// How each node with everything below has changed.
    fn totals(&self) -> Vec<Change> {
        let amount = |(bytes, allocations)| Amount { bytes, allocations };
        let before = self.tree.sums(|allocated| allocated.thread == self.before);
        let after = self.tree.sums(|allocated| allocated.thread == self.after);
        before
            .into_iter()
            .zip(after)
            .map(|(before, after)| Change { before: amount(before), after: amount(after) })
            .collect()
    }

    fn function_changes(&self, totals: &[Change]) -> Vec<FunctionChange> {
        let mut own: FxHashMap<NodeId, Change> = FxHashMap::default();
        for allocated in self.tree.allocated() {
            let change = own.entry(allocated.node).or_default();
            let amount = Amount { bytes: allocated.bytes, allocations: allocated.count };
            add(if allocated.thread == self.before { &mut change.before } else { &mut change.after }, amount);
        }
        let mut functions: FxHashMap<(StringId, StringId), (Change, Change)> = FxHashMap::default();
        for (index, total) in totals.iter().enumerate().skip(1) {
            let node = NodeId(index as u32);
            let Some(function) = self.function(node) else { continue };
            let sums = functions.entry(function).or_default();
            if let Some(own) = own.get(&node) {
                add(&mut sums.0.before, own.before);
                add(&mut sums.0.after, own.after);
            }
            if !self.is_below_itself(node, function) {
                add(&mut sums.1.before, total.before);
                add(&mut sums.1.after, total.after);
            }
        }
        let mut changes: Vec<FunctionChange> = functions
            .into_iter()
            .filter(|(_, (own, total))| own.before != own.after || total.before != total.after)
            .map(|((function, file), (own, total))| FunctionChange {
                function: self.tree.text(function).to_owned(),
                file: self.tree.text(file).to_owned(),
                own,
                total,
            })
            .collect();
        changes.sort_by(|a, b| {
            let key = |change: &FunctionChange| (change.own.bytes().abs(), change.total.bytes().abs());
            key(b).cmp(&key(a)).then_with(|| (&a.function, &a.file).cmp(&(&b.function, &b.file)))
        });
        changes
    }

    fn function(&self, node: NodeId) -> Option<(StringId, StringId)> {
        match self.tree.nodes()[node.index()].shown {
            Shown::Frame(frame) => {
                let frame = self.tree.frames()[frame.index()];
                Some((frame.function, frame.file))
            }
            Shown::Root | Shown::TooDeep | Shown::Folded => None,
        }
    }

    fn is_below_itself(&self, node: NodeId, function: (StringId, StringId)) -> bool {
        let mut at = self.tree.nodes()[node.index()].parent;
        while at.index() > 0 {
            if self.function(at) == Some(function) {
                return true;
            }
            at = self.tree.nodes()[at.index()].parent;
        }
        false
    }

    /// Writes the whole and the `n_largest` largest changes as text.
    pub fn write_text(&self, n_largest: usize, out: &mut dyn Write) -> io::Result<()> {
        let Change { before, after } = self.whole;
        let share = self.whole.percent().map_or(String::new(), |percent| format!("  {percent:+.1}%"));
        let change = signed(self.whole.bytes());
        writeln!(out, "{:13} {:>12} {:>12} {:>13}", "", "before", "after", "change")?;
        writeln!(
            out,
            "{:13} {:>12} {:>12} {change:>13}{share}",
            "bytes",
            human(before.bytes),
            human(after.bytes)
        )?;
        let (b, a) = (before.allocations, after.allocations);
        writeln!(out, "{:13} {b:>12} {a:>12} {:>+13}", "allocations", self.whole.allocations())?;
        let changed = self.functions.iter().filter(|function| function.own.bytes() != 0);
        for (index, function) in changed.take(n_largest).enumerate() {
            if index == 0 {
                writeln!(out, "\nFunctions whose own allocations have changed most")?;
                writeln!(out, "{:>13} {:>12} {:>12}  function", "change", "before", "after")?;
            }
            let Change { before, after } = function.own;
            let change = signed(function.own.bytes());
            let (name, file) = (visible(&function.function), visible(&function.file));
            writeln!(
                out,
                "{change:>13} {:>12} {:>12}  {name}  {file}",
                human(before.bytes),
                human(after.bytes)
            )?;
        }
        Ok(())
    }

    /// Writes everything as JSON; `limit` adds whether it is exceeded.
    pub fn write_json(&self, limit: Option<Limit>, out: &mut dyn Write) -> io::Result<()> {
        let json = DiffJson {
            before: self.whole.before,
            after: self.whole.after,
            change: ChangeJson::from(self.whole),
            exceeded: limit.map(|limit| limit.is_exceeded_by(self.whole)),
            functions: &self.functions,
        };
        serde_json::to_writer_pretty(&mut *out, &json)?;
        writeln!(out)
    }
}

fn add_profile(
    tree: &mut FrameTree,
    side: ThreadId,
    profile: &Profile,
    namer: &mut Namer<'_>,
) -> Result<(), TreeError> {
    let mut stacks = Stacks::new(namer, tree, matching_name);
    for record in &profile.records {
        let place = (record.thread, record.stack, record.native, record.generation);
        stacks.add(place, side, Lifetime::MOMENT, record.size, record.n_allocations)?;
    }
    Ok(())
}

fn add(sum: &mut Amount, more: Amount) {
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.allocations = sum.allocations.saturating_add(more.allocations);
}

fn signed(bytes: i128) -> String {
    let size = human(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    match bytes {
        0 => size,
        1.. => format!("+{size}"),
        _ => format!("-{size}"),
    }
}

#[derive(Serialize)]
struct DiffJson<'a> {
    before: Amount,
    after: Amount,
    change: ChangeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    exceeded: Option<bool>,
    functions: &'a [FunctionChange],
}

#[derive(Serialize)]
struct ChangeJson {
    bytes: i128,
    allocations: i128,
    percent: Option<f64>,
}

impl From<Change> for ChangeJson {
    fn from(change: Change) -> Self {
        Self { bytes: change.bytes(), allocations: change.allocations(), percent: change.percent() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: u64, after: u64) -> Change {
        let amount = |bytes| Amount { bytes, allocations: 1 };
        Change { before: amount(before), after: amount(after) }
    }

    #[test]
    fn growth_is_over_a_limit_from_more_than_it_on() {
        assert!(!Limit::Percent(5.0).is_exceeded_by(change(1000, 1050)));
        assert!(Limit::Percent(5.0).is_exceeded_by(change(1000, 1051)));
        assert!(!Limit::Bytes(50).is_exceeded_by(change(1000, 1050)));
        assert!(Limit::Bytes(50).is_exceeded_by(change(1000, 1051)));
        assert!(!Limit::Bytes(0).is_exceeded_by(change(1000, 10)));
        assert!(!Limit::Percent(0.0).is_exceeded_by(change(1000, 1000)));
    }

    #[test]
    fn growth_from_nothing_is_over_any_share() {
        assert!(Limit::Percent(1000.0).is_exceeded_by(change(0, 1)));
        assert!(!Limit::Percent(0.0).is_exceeded_by(change(0, 0)));
    }

    #[test]
    fn changes_have_their_sign() {
        assert_eq!(signed(1500), "+1.500kB");
        assert_eq!(signed(-2), "-2.000B");
        assert_eq!(change(u64::MAX, 0).bytes(), -i128::from(u64::MAX));
    }
}
