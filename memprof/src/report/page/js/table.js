// The table page: allocation sites to sort, search and page through.

const data = JSON.parse(byId("data").textContent);
const state = new State({ search: "", sort: "-bytes", page: "1", theme: "" });
let settings = state.read();

const text = (number) => data.strings[number];
const rows = data.rows.bytes.map((bytes, i) => ({
  bytes,
  share: bytes,
  count: data.rows.count[i],
  thread: data.rows.thread.length > 0 ? text(data.rows.thread[i]) : "",
  allocator: text(data.rows.allocator[i]),
  name: text(data.rows.function[i]),
  place: text(data.rows.file[i]) + (data.rows.line[i] > 0 ? `:${data.rows.line[i]}` : ""),
}));
const whole = rows.reduce((sum, row) => sum + row.bytes, 0);

const columns = [
  { key: "bytes", label: "Size", kind: "number", show: (row) => formatBytes(row.bytes) },
  { key: "share", label: "Share", kind: "number", className: "number share", show: (row) => formatShare(row.bytes, whole) },
  { key: "count", label: "Allocations", kind: "number", show: (row) => formatCount(row.count) },
  { key: "allocator", label: "Allocator", kind: "word", show: (row) => row.allocator },
  { key: "thread", label: "Thread", kind: "word", show: (row) => row.thread },
  {
    key: "name",
    label: "Function",
    kind: "name",
    show: (row) => [element("b", { textContent: row.name }), element("div", { className: "place", textContent: shortPath(row.place), title: row.place })],
  },
].filter((column) => column.key !== "thread" || data.rows.thread.length > 0);

const sheet = new Sheet(byId("rows"), "Allocation sites", columns, { key: "bytes", descending: true }, () => {
  settings.sort = `${sheet.sorted.descending ? "-" : ""}${sheet.sorted.key}`;
  settings.page = String(sheet.page + 1);
  state.write(settings, false);
});

function show() {
  const [key, descending] = settings.sort.startsWith("-") ? [settings.sort.slice(1), true] : [settings.sort, false];
  if (sheet.heads.has(key)) sheet.sorted = { key, descending };
  if (byId("search").value !== settings.search) byId("search").value = settings.search;
  const accepts = matcher(settings.search);
  byId("search").classList.toggle("wrong", accepts === null);
  const every = settings.search === "" || accepts === null;
  const wanted = every ? () => true : (row) => [row.name, row.place, row.allocator, row.thread].some((part) => accepts(part));
  sheet.set(rows, wanted);
  sheet.turn(Math.max(0, Number.parseInt(settings.page, 10) - 1 || 0));
  if (accepts === null) byId("matched").textContent = "not a regular expression";
  else if (every) byId("matched").textContent = "";
  else {
    const sum = sheet.found.reduce((total, row) => total + row.bytes, 0);
    byId("matched").textContent = sheet.found.length === 0 ? "no match" : `${formatBytes(sum)} · ${formatShare(sum, whole)}`;
  }
}

function searchFor(text) {
  settings = { ...settings, search: text, page: "1" };
  state.write(settings, false);
  show();
}

function toggleTheme() {
  Theme.toggle();
  settings.theme = Theme.current();
  state.write(settings, false);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target === byId("search");
  const keys = typing
    ? { Escape: () => searchFor("") }
    : {
        Escape: () => searchFor(""),
        "/": () => byId("search").focus(),
        "?": () => byId("help").showModal(),
        ArrowLeft: () => sheet.turn(-1),
        ArrowRight: () => sheet.turn(1),
        d: toggleTheme,
      };
  const action = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

Theme.start(settings.theme);
fillShell(data);
byId("help-report").textContent = data.about;
byId("search").addEventListener("input", (event) => searchFor(event.target.value));
byId("theme").addEventListener("click", toggleTheme);
addEventListener("keydown", onKey);
addEventListener("popstate", () => {
  settings = state.read();
  show();
});
show();
