// The flame graph page: connects the data, the views of it, and the controls.

const scriptBegan = performance.now();
const data = JSON.parse(byId("data").textContent);
const model = new Model(data);
const palette = new Palette(model);
const graph = new Graph(model, palette);
const defaults = {
  zoom: "",
  search: "",
  show: "graph",
  direction: "icicle",
  inverted: model.inverted,
  measure: "bytes",
  side: "after",
  colour: model.compares ? "change" : "module",
  thread: data.splitThreads ? "each" : "",
  "hide-imports": false,
  "hide-interpreter": true,
  window: "",
  sort: model.compares ? "-change" : "-ownBytes",
  theme: "",
};
const state = new State(defaults);
let settings = state.read();
let view = null;
let sheetStale = true;
let searchStale = true;

const timeline = new Timeline(model, data.totals.started, (window, final) => {
  change({ window: window === null ? "" : window.join("-") }, final);
});

const functionColumn = { key: "name", label: "Function", kind: "name", show: functionCell };
const usualColumns = [
  { key: "ownBytes", label: "Own", kind: "number", show: (row) => formatBytes(row.ownBytes) },
  { key: "bytes", label: "Total", kind: "number", show: (row) => formatBytes(row.bytes) },
  { key: "share", label: "Share", kind: "number", className: "number share", show: (row) => formatShare(row.share, view.bytes[0]) },
  { key: "count", label: "Allocations", kind: "number", show: (row) => formatCount(row.count) },
  functionColumn,
];
const changeColumns = [
  { key: "change", label: "Change", kind: "number", show: (row) => formatChange(row.change) },
  { key: "before", label: "Before", kind: "number", show: (row) => formatBytes(row.before) },
  { key: "bytes", label: "After", kind: "number", show: (row) => formatBytes(row.bytes) },
  { key: "ownChange", label: "Own change", kind: "number", show: (row) => formatChange(row.ownChange) },
  functionColumn,
];
const sheet = new Sheet(
  byId("functions"),
  "Functions",
  model.compares ? changeColumns : usualColumns,
  { key: defaults.sort.slice(1), descending: true },
  () => change({ sort: `${sheet.sorted.descending ? "-" : ""}${sheet.sorted.key}` }, false),
);

/** Takes new settings over: keeps the controls, the graph, the table and the address together. */
function change(changes, step) {
  settings = { ...settings, ...changes };
  state.write(settings, step);
  show();
}

/** Which settings make a new view. */
const VIEW_SETTINGS = ["inverted", "measure", "side", "thread", "hide-imports", "hide-interpreter", "window"];
const SHOWN_SETTINGS = [...VIEW_SETTINGS, "direction", "colour", "theme"];
let shownAs = {};

function show() {
  const differs = (keys) => keys.some((key) => shownAs[key] !== settings[key]);
  fillControls();
  if (differs(VIEW_SETTINGS)) {
    view = buildView(model, viewOptions());
    sheetStale = true;
    searchStale = true;
  }
  const zoomed = view.follow(zoomFrames());
  if (differs(SHOWN_SETTINGS)) {
    // A flame graph hangs at the bottom of its stage, an icicle at the top.
    if (differs(["direction"])) graph.laidOut = false;
    graph.show(view, zoomed, { ...settings, flame: settings.direction === "flame" });
    fillPalette();
  } else if (graph.zoomed !== zoomed) graph.zoom(zoomed);
  if (searchStale || differs(["search"])) search();
  byId("main").dataset.show = settings.show;
  if (sheetStale && settings.show !== "graph") fillSheet();
  fillCrumbs(zoomed);
  hideTip();
  shownAs = { ...settings };
}

function viewOptions() {
  const thread = settings.thread === "" || settings.thread === "each" ? null : Number(settings.thread);
  return {
    inverted: settings.inverted,
    measure: settings.measure,
    side: model.compares && settings.side !== "before" ? 1 : 0,
    thread: thread !== null && thread < model.threads.length ? thread : null,
    byThread: settings.thread === "each",
    hideImports: settings["hide-imports"],
    hideInterpreter: settings["hide-interpreter"],
    window: parseWindow(settings.window, timeline.last),
  };
}

function zoomFrames() {
  return settings.zoom === "" ? [] : settings.zoom.split(".").map(Number);
}

function zoomTo(node) {
  const frames = view.pathTo(node).slice(1).map((at) => view.frame[at]);
  change({ zoom: frames.join(".") }, true);
}

// ---- controls

function fillControls() {
  for (const name of ["show", "direction"]) {
    for (const button of document.getElementsByName(name)) button.checked = button.value === settings[name];
  }
  for (const id of ["inverted", "hide-imports", "hide-interpreter"]) byId(id).checked = settings[id];
  for (const id of ["measure", "side", "colour", "thread"]) byId(id).value = settings[id];
  if (byId("search").value !== settings.search) byId("search").value = settings.search;
  const [key, descending] = settings.sort.startsWith("-") ? [settings.sort.slice(1), true] : [settings.sort, false];
  if (sheet.heads.has(key)) sheet.sorted = { key, descending };
  const window = parseWindow(settings.window, timeline.last);
  if (String(window) !== String(timeline.window)) timeline.set(window);
}

function fillChoices() {
  if (model.compares) {
    byId("side").hidden = false;
    byId("colour").prepend(element("option", { value: "change", textContent: "Colour: change" }));
    return;
  }
  if (model.threads.length < 2) return;
  const sums = new Float64Array(model.threads.length);
  for (let i = 0; i < model.ends.length; i++) sums[model.endThreads[i]] += model.bytes[i];
  const order = [...sums.keys()].sort((a, b) => sums[b] - sums[a]);
  const select = byId("thread");
  select.append(element("option", { value: "", textContent: "Threads: merged" }));
  select.append(element("option", { value: "each", textContent: "Threads: side by side" }));
  for (const thread of order) select.append(element("option", { value: String(thread), textContent: model.threadName(thread) }));
  select.hidden = false;
}

function connectControls() {
  for (const name of ["show", "direction"]) {
    for (const button of document.getElementsByName(name)) {
      button.addEventListener("change", () => change({ [name]: button.value }, false));
    }
  }
  for (const id of ["inverted", "hide-imports", "hide-interpreter"]) {
    byId(id).addEventListener("change", (event) => change({ [id]: event.target.checked, zoom: "" }, true));
  }
  for (const id of ["measure", "side", "colour"]) byId(id).addEventListener("change", (event) => change({ [id]: event.target.value }, false));
  byId("thread").addEventListener("change", (event) => change({ thread: event.target.value, zoom: "" }, true));
  byId("search").addEventListener("input", (event) => change({ search: event.target.value }, false));
  byId("theme").addEventListener("click", toggleTheme);
}

function toggleTheme() {
  Theme.toggle();
  change({ theme: Theme.current() }, false);
}

// ---- search, table, crumbs, colours

function search() {
  const accepts = matcher(settings.search);
  byId("search").classList.toggle("wrong", accepts === null);
  sheetStale = true;
  searchStale = false;
  if (settings.search === "" || accepts === null) {
    byId("matched").textContent = accepts === null ? "not a regular expression" : "";
    graph.highlight(null);
    return;
  }
  const known = new Map();
  const matches = new Uint8Array(view.size);
  const below = new Uint8Array(view.size);
  let [bytes, count, frames] = [0, 0, 0];
  for (let node = 1; node < view.size; node++) {
    const frame = view.frame[node];
    let matched = known.get(frame);
    if (matched === undefined) {
      matched = accepts(model.name(frame)) || accepts(model.place(frame));
      known.set(frame, matched);
    }
    below[node] = below[view.parent[node]];
    if (!matched) continue;
    matches[node] = 1;
    frames += 1;
    // What a match holds within another match counts once.
    if (below[node] === 0) {
      bytes += view.bytes[node];
      count += view.count[node];
    }
    below[node] = 1;
  }
  const sum = settings.measure === "count" ? `${formatCount(count)} allocations` : formatBytes(bytes);
  const share = settings.measure === "count" ? formatShare(count, view.count[0]) : formatShare(bytes, view.bytes[0]);
  byId("matched").textContent = frames === 0 ? "no match" : `${sum} · ${share}`;
  byId("matched").title = `${formatCount(frames)} frames match`;
  graph.highlight(matches);
}

function fillSheet() {
  sheetStale = false;
  const rows = functionSums(model, view).map(({ name, file, sums }) => {
    const [before, after] = [sums[0], sums.at(-1)];
    const change = after.bytes - before.bytes;
    return { name, file, ...after, share: after.bytes, before: before.bytes, change, ownChange: after.ownBytes - before.ownBytes };
  });
  const accepts = settings.search === "" ? null : matcher(settings.search);
  sheet.set(rows, (row) => accepts === null || accepts(row.name) || accepts(row.file));
}

function functionCell(row) {
  const find = () => change({ search: settings.search === row.name ? "" : row.name }, false);
  const button = element("button", { type: "button", textContent: row.name, title: "Find in the graph", onclick: find });
  return [button, element("div", { className: "place", textContent: shortPath(row.file, 2), title: row.file })];
}

function fillCrumbs(zoomed) {
  const crumbs = byId("crumbs");
  const path = view.pathTo(zoomed);
  const shown = path.length <= 7 ? path : [path[0], -1, ...path.slice(-5)];
  crumbs.replaceChildren();
  for (const node of shown) {
    if (crumbs.childElementCount > 0) crumbs.append(element("span", { className: "next", textContent: "›", "aria-hidden": "true" }));
    if (node < 0) {
      crumbs.append(element("span", { textContent: `${path.length - 6} more` }));
      continue;
    }
    const name = model.name(view.frame[node]);
    const crumb = element("button", { type: "button", textContent: name, title: name, onclick: () => zoomTo(node) });
    if (node === zoomed) crumb.setAttribute("aria-current", "location");
    crumbs.append(crumb);
  }
  const share = zoomed === 0 ? "" : ` · ${formatShare(view.value[zoomed], view.value[0])}`;
  const sum = `${formatBytes(view.bytes[zoomed])} in ${formatCount(view.count[zoomed])} allocations${share}`;
  crumbs.append(element("span", { className: "sum", id: "zoom-sum", textContent: sum }));
}

/** Below the graph: what the colours mean. */
function fillPalette() {
  const place = byId("palette");
  const dark = Theme.current() === "dark";
  if (settings.colour !== "module") {
    const ramp = element("span", { className: "ramp" });
    const [low, stops, high] = settings.colour === "size"
      ? ["0.01%", [0.0001, 0.001, 0.01, 0.1, 1].map((share) => sizeColour(share, dark)), "100% of the whole"]
      : ["gone", [-1, -0.5, -0.1, 0, 0.1, 0.5, 1].map((part) => changeColour(part, dark)), "new"];
    ramp.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    place.replaceChildren(element("span", {}, low, ramp, high));
    return;
  }
  const sums = new Map();
  for (let node = 1; node < view.size; node++) {
    const module = palette.moduleOf(view.frame[node]);
    const own = view.ownValue[node];
    if (module !== "" && own > 0) sums.set(module, (sums.get(module) ?? 0) + own);
  }
  const largest = [...sums].sort((a, b) => b[1] - a[1]).slice(0, 12);
  place.replaceChildren(...largest.map(([module, own]) => {
    const patch = element("i");
    patch.style.background = palette.ofModule(module, 0, dark);
    const title = `${formatShare(own, view.value[0])} allocated in ${module} itself`;
    return element("button", { type: "button", title, onclick: () => change({ search: module }, false) }, patch, module);
  }));
}

// ---- tooltip and what a screen reader is told

function describe(node) {
  const frame = view.frame[node];
  const parts = [element("strong", { textContent: model.name(frame) })];
  const place = model.place(frame);
  if (place !== "") parts.push(element("div", { className: "place", textContent: place }));
  const source = model.source(frame);
  if (source !== "") parts.push(element("div", { className: "source", textContent: source }));
  const list = element("dl");
  const line = (label, value, note) => list.append(
    element("dt", { textContent: label }), element("dd", { textContent: value }), element("dd", { textContent: note }));
  const whole = view.bytes[0];
  if (model.compares) {
    const [before, after] = view.sums;
    const change = after.bytes[node] - before.bytes[node];
    line("Before", formatBytes(before.bytes[node]), `${formatCount(before.count[node])} allocations`);
    line("After", formatBytes(after.bytes[node]), `${formatCount(after.count[node])} allocations`);
    line("Change", formatChange(change), formatGrowth(before.bytes[node], after.bytes[node]));
  } else {
    const own = view.own[0].bytes[node];
    line("Total", formatBytes(view.bytes[node]), `${formatShare(view.bytes[node], whole)} · ${formatCount(view.bytes[node])} bytes`);
    line("Own", formatBytes(own), formatShare(own, whole));
    line("Allocations", formatCount(view.count[node]), formatShare(view.count[node], view.count[0]));
  }
  parts.push(list);
  return parts;
}

function showTip(node, x, y) {
  const tip = byId("tip");
  tip.replaceChildren(...describe(node));
  tip.hidden = false;
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const left = x + 14 + width > innerWidth - 8 ? Math.max(8, x - 14 - width) : x + 14;
  const top = y + 18 + height > innerHeight - 8 ? Math.max(8, y - 12 - height) : y + 18;
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}

function hideTip() {
  byId("tip").hidden = true;
}

function speak(node) {
  const frame = view.frame[node];
  byId("spoken").textContent =
    `${model.name(frame)} ${model.place(frame)}: ${formatBytes(view.bytes[node])}, ${formatShare(view.bytes[node], view.bytes[0])}, ${formatCount(view.count[node])} allocations`;
}

// ---- pointer and keyboard

function connectGraph() {
  graph.stage.addEventListener("pointermove", (event) => {
    const node = event.target === graph.canvas ? graph.nodeAt(event.clientX, event.clientY) : -1;
    graph.hover(node);
    graph.canvas.style.cursor = node < 0 ? "default" : "pointer";
    if (node < 0) hideTip();
    else showTip(node, event.clientX, event.clientY);
  });
  graph.stage.addEventListener("pointerleave", () => {
    graph.hover(-1);
    hideTip();
  });
  graph.stage.addEventListener("scroll", hideTip);
  graph.canvas.addEventListener("click", (event) => {
    const node = graph.nodeAt(event.clientX, event.clientY);
    if (node < 0) return;
    graph.marked = -1;
    zoomTo(node);
  });
}

function moveMark(key) {
  const from = graph.marked < 0 ? graph.zoomed : graph.marked;
  const inwards = settings.direction === "flame" ? "ArrowUp" : "ArrowDown";
  let to = from;
  if (graph.marked < 0) to = from;
  else if (key === "ArrowLeft") to = graph.neighbour(from, -1);
  else if (key === "ArrowRight") to = graph.neighbour(from, 1);
  else if (key === inwards) {
    const child = view.childrenOf(from)[0];
    if (child !== undefined && graph.areaOf(child)) to = child;
  } else to = view.parent[from];
  graph.mark(to);
  speak(to);
  const area = graph.areaOf(to);
  if (area) showTip(to, Math.max(area.left, 8), area.top + area.height - 12);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target === byId("search");
  if (event.key === "Escape") {
    if (settings.search !== "") change({ search: "" }, false);
    else if (graph.zoomed !== 0) zoomTo(view.parent[graph.zoomed]);
    graph.stage.focus();
    return;
  }
  if (typing || event.target instanceof HTMLSelectElement) return;
  const inControl = event.target instanceof HTMLInputElement || event.target instanceof HTMLButtonElement;
  const keys = {
    "/": () => byId("search").focus(),
    "?": () => byId("help").showModal(),
    Home: () => zoomTo(0),
    i: () => change({ inverted: !settings.inverted, zoom: "" }, true),
    f: () => change({ direction: settings.direction === "flame" ? "icicle" : "flame" }, false),
    t: () => change({ show: { graph: "both", both: "table", table: "graph" }[settings.show] }, false),
    d: toggleTheme,
  };
  if (!inControl) {
    for (const arrow of ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]) keys[arrow] = () => moveMark(arrow);
    if (graph.marked >= 0) keys.Enter = () => zoomTo(graph.marked);
  }
  const action = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

// ---- paper

function connectPrinting() {
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    graph.printing = true;
    graph.draw();
    timeline.draw();
  });
  addEventListener("afterprint", () => {
    graph.printing = false;
    Theme.apply();
    graph.draw();
  });
}

function fillNotes() {
  byId("help-report").textContent = data.about;
  if (data.folded > 0) {
    byId("folded").textContent = `${formatCount(data.folded)} of the smallest frames are folded`;
    byId("folded").title = "Frames too small for the page are shown together below their callers, with their sum.";
  }
}

Theme.listeners.push(() => {
  if (view === null) return;
  fillPalette();
  graph.request();
});
Theme.start(settings.theme);
fillShell(data);
fillChoices();
fillNotes();
connectControls();
connectGraph();
connectPrinting();
addEventListener("keydown", onKey);
addEventListener("popstate", () => {
  settings = state.read();
  show();
});
show();
const scriptTook = performance.now() - scriptBegan;

/** What is drawn, for scripts and tests: a canvas holds no elements to ask. */
globalThis.memprof = {
  frames: () => graph.rows.flat().map(({ node }) => ({
    ...graph.areaOf(node),
    name: model.name(view.frame[node]),
    place: model.place(view.frame[node]),
    bytes: view.bytes[node],
    count: view.count[node],
    depth: view.depth[node],
    matched: graph.matches !== null && graph.matches[node] === 1,
  })),
  nodes: () => view.size,
  /** Milliseconds: from the start of loading and of the script to the first picture, and for the latest picture alone. */
  times: () => ({ loaded: scriptBegan + scriptTook, first: scriptTook, latest: graph.drawTime }),
};
