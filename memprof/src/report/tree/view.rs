//! The tree as it is drawn on a terminal: the lines on the left, what the chosen one is on the right or below, and the
//! keys at the foot.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TextLine, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

use super::browser::{Browser, Item, Line};
use crate::report::size::human;
use crate::report::sources::lines_around;
use crate::report::stack_matching::lasting_part;
use crate::report::visible;

/// From this width on the details stand beside the tree.
const BESIDE: u16 = 100;
/// From this height on they stand below it where there is no room beside.
const BELOW: u16 = 18;
/// How high they are then.
const DETAILS_HEIGHT: u16 = 7;
/// The columns that a level is indented by.
const INDENTATION: usize = 4;
/// At least so much of the chosen line is in sight, however deep it is.
const LEAST_IN_SIGHT: usize = 48;

const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws the whole view; `title` says what it is of.
pub fn draw(browser: &mut Browser<'_>, title: &str, frame: &mut Frame<'_>) {
    let rows = Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
    let [head, body, foot] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(TextLine::styled(visible(title).into_owned(), BOLD)), head);
    let (lines, details) = if body.width >= BESIDE {
        let columns = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]);
        let [lines, details] = columns.areas(body);
        (lines, Some((details, Borders::LEFT)))
    } else if body.height >= BELOW {
        let [lines, details] =
            Layout::vertical([Constraint::Min(1), Constraint::Length(DETAILS_HEIGHT)]).areas(body);
        (lines, Some((details, Borders::TOP)))
    } else {
        (body, None)
    };
    draw_lines(browser, frame, lines);
    if let Some((area, borders)) = details {
        let block = Block::new().borders(borders).border_style(FAINT);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        draw_details(browser, frame, inner);
    }
    draw_keys(browser, frame, foot);
}

fn draw_lines(browser: &mut Browser<'_>, frame: &mut Frame<'_>, area: Rect) {
    let (height, width) = (usize::from(area.height), usize::from(area.width));
    browser.set_page(height);
    // The page of lines that the chosen one is on, moved so that some lines stay in sight above and below it.
    let (cursor, n_lines) = (browser.cursor(), browser.lines().len());
    let first = cursor.saturating_sub(height / 2).min(n_lines.saturating_sub(height));
    let indented = INDENTATION * browser.lines()[cursor].goes_on.len();
    let hidden = (indented + LEAST_IN_SIGHT.min(width)).saturating_sub(width);
    let shown = browser.lines().iter().enumerate().skip(first).take(height);
    let lines: Vec<TextLine<'_>> = shown
        .map(|(place, line)| {
            let text = TextLine::from(spans(browser, line));
            if place == cursor { text.patch_style(Modifier::REVERSED) } else { text }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).scroll((0, u16::try_from(hidden).unwrap_or(u16::MAX))), area);
}

fn spans(browser: &Browser<'_>, line: &Line) -> Vec<Span<'static>> {
    let mut guides = String::new();
    if let Some((&goes_on, above)) = line.goes_on.split_last() {
        guides.extend(above.iter().map(|&goes_on| if goes_on { "│   " } else { "    " }));
        guides.push_str(if goes_on { "├── " } else { "└── " });
    }
    let mark = match line.is_open {
        Some(true) => "▼ ",
        Some(false) => "▶ ",
        None => "  ",
    };
    let tree = browser.tree();
    let mut spans = vec![Span::styled(guides, FAINT), Span::raw(mark)];
    let (size, text) = match line.item {
        Item::Elided => {
            let elided = tree.elided();
            let text = format!(
                "{} allocations from {} locations below the configured threshold",
                elided.n_allocations, elided.n_locations
            );
            (elided.size, vec![Span::raw(text)])
        }
        Item::Node(place) => {
            let node = &tree.nodes()[place];
            let text = match tree.frame(node) {
                None => vec![Span::styled("<ROOT>", BOLD)],
                Some(shown) => {
                    let file = lasting_part(shown.file);
                    let line = if shown.line == 0 { String::new() } else { format!(":{}", shown.line) };
                    let place = visible(&format!("  {file}{line}")).into_owned();
                    let function = visible(shown.function).into_owned();
                    vec![Span::styled(function, BOLD), Span::styled(place, Color::Cyan)]
                }
            };
            (node.size, text)
        }
    };
    let percent = tree.percent(size);
    spans.push(Span::styled(format!("{} ({percent:.2} %) ", human(size)), colour(percent)));
    spans.extend(text);
    spans
}

/// As memray has it, in the sixteen colours that every terminal has and its user has chosen.
fn colour(percent: f64) -> Color {
    match percent {
        60.0.. => Color::Red,
        20.0.. => Color::Yellow,
        _ => Color::Green,
    }
}

fn draw_details(browser: &Browser<'_>, frame: &mut Frame<'_>, area: Rect) {
    let tree = browser.tree();
    let item = browser.lines()[browser.cursor()].item;
    let (size, n_allocations) = match item {
        Item::Node(place) => (tree.nodes()[place].size, tree.nodes()[place].n_allocations),
        Item::Elided => (tree.elided().size, tree.elided().n_allocations),
    };
    let mut entries = vec![
        ("Size", format!("{} ({:.2} %)", human(size), tree.percent(size))),
        ("Allocations", n_allocations.to_string()),
    ];
    let shown = match item {
        Item::Node(place) => tree.frame(&tree.nodes()[place]).map(|shown| (shown, &tree.nodes()[place])),
        Item::Elided => None,
    };
    if let Some((shown, node)) = shown {
        let line = if shown.line == 0 { String::new() } else { format!(":{}", shown.line) };
        entries.push(("Function", shown.function.to_owned()));
        entries.push(("Location", format!("{}{line}", shown.file)));
        entries.push(("Thread", tree.thread(node)));
    }
    let lines: Vec<TextLine<'_>> =
        entries.iter().flat_map(|(label, value)| entry(label, value, usize::from(area.width))).collect();
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let rows = Layout::vertical([Constraint::Length(height), Constraint::Length(1), Constraint::Min(0)]);
    let [head, _, rest] = rows.areas(area);
    frame.render_widget(Paragraph::new(lines), head);
    if item == Item::Elided {
        let about = format!(
            "Only the {} largest allocation locations are shown in the tree; what is smaller is summed up here. A larger \
             --biggest-allocs shows more.",
            tree.biggest()
        );
        frame.render_widget(Paragraph::new(about).wrap(Wrap { trim: false }), rest);
    } else if let Some((shown, _)) = shown {
        frame.render_widget(Paragraph::new(source(shown.file, shown.line, rest.height)), rest);
    }
}

/// A value with its label, on more lines where it does not fit on one.
fn entry(label: &'static str, value: &str, width: usize) -> Vec<TextLine<'static>> {
    const LABEL: usize = 13;
    let value: Vec<char> = visible(value).chars().collect();
    let lines = value.chunks(width.saturating_sub(LABEL).max(1)).enumerate();
    lines
        .map(|(place, part)| {
            let label = if place == 0 { label } else { "" };
            let part: String = part.iter().collect();
            TextLine::from(vec![Span::styled(format!("{label:<LABEL$}"), FAINT), Span::raw(part)])
        })
        .collect()
}

/// So many lines of source, the one that is meant among them and marked; none where there is no such file.
fn source(file: &str, line: i32, height: u16) -> Vec<TextLine<'static>> {
    let Some(line) = u32::try_from(line).ok().filter(|&line| line > 0) else { return Vec::new() };
    let lines = lines_around(file, line, height.into()).into_iter();
    lines
        .map(|(number, text)| {
            let text = visible(&text.replace('\t', "    ")).into_owned();
            let style = if number == line { BOLD } else { FAINT };
            TextLine::styled(format!("{number:>5}  {text}"), style)
        })
        .collect()
}

fn draw_keys(browser: &Browser<'_>, frame: &mut Frame<'_>, area: Rect) {
    let verb = |is_hidden| if is_hidden { "Show" } else { "Hide" };
    let filter = browser.filter();
    let keys = [
        ("q", "Quit".to_owned()),
        ("i", format!("{} import system", verb(filter.hide_import_system))),
        ("u", format!("{} uninteresting", verb(filter.hide_uninteresting))),
        ("e", "Expand linear group".to_owned()),
        ("↑↓", "Move".to_owned()),
        ("Enter", "Open or close".to_owned()),
    ];
    let spans = keys.into_iter().flat_map(|(key, text)| {
        [Span::styled(format!(" {key} "), Modifier::REVERSED), Span::raw(format!(" {text}  "))]
    });
    frame.render_widget(Paragraph::new(TextLine::from(spans.collect::<Vec<_>>())), area);
}
