//! How soon a flame graph page of 50,000 nodes is drawn in headless Chromium, and how soon it answers to a click, a
//! search and a control.

use anyhow::{Context, Result};
use memprof::report::page::flamegraph::Temporal;
use memprof_tests::bench::{machine, median};
use memprof_tests::opened::{Opened, large_tree};

const NODES: usize = 50_000;
/// How often the page is opened.
const OPENINGS: usize = 5;
/// Into how many frames is zoomed each time.
const ZOOMS: usize = 8;

fn main() -> Result<()> {
    println!("{}", machine());
    let tree = large_tree(NODES)?;
    let (mut loaded, mut drawn) = (Vec::new(), Vec::new());
    let (mut first_zooms, mut zooms) = (Vec::new(), Vec::new());
    let (mut searches, mut inversions) = (Vec::new(), Vec::new());
    let mut size = 0;
    for _ in 0..OPENINGS {
        let mut graph = Opened::flame_graph(&tree, Temporal::Moment, &[])?;
        size = std::fs::metadata(&graph.file)?.len();
        loaded.push(number(&mut graph, "memprof.times().loaded")?);
        drawn.push(number(&mut graph, "memprof.times().first")?);
        for depth in 1..=ZOOMS as u64 {
            let frames = graph.frames()?;
            let row = || frames.iter().filter(|frame| frame.depth == depth);
            let target = row().max_by(|a, b| a.width.total_cmp(&b.width)).context("no such row")?;
            let (x, y) = target.middle();
            let click = format!(
                "document.querySelector('#canvas').dispatchEvent(new MouseEvent('click', {{clientX: {x}, clientY: {y}, \
                 bubbles: true}}))"
            );
            let took = time(&mut graph, &click)?;
            if depth == 1 { &mut first_zooms } else { &mut zooms }.push(took);
        }
        graph.page.press("Home")?;
        let search = "const search = document.querySelector('#search'); search.value = 'function_1'; \
                      search.dispatchEvent(new Event('input'))";
        searches.push(time(&mut graph, search)?);
        inversions.push(time(&mut graph, "document.querySelector('#inverted').click()")?);
        graph.finish()?;
    }
    println!("a page of {} nodes, {:.1} MB", tree.nodes().len(), size as f64 / 1e6);
    for (what, times) in [
        ("from the address to the picture", loaded),
        ("of that the script: data read, laid out, drawn", drawn),
        ("the first zoom by a click", first_zooms),
        ("further zooms", zooms),
        ("search", searches),
        ("inverted", inversions),
    ] {
        let most = times.iter().copied().fold(0.0, f64::max);
        println!("{what:<48} {:>7.1} ms  (most {most:.1} of {})", median(&times), times.len());
    }
    Ok(())
}

/// Milliseconds until an action is done and its result drawn.
fn time(graph: &mut Opened, action: &str) -> Result<f64> {
    number(
        graph,
        &format!(
            "new Promise((done) => {{ const began = performance.now(); {action}; \
             requestAnimationFrame(() => setTimeout(() => done(performance.now() - began))); }})"
        ),
    )
}

fn number(graph: &mut Opened, expression: &str) -> Result<f64> {
    graph.page.evaluate(expression)?.as_f64().with_context(|| format!("{expression} is no number"))
}
