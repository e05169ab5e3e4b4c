// A table to sort, search and page through.

const PAGE_ROWS = 100;

class Sheet {
  /**
   * `columns` are `{key, label, kind, show}`: `kind` is "number" or "name", `show(row)` gives text or elements.
   * `sorted` is `{key, descending}`; `changed()` is called when the reader sorts or turns a page.
   */
  constructor(place, label, columns, sorted, changed) {
    this.columns = columns;
    this.sorted = sorted;
    this.changed = changed;
    this.rows = [];
    this.filter = () => true;
    this.page = 0;
    this.body = element("tbody");
    this.heads = new Map();
    const head = element("tr");
    for (const column of columns) {
      const button = element("button", { type: "button", textContent: column.label, onclick: () => this.sortBy(column) });
      const cell = element("th", { scope: "col", className: column.kind }, button);
      this.heads.set(column.key, cell);
      head.append(cell);
    }
    const table = element("table", { "aria-label": label }, element("thead", {}, head), this.body);
    this.scroller = element("div", { className: "sheet", tabIndex: 0 }, table);
    this.where = element("output");
    this.back = element("button", { type: "button", textContent: "Previous", onclick: () => this.turn(-1) });
    this.on = element("button", { type: "button", textContent: "Next", onclick: () => this.turn(1) });
    place.append(this.scroller, element("div", { className: "pager" }, this.where, this.back, this.on));
  }

  set(rows, filter) {
    this.rows = rows;
    this.filter = filter;
    this.page = 0;
    this.refresh();
  }

  sortBy(column) {
    const again = this.sorted.key === column.key;
    this.sorted = { key: column.key, descending: again ? !this.sorted.descending : column.kind === "number" };
    this.page = 0;
    this.refresh();
    this.changed();
  }

  turn(step) {
    this.page += step;
    this.refresh();
    this.scroller.scrollTop = 0;
    this.changed();
  }

  refresh() {
    const { key, descending } = this.sorted;
    const sign = descending ? -1 : 1;
    this.found = this.rows.filter(this.filter);
    // Equal rows keep the order in which they came.
    this.found.sort((a, b) => (a[key] < b[key] ? -sign : a[key] > b[key] ? sign : 0));
    const pages = Math.max(1, Math.ceil(this.found.length / PAGE_ROWS));
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const first = this.page * PAGE_ROWS;
    const shown = this.found.slice(first, first + PAGE_ROWS);
    this.body.replaceChildren(...shown.map((row) => this.line(row)));
    for (const [name, cell] of this.heads) {
      cell.setAttribute("aria-sort", name === key ? (descending ? "descending" : "ascending") : "none");
    }
    const all = this.found.length === this.rows.length ? "" : ` (${formatCount(this.rows.length)} in all)`;
    this.where.textContent = shown.length === 0
      ? `No rows${all}`
      : `${formatCount(first + 1)}–${formatCount(first + shown.length)} of ${formatCount(this.found.length)}${all}`;
    this.back.disabled = this.page === 0;
    this.on.disabled = this.page === pages - 1;
  }

  line(row) {
    const line = element("tr");
    for (const column of this.columns) {
      const shown = column.show(row);
      const cell = element("td", { className: column.className ?? column.kind });
      cell.append(...(Array.isArray(shown) ? shown : [shown]));
      line.append(cell);
    }
    return line;
  }
}

/** What a search text accepts: a part of a text in any case, or `/expression/`; `null` where that is wrong. */
function matcher(text) {
  if (text === "") return () => false;
  const expression = /^\/(.+)\/$/.exec(text);
  if (!expression) {
    const wanted = text.toLowerCase();
    return (candidate) => candidate.toLowerCase().includes(wanted);
  }
  try {
    const compiled = new RegExp(expression[1], "iu");
    return (candidate) => compiled.test(candidate);
  } catch {
    return null;
  }
}
