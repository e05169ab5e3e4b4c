//! The pages in a real browser: every control is used as a reader uses it, and what it does is checked.

use anyhow::{Context, Result};
use memprof::report::frame_tree::{FrameTree, Lifetime, Orientation};
use memprof::report::page::flamegraph::{FlameGraph, MAX_NODES, Temporal};
use memprof::report::page::table::{Row, Table};
use memprof::report::page::{Confidential, Loss, Totals};
use memprof_tests::chromium::Page;
use memprof_tests::opened::{HEADING, Opened, WINDOW, add, large_tree, named, stacks_tree, totals};
use serde_json::json;

#[test]
fn frames_are_drawn_in_proportion() -> Result<()> {
    let mut graph = Opened::usual()?;
    let whole = graph.frame("All")?;
    assert_eq!((whole.bytes, whole.count), (1_000_000, 100));
    // runpy is hidden, so that what it runs stands with the rest of `main`.
    assert_eq!(graph.row(1)?, named([("main", 840_000), ("run", 160_000)]));
    let main = graph.frame("main")?;
    assert_eq!((main.place.as_str(), main.count), ("app.py:1", 70));
    assert!((main.width / whole.width - 0.84).abs() < 0.001, "{main:?} of {whole:?}");
    let ground = graph.colour((whole.left + 1.0, whole.top + 15.0 * whole.height))?;
    assert_eq!(ground[3], 0, "nothing is drawn below the frames");
    for name in ["All", "main", "load", "loads", "store", "compress"] {
        let frame = graph.frame(name)?;
        assert_eq!(graph.colour(frame.end())?[3], 255, "{frame:?} is drawn");
    }
    graph.finish()
}

#[test]
fn a_click_zooms_and_the_path_leads_back() -> Result<()> {
    let mut graph = Opened::usual()?;
    let whole = graph.frame("All")?;
    let load = graph.frame("load")?;
    graph.page.click_at(load.middle())?;
    let zoomed = graph.frame("load")?;
    assert!((zoomed.width - whole.width).abs() < 1.0, "{zoomed:?}");
    assert_eq!(graph.row(3)?, named([("loads", 400_000)]));
    assert_eq!(graph.page.text("#crumbs [aria-current]")?, "load");
    assert_eq!(graph.page.text("#zoom-sum")?, "500.0 kB in 50 allocations · 50.0%");

    // The address holds the zoom: opened anew, the page is as it was.
    let fragment = graph.page.evaluate("location.hash")?;
    let mut again = Page::open_at(&graph.file, fragment.as_str().context("no fragment")?, WINDOW)?;
    assert_eq!(again.text("#crumbs [aria-current]")?, "load");

    graph.page.evaluate("history.back()")?;
    graph.page.wait_until("document.querySelector('#crumbs [aria-current]').innerText === 'All'")?;
    assert_eq!(graph.row(1)?, named([("main", 840_000), ("run", 160_000)]));
    graph.page.evaluate("history.forward()")?;
    graph.page.wait_until("document.querySelector('#crumbs [aria-current]').innerText === 'load'")?;
    graph.page.click("#crumbs button")?;
    assert_eq!(graph.page.text("#crumbs [aria-current]")?, "All");
    graph.finish()
}

#[test]
fn a_search_marks_what_it_finds_and_shows_its_total() -> Result<()> {
    let mut graph = Opened::usual()?;
    let before = graph.frame("loads")?;
    let usual = graph.colour(before.end())?;
    graph.search("LOADS")?;
    let found = graph.frame("loads")?;
    assert!(found.matched);
    assert_ne!(graph.colour(found.end())?, usual, "the match has a colour of its own");
    assert!(!graph.frame("main")?.matched);
    assert_eq!(graph.page.text("#matched")?, "500.0 kB · 50.0%");
    // A match within a match counts once; files count as names do.
    for (search, total) in [
        ("/^(load|loads)$/", "600.0 kB · 60.0%"),
        ("zlib.py", "200.0 kB · 20.0%"),
        ("nowhere", "no match"),
        ("/(/", "not a regular expression"),
    ] {
        graph.search(search)?;
        assert_eq!(graph.page.text("#matched")?, total, "{search}");
    }
    graph.page.press("Escape")?;
    assert_eq!(graph.page.text("#matched")?, "");
    graph.finish()
}

#[test]
fn the_tooltip_tells_what_a_frame_is_and_holds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("shop.py");
    std::fs::write(&source, "def buy():\n    basket = [b'apple'] * 1000\n")?;
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    let place = format!("{}:2", source.display());
    add(&mut tree, &format!("buy@{place}"), "0x1", Lifetime::MOMENT, 1_234_567, 3)?;
    tree.finish(MAX_NODES);
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
    let buy = graph.frame("buy")?;
    graph.page.point_at(buy.middle())?;
    graph.page.wait_until("!document.querySelector('#tip').hidden")?;
    let tip = graph.page.text("#tip")?;
    for part in ["buy", &place, "1.23 MB", "1,234,567 bytes", "100.0%"] {
        assert!(tip.contains(part), "{part:?} in {tip:?}");
    }
    assert_eq!(graph.page.text("#tip .source")?, "basket = [b'apple'] * 1000");
    graph.page.point_at((5.0, 5.0))?;
    graph.page.wait_until("document.querySelector('#tip').hidden")?;
    graph.finish()
}

#[test]
fn direction_order_width_and_colour_can_be_chosen() -> Result<()> {
    let mut graph = Opened::usual()?;
    let (whole, main) = (graph.frame("All")?, graph.frame("main")?);
    assert!(whole.top < main.top, "an icicle hangs from its root");
    graph.page.click("input[value=flame] + span")?;
    let (whole, main) = (graph.frame("All")?, graph.frame("main")?);
    assert!(whole.top > main.top, "a flame stands on its root");
    graph.page.click("input[value=icicle] + span")?;

    graph.page.click("#inverted + span")?;
    let expected = [
        ("loads", 500_000),
        ("compress", 200_000),
        ("load", 100_000),
        ("store", 90_000),
        ("wait", 60_000),
        ("<module>", 50_000),
    ];
    assert_eq!(graph.row(1)?, named(expected));
    assert_eq!(graph.row(2)?[0], ("load".to_owned(), 500_000));
    assert_eq!(graph.row(3)?[..2], named([("main", 400_000), ("run", 100_000)]));
    graph.page.click("#inverted + span")?;

    graph.page.choose("#measure", "count")?;
    let (whole, run) = (graph.frame("All")?, graph.frame("run")?);
    assert!((run.width / whole.width - 0.3).abs() < 0.001, "30 of 100 allocations: {run:?}");
    graph.page.choose("#measure", "bytes")?;

    let compress = graph.frame("compress")?;
    let by_module = graph.colour(compress.end())?;
    graph.page.choose("#colour", "size")?;
    let compress = graph.frame("compress")?;
    assert_ne!(graph.colour(compress.end())?, by_module);
    assert!(graph.page.text("#palette")?.contains("100%"));
    graph.finish()
}

#[test]
fn an_inverted_report_begins_inverted_and_can_be_turned() -> Result<()> {
    let mut graph = Opened::flame_graph(&stacks_tree(Orientation::AllocationFirst)?, Temporal::Moment, &[])?;
    assert_eq!(graph.row(1)?[0], ("loads".to_owned(), 500_000));
    graph.page.click("#inverted + span")?;
    assert_eq!(graph.row(1)?, named([("main", 840_000), ("run", 160_000)]));
    graph.finish()
}

#[test]
fn imports_and_interpreter_frames_can_be_hidden() -> Result<()> {
    for orientation in [Orientation::CallersFirst, Orientation::AllocationFirst] {
        let mut graph = Opened::flame_graph(&stacks_tree(orientation)?, Temporal::Moment, &[])?;
        if orientation == Orientation::AllocationFirst {
            graph.page.click("#inverted + span")?;
        }
        // The frames of importlib are hidden, what a module does while it is imported is not.
        assert_eq!(graph.frame("<module>")?.depth, 2);
        graph.page.click("#hide-interpreter + span")?;
        assert_eq!(graph.row(1)?, named([("main", 750_000), ("run", 160_000), ("_run", 90_000)]));
        assert_eq!(graph.frame("<module>")?.depth, 3);
        assert_eq!(graph.frame("_load")?.bytes, 50_000);
        // Without imports the sum stays with who imports.
        graph.page.click("#hide-imports + span")?;
        let frames = graph.frames()?;
        let gone = frames.iter().all(|frame| frame.name != "_load" && frame.name != "<module>");
        assert!(gone, "{frames:?}");
        assert_eq!(graph.row(1)?, named([("main", 750_000), ("run", 160_000), ("_run", 90_000)]));
        graph.page.click("#inverted + span")?;
        let row = graph.row(1)?;
        assert!(row.contains(&("main".to_owned(), 50_000)), "`main` has what it imports: {row:?}");
        graph.finish()?;
    }
    Ok(())
}

#[test]
fn threads_can_be_chosen_and_set_side_by_side() -> Result<()> {
    let mut graph = Opened::usual()?;
    let worker = graph.page.evaluate(
        "[...document.querySelectorAll('#thread option')].find((option) => option.text === '0x2 (worker)').value",
    )?;
    graph.page.choose("#thread", worker.as_str().context("no value")?)?;
    assert_eq!(graph.frame("All")?.bytes, 160_000);
    assert_eq!(graph.row(1)?, named([("run", 160_000)]));
    graph.page.choose("#thread", "each")?;
    assert_eq!(graph.row(1)?, named([("Thread 0x1", 840_000), ("Thread 0x2 (worker)", 160_000)]));
    assert_eq!(graph.row(2)?, named([("main", 840_000), ("run", 160_000)]));
    graph.page.choose("#thread", "")?;
    assert_eq!(graph.row(1)?, named([("main", 840_000), ("run", 160_000)]));
    graph.finish()
}

#[test]
fn the_keyboard_moves_zooms_and_switches() -> Result<()> {
    let mut graph = Opened::usual()?;
    graph.page.evaluate("document.querySelector('#stage').focus()")?;
    for key in ["ArrowDown", "ArrowDown", "ArrowDown"] {
        graph.page.press(key)?;
    }
    let spoken = graph.page.evaluate("document.querySelector('#spoken').textContent")?;
    assert_eq!(spoken, json!("load app.py:10: 500.0 kB, 50.0%, 50 allocations"));
    graph.page.press("ArrowRight")?;
    let spoken = graph.page.evaluate("document.querySelector('#spoken').textContent")?;
    assert_eq!(spoken, json!("store db.py:20: 200.0 kB, 20.0%, 5 allocations"));
    graph.page.press("ArrowLeft")?;
    graph.page.press("Enter")?;
    assert_eq!(graph.page.text("#crumbs [aria-current]")?, "load");
    graph.page.press("Escape")?;
    assert_eq!(graph.page.text("#crumbs [aria-current]")?, "main");
    graph.page.press("Home")?;
    assert_eq!(graph.page.text("#crumbs [aria-current]")?, "All");
    graph.page.press("i")?;
    assert_eq!(graph.row(1)?[0].0, "loads");
    graph.page.press("f")?;
    assert_eq!(graph.page.evaluate("document.querySelector('input[value=flame]').checked")?, json!(true));
    graph.page.press("t")?;
    assert_eq!(graph.page.evaluate("document.querySelector('#main').dataset.show")?, json!("both"));
    graph.page.press("d")?;
    assert_eq!(graph.page.evaluate("document.documentElement.dataset.theme")?, json!("dark"));
    graph.page.press("?")?;
    assert_eq!(graph.page.evaluate("document.querySelector('#help').open")?, json!(true));
    graph.finish()
}

#[test]
fn the_table_beside_the_graph_sums_sorts_and_searches() -> Result<()> {
    let mut graph = Opened::usual()?;
    graph.page.click("input[value=both] + span")?;
    let first_row = "#functions tbody tr:first-child";
    let loads = graph.page.text(first_row)?;
    assert!(
        loads.starts_with("500.0 kB\t500.0 kB\t50.0%\t65\t"),
        "own, total, share, allocations: {loads:?}"
    );
    // By total, the other way round, and by name.
    graph.page.click("#functions th:nth-child(2) button")?;
    assert!(graph.page.text(first_row)?.contains("main"));
    graph.page.click("#functions th:nth-child(2) button")?;
    assert!(graph.page.text(first_row)?.contains("<module>"));
    let order = graph.page.evaluate("document.querySelector('#functions th:nth-child(2)').ariaSort")?;
    assert_eq!(order, json!("ascending"));
    graph.page.click("#functions th:nth-child(5) button")?;
    assert!(graph.page.text(first_row)?.contains("<module>"));
    // The search is that of the graph; a name in the table searches for itself.
    graph.search("compress")?;
    assert_eq!(graph.page.evaluate("document.querySelectorAll('#functions tbody tr').length")?, json!(1));
    graph.page.press("Escape")?;
    graph.page.click("#functions tbody tr:last-child .name button")?;
    assert_eq!(graph.page.text("#matched")?, "60.0 kB · 6.0%");
    graph.page.click("input[value=table] + span")?;
    assert_eq!(graph.page.evaluate("document.querySelector('#canvas').offsetParent === null")?, json!(true));
    graph.finish()
}

#[test]
fn a_function_that_calls_itself_counts_once_in_the_table() -> Result<()> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    add(&mut tree, "walk@a.py:1;walk@a.py:2;walk@a.py:2", "0x1", Lifetime::MOMENT, 700, 7)?;
    add(&mut tree, "walk@a.py:1", "0x1", Lifetime::MOMENT, 300, 3)?;
    tree.finish(MAX_NODES);
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
    graph.page.click("input[value=table] + span")?;
    assert!(graph.page.text("#functions tbody")?.starts_with("1.00 kB\t1.00 kB\t100.0%\t10\twalk"));
    graph.finish()
}

#[test]
fn totals_losses_and_help_are_shown() -> Result<()> {
    let losses = [Loss { what: "stacks cut at 128 frames <i>".to_owned(), count: Some(1234) }];
    let tree = stacks_tree(Orientation::CallersFirst)?;
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &losses)?;
    let shown = graph.page.text("#losses")?;
    assert!(
        shown.contains("not complete") && shown.contains("stacks cut at 128 frames <i>: 1,234"),
        "{shown:?}"
    );
    graph.page.click("#open-totals")?;
    let shown = graph.page.text("#totals")?;
    for part in [
        "python3 app.py --name '<b>\"x\"'",
        "4321",
        "1.00 MB (1,000,000 bytes)",
        "1,234,567",
        "10.5 s",
        "pymalloc",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    graph.page.click("#totals form button")?;
    graph.page.click("#open-help")?;
    assert!(graph.page.text("#help")?.contains("What was held at the peak."));
    graph.finish()
}

#[test]
fn nothing_is_said_of_losses_where_there_are_none() -> Result<()> {
    let mut graph = Opened::usual()?;
    assert_eq!(graph.page.evaluate("document.querySelector('#losses').hidden")?, json!(true));
    graph.finish()
}

#[test]
fn the_theme_follows_the_system_until_it_is_chosen() -> Result<()> {
    let mut graph = Opened::usual()?;
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = graph.page.evaluate(ground)?;
    graph.page.media("prefers-color-scheme", "dark")?;
    graph.page.wait_until("document.documentElement.dataset.theme === 'dark'")?;
    let dark = graph.page.evaluate(ground)?;
    assert_ne!(light, dark);
    graph.page.click("#theme")?;
    assert_eq!(graph.page.evaluate(ground)?, light);
    graph.page.media("prefers-color-scheme", "light")?;
    graph.page.click("#theme")?;
    assert_eq!(graph.page.evaluate(ground)?, dark);
    graph.finish()
}

/// Over the eleven intervals of the memory of the page: `early` holds 300 kB from the second to the fifth, `late`
/// 100 kB from the fourth to the end, and 50 kB more in the eighth.
fn temporal_tree() -> Result<FrameTree> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    let mut lived = |stack, from, to, bytes| add(&mut tree, stack, "0x1", Lifetime { from, to }, bytes, 1);
    lived("main@a.py:1;early@a.py:2", 2, Some(6), 300_000)?;
    lived("main@a.py:1;late@a.py:3", 4, None, 100_000)?;
    lived("main@a.py:1;late@a.py:3", 8, Some(9), 50_000)?;
    tree.finish(MAX_NODES);
    Ok(tree)
}

#[test]
fn a_window_of_a_peaks_report_shows_its_highest_point() -> Result<()> {
    let peaks =
        [0, 0, 300_000, 300_000, 400_000, 400_000, 100_000, 100_000, 150_000, 100_000, 100_000, 100_000];
    let mut graph = Opened::flame_graph(&temporal_tree()?, Temporal::Peaks(&peaks), &[])?;
    assert_eq!(graph.row(2)?, named([("early", 300_000), ("late", 100_000)]));
    // From the sixth second on, the highest point is in the eighth interval.
    let from = graph.page.middle("#handle-from")?;
    let to = graph.page.middle("#handle-to")?;
    let second = (to.0 - from.0) / 10.0;
    graph.page.drag(from, (from.0 + 6.0 * second, from.1))?;
    assert_eq!(graph.row(2)?, named([("late", 150_000)]));
    assert_eq!(graph.page.text("#window-text")?, "6.00 s to 10.0 s, highest 150.0 kB");
    // And with the keyboard beyond it.
    for _ in 0..4 {
        graph.page.press("ArrowRight")?;
    }
    assert_eq!(graph.row(2)?, named([("late", 100_000)]));
    let fragment = graph.page.evaluate("location.hash")?;
    let mut again = Page::open_at(&graph.file, fragment.as_str().context("no fragment")?, WINDOW)?;
    assert!(again.text("#window-text")?.ends_with("highest 100.0 kB"));
    graph.page.click("#window-reset")?;
    assert_eq!(graph.row(2)?, named([("early", 300_000), ("late", 100_000)]));
    graph.finish()
}

#[test]
fn a_window_of_a_leaks_report_shows_what_it_left_behind() -> Result<()> {
    let mut graph = Opened::flame_graph(&temporal_tree()?, Temporal::Leaks, &[])?;
    assert_eq!(graph.row(2)?, named([("late", 100_000)]));
    let from = graph.page.middle("#handle-from")?;
    let to = graph.page.middle("#handle-to")?;
    let second = (to.0 - from.0) / 10.0;
    graph.page.drag(to, (from.0 + 4.0 * second, to.1))?;
    assert_eq!(graph.row(2)?, named([("early", 300_000), ("late", 100_000)]));
    graph.page.drag(from, (from.0 + 3.0 * second, from.1))?;
    assert_eq!(graph.row(2)?, named([("late", 100_000)]));
    graph.finish()
}

/// Names that would be markup, end the script, turn the writing round, or hide; and how they are shown.
const HOSTILE: [(&str, &str); 7] = [
    ("<script>document.title='taken'</script>", "<script>document.title='taken'</script>"),
    (
        "</script><img src=x onerror=\"document.title='taken'\">",
        "</script><img src=x onerror=\"document.title='taken'\">",
    ),
    ("\"'`&amp;--><!--", "\"'`&amp;--><!--"),
    ("übergröße_名前_🐍", "übergröße_名前_🐍"),
    ("__proto__", "__proto__"),
    ("a\u{2028}b\u{202e}c\u{0}d", "a<U+2028>b<U+202E>c␀d"),
    ("{{data}}", "{{data}}"),
];

#[test]
fn names_are_text_whatever_they_are() -> Result<()> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    for (name, _) in HOSTILE {
        let thread = tree.thread(name)?;
        let frame = tree.frame(name, name, 1)?;
        tree.add([frame].into_iter(), thread, Lifetime::MOMENT, 1000, 1)?;
    }
    tree.finish(MAX_NODES);
    let command_line = HOSTILE.map(|(name, _)| name).join(" ");
    let graph = FlameGraph {
        heading: HEADING,
        tree: &tree,
        split_threads: false,
        compares: false,
        memory: &[],
        temporal: Temporal::Moment,
        totals: &Totals { command_line, ..totals() },
        losses: &[Loss { what: HOSTILE[1].0.to_owned(), count: None }],
        confidential: Confidential::Guess,
    };
    let mut graph = Opened::html(&graph.to_html(false)?)?;
    graph.page.click("input[value=both] + span")?;
    let table = graph.page.text("#functions")?;
    let threads = graph
        .page
        .evaluate("[...document.querySelectorAll('#thread option')].map((option) => option.text)")?;
    for (_, shown) in HOSTILE {
        let frame = graph.frame(shown)?;
        assert!(table.contains(shown), "{shown:?} in {table:?}");
        assert!(threads.as_array().context("no threads")?.contains(&json!(shown)), "{shown:?} in {threads}");
        graph.page.point_at(frame.middle())?;
        graph
            .page
            .wait_until(&format!("document.querySelector('#tip strong').innerText === {}", json!(shown)))?;
        graph.page.click_at(frame.middle())?;
        assert_eq!(graph.page.text("#crumbs [aria-current]")?, shown);
        graph.page.press("Home")?;
    }
    let title = graph.page.evaluate("document.title")?;
    assert_eq!(title, json!(format!("Peak memory — {}", HOSTILE.map(|(_, shown)| shown).join(" "))));
    // The data and the script, and nothing that a name has made.
    assert_eq!(graph.page.evaluate("document.images.length + document.scripts.length")?, json!(2));
    graph.finish()
}

#[test]
fn fifty_thousand_nodes_are_drawn_and_can_be_zoomed() -> Result<()> {
    let tree = large_tree(50_000)?;
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
    let nodes = graph.page.evaluate("memprof.nodes()")?;
    assert_eq!(nodes, json!(tree.nodes().len()), "every node is in the view");
    let target = graph.row(3)?.first().context("no third row")?.0.clone();
    let frame = graph.frame(&target)?;
    graph.page.click_at(frame.middle())?;
    let zoomed = graph.frame(&target)?;
    assert!((zoomed.width - graph.frame("All")?.width).abs() < 1.0);
    graph.finish()
}

#[test]
fn what_is_folded_keeps_its_sum_and_is_said() -> Result<()> {
    let mut tree = stacks_tree(Orientation::CallersFirst)?;
    tree.finish(8);
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
    assert_eq!(graph.frame("All")?.bytes, 1_000_000);
    let frames = graph.frames()?;
    assert!(frames.iter().any(|frame| frame.name == "⋯ small frames" && frame.bytes > 0), "{frames:?}");
    assert!(graph.page.text("#folded")?.contains("of the smallest frames are folded"));
    graph.finish()
}

#[test]
fn an_empty_report_says_so() -> Result<()> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    tree.finish(MAX_NODES);
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
    assert!(graph.page.text("#nothing")?.starts_with("Nothing to show"));
    graph.finish()
}

#[test]
fn controls_have_names_for_those_who_cannot_see_them() -> Result<()> {
    let mut graph = Opened::flame_graph(&temporal_tree()?, Temporal::Leaks, &[])?;
    graph.page.click("input[value=both] + span")?;
    graph.page.call("Accessibility.enable", json!({}))?;
    let tree = graph.page.call("Accessibility.getFullAXTree", json!({}))?;
    let controls = ["button", "checkbox", "radio", "searchbox", "combobox", "slider", "application", "table"];
    let mut named = 0;
    for node in tree["nodes"].as_array().context("no nodes")? {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        if controls.contains(&role) && node["ignored"] == json!(false) {
            let name = node["name"]["value"].as_str().unwrap_or_default();
            assert!(!name.is_empty(), "no name: {node}");
            named += 1;
        }
    }
    assert!(named > 20, "{named} controls");
    graph.finish()
}

#[test]
fn a_printed_page_holds_every_row() -> Result<()> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    let deep: Vec<String> = (0..120).map(|depth| format!("f{depth}@a.py:1")).collect();
    add(&mut tree, &deep.join(";"), "0x1", Lifetime::MOMENT, 1000, 1)?;
    tree.finish(MAX_NODES);
    let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
    assert!(graph.frames()?.len() < 60, "only the rows in sight are drawn");
    graph.page.evaluate("dispatchEvent(new Event('beforeprint'))")?;
    assert_eq!(graph.page.evaluate("memprof.frames().length")?, json!(121));
    // The table, where it is shown, comes below with all of its rows.
    graph.page.click("input[value=both] + span")?;
    graph.page.evaluate("dispatchEvent(new Event('beforeprint'))")?;
    graph.page.call("Emulation.setEmulatedMedia", json!({"media": "print"}))?;
    let place = |selector: &str| format!("document.querySelector('{selector}').getBoundingClientRect()");
    let below = format!(
        "{}.top >= {}.bottom && {}.height > 0 && {}.bottom <= {}.top",
        place("#functions"),
        place("#canvas"),
        place("#functions tbody tr"),
        place("#functions tbody tr:last-child"),
        place("#functions .pager"),
    );
    graph.page.wait_until(&below)?;
    graph.page.call("Emulation.setEmulatedMedia", json!({"media": ""}))?;
    graph.page.evaluate("dispatchEvent(new Event('afterprint'))")?;
    assert!(graph.frames()?.len() < 60);
    graph.finish()
}

#[test]
fn pages_are_small_before_their_data() -> Result<()> {
    let mut tree = FrameTree::new(Orientation::CallersFirst);
    tree.finish(MAX_NODES);
    let graph = FlameGraph {
        heading: HEADING,
        tree: &tree,
        split_threads: false,
        compares: false,
        memory: &[],
        temporal: Temporal::Moment,
        totals: &totals(),
        losses: &[],
        confidential: Confidential::Guess,
    };
    let table = Table { heading: HEADING, rows: &[], totals: &totals(), losses: &[] };
    for size in [graph.to_html(false)?.len(), table.to_html(false)?.len()] {
        assert!(size < 300_000, "{size} bytes");
    }
    Ok(())
}

#[test]
fn the_table_page_sorts_searches_and_pages() -> Result<()> {
    let names: Vec<String> = (0..250).map(|index| format!("site_{index:03}")).collect();
    let mut rows: Vec<Row> = Vec::new();
    for (index, name) in (0_u32..).zip(&names) {
        rows.push(Row {
            function: name,
            file: "/srv/app/shop/basket.py",
            line: index + 1,
            thread: Some(if index % 2 == 0 { "0x1" } else { "0x2 (worker)" }),
            allocator: if index % 10 == 0 { "mmap" } else { "malloc" },
            bytes: 1000 * (u64::from(index) + 1),
            count: 500 - u64::from(index),
        });
    }
    let [(function, shown), (file, _), .., (thread, _)] = HOSTILE;
    rows.push(Row { function, file, line: 0, thread: Some(thread), allocator: "malloc", bytes: 1, count: 1 });
    let table = Table { heading: HEADING, rows: &rows, totals: &totals(), losses: &[] };
    let mut table = Opened::html(&table.to_html(false)?)?;
    let page = &mut table.page;
    let first = "#rows tbody tr:first-child";
    assert!(page.text(first)?.starts_with("250.0 kB"));
    assert_eq!(page.text(".pager output")?, "1–100 of 251");
    page.click(".pager button:last-child")?;
    assert_eq!(page.text(".pager output")?, "101–200 of 251");
    assert!(page.text(first)?.contains("site_149"));
    page.press("ArrowRight")?;
    assert_eq!(page.text(".pager output")?, "201–251 of 251");
    assert_eq!(page.evaluate("document.querySelector('.pager button:last-child').disabled")?, json!(true));
    assert!(page.text("#rows tbody tr:last-child")?.contains(shown));
    // By count, most first; then by function.
    page.click("#rows th:nth-child(3) button")?;
    assert!(page.text(first)?.contains("site_000"));
    page.click("#rows th:nth-child(6) button")?;
    assert!(page.text(first)?.contains(shown));
    page.click("#search")?;
    page.type_text("mmap")?;
    // Every tenth row from the first: 1 + 11 + … + 241 kB of 31375 kB.
    assert_eq!(page.text(".pager output")?, "1–25 of 25 (251 in all)");
    assert_eq!(page.text("#matched")?, "3.02 MB · 9.6%");
    table.finish()
}
