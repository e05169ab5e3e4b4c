// What every page has: header, totals, losses, help, light and dark.

const Theme = {
  /** The theme of the system, unless the address asks for another. */
  start(wanted) {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    this.chosen = wanted === "dark" || wanted === "light" ? wanted : null;
    dark.addEventListener("change", () => this.apply());
    this.apply();
  },
  current() {
    return this.chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  },
  apply() {
    document.documentElement.dataset.theme = this.current();
    for (const listener of this.listeners) listener();
  },
  toggle() {
    this.chosen = this.current() === "dark" ? "light" : "dark";
    this.apply();
  },
  chosen: null,
  listeners: [],
};

/** Fills header, totals and losses from the data of the page. */
function fillShell(data) {
  const { totals } = data;
  byId("heading").textContent = data.heading;
  byId("command").textContent = totals.commandLine;
  byId("command").title = totals.commandLine;
  for (const [label, value] of data.figures) {
    byId("figures").append(element("li", {}, `${label} `, element("b", { textContent: value })));
  }
  for (const [label, value] of totalsRows(totals)) {
    byId("totals-list").append(element("dt", { textContent: label }), element("dd", { textContent: value }));
  }
  fillLosses(data.losses);
  byId("caution").textContent = data.caution ?? "";
  byId("caution").hidden = data.caution === null;
  byId("open-totals").addEventListener("click", () => byId("totals").showModal());
  byId("open-help").addEventListener("click", () => byId("help").showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
}

function totalsRows(totals) {
  const rows = [
    ["Command line", totals.commandLine],
    ["Process", String(totals.pid)],
    ["Started", formatMoment(totals.started)],
    ["Ended", formatMoment(totals.ended)],
    ["Duration", formatDuration(totals.ended - totals.started)],
    ["Peak memory", `${formatBytes(totals.peak)} (${formatCount(totals.peak)} bytes)`],
  ];
  for (const [label, value] of totals.more) rows.push([label, typeof value === "number" ? formatCount(value) : value]);
  return rows;
}

function fillLosses(losses) {
  if (losses.length === 0) return;
  const list = element("ul");
  for (const loss of losses) list.append(element("li", { textContent: loss.count === null ? loss.what : `${loss.what}: ${formatCount(loss.count)}` }));
  byId("losses").append(element("b", { textContent: "This capture is not complete. " }), list);
  byId("losses").hidden = false;
}
