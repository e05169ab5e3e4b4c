//! The tree as it is walked through on a terminal: what is open, where the cursor is. The keys are memray's.

use crossterm::event::KeyCode;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Filter, Tree};

/// What a line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A node by its place.
    Node(usize),
    /// What is too small for the tree.
    Elided,
}

/// A line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub item: Item,
    /// For each level above it, and its own, whether more of that level comes below.
    pub goes_on: Vec<bool>,
    /// `None` where there is nothing below.
    pub is_open: Option<bool>,
}

/// The state of a tree on a terminal.
pub struct Browser<'a> {
    tree: &'a Tree<'a>,
    filter: Filter,
    open: FxHashSet<usize>,
    /// What is shown below a node.
    children: FxHashMap<usize, Vec<usize>>,
    lines: Vec<Line>,
    /// The place of a line.
    cursor: usize,
    /// How many lines fit on the screen.
    page: usize,
}

impl<'a> Browser<'a> {
    /// Shows a tree as memray does at first: the largest branch is open.
    pub fn new(tree: &'a Tree<'a>) -> Self {
        let mut browser = Self {
            tree,
            filter: Filter::default(),
            open: FxHashSet::default(),
            children: FxHashMap::default(),
            lines: Vec::new(),
            cursor: 0,
            page: 1,
        };
        browser.begin();
        browser
    }

    /// The tree that is shown.
    pub fn tree(&self) -> &'a Tree<'a> {
        self.tree
    }

    /// What is left out of view.
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// The lines from top to bottom; never none.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The place of the line that is chosen.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Says how many lines fit on the screen, for the keys that turn pages.
    pub fn set_page(&mut self, page: usize) {
        self.page = page.max(1);
    }

    /// Does what a key stands for.
    pub fn press(&mut self, key: KeyCode) {
        let last = self.lines.len() - 1;
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.cursor = (self.cursor + 1).min(last),
            KeyCode::PageUp => self.cursor = self.cursor.saturating_sub(self.page),
            KeyCode::PageDown => self.cursor = (self.cursor + self.page).min(last),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = last,
            KeyCode::Enter | KeyCode::Char(' ') => self.toggle(),
            KeyCode::Right => self.inwards(),
            KeyCode::Left => self.outwards(),
            KeyCode::Char('e') => self.toggle_linear_group(),
            KeyCode::Char('i') => {
                self.filter.hide_import_system ^= true;
                self.begin();
            }
            KeyCode::Char('u') => {
                self.filter.hide_uninteresting ^= true;
                self.begin();
            }
            _ => {}
        }
    }

    /// Everything is closed but the first branch, and the cursor is at the root.
    fn begin(&mut self) {
        self.children.clear();
        self.open.clear();
        let mut node = 0;
        self.open.insert(node);
        while let Some(&first) = self.children_of(node).first() {
            self.open.insert(first);
            node = first;
        }
        self.cursor = 0;
        self.lay_out();
    }

    fn children_of(&mut self, node: usize) -> &[usize] {
        let (tree, filter) = (self.tree, self.filter);
        self.children.entry(node).or_insert_with(|| tree.shown_children(node, filter))
    }

    fn chosen(&self) -> Option<usize> {
        match self.lines[self.cursor].item {
            Item::Node(node) => Some(node),
            Item::Elided => None,
        }
    }

    fn set_open(&mut self, node: usize, open: bool) {
        if open {
            self.open.insert(node);
        } else {
            self.open.remove(&node);
        }
    }

    fn toggle(&mut self) {
        if let Some(node) = self.chosen() {
            let open = !self.open.contains(&node);
            self.set_open(node, open);
            self.lay_out();
        }
    }

    /// The chosen node and those below it up to where the tree parts.
    fn toggle_linear_group(&mut self) {
        let Some(mut node) = self.chosen() else { return };
        let open = !self.open.contains(&node);
        self.set_open(node, open);
        while let &[only] = self.children_of(node) {
            self.set_open(only, open);
            node = only;
        }
        self.lay_out();
    }

    /// Opens what is closed; otherwise goes to the first line below.
    fn inwards(&mut self) {
        match self.lines[self.cursor].is_open {
            Some(true) => self.cursor += 1,
            Some(false) => self.toggle(),
            None => {}
        }
    }

    /// Closes what is open; otherwise goes to the line above that it belongs to.
    fn outwards(&mut self) {
        if self.lines[self.cursor].is_open == Some(true) {
            self.toggle();
            return;
        }
        let depth = self.lines[self.cursor].goes_on.len();
        let above = &self.lines[..self.cursor];
        self.cursor = above.iter().rposition(|line| line.goes_on.len() < depth).unwrap_or(0);
    }

    fn lay_out(&mut self) {
        self.lines.clear();
        // Nodes with their levels, the next at the end.
        let mut pending = vec![(Item::Node(0), Vec::new())];
        while let Some((item, goes_on)) = pending.pop() {
            let mut is_open = None;
            if let Item::Node(node) = item {
                let mut below: Vec<Item> = self.children_of(node).iter().copied().map(Item::Node).collect();
                if node == 0 && self.tree.elided().n_locations > 0 {
                    below.push(Item::Elided);
                }
                if !below.is_empty() {
                    is_open = Some(self.open.contains(&node));
                }
                if is_open == Some(true) {
                    let n_below = below.len();
                    for (place, child) in below.into_iter().enumerate().rev() {
                        let levels = goes_on.iter().copied().chain([place + 1 < n_below]).collect();
                        pending.push((child, levels));
                    }
                }
            }
            self.lines.push(Line { item, goes_on, is_open });
        }
        self.cursor = self.cursor.min(self.lines.len() - 1);
    }
}
