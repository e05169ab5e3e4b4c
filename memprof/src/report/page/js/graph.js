// The graph: draws the rows that are on the screen, finds the frame below the pointer.

/** The height of a row in pixels. */
const ROW = 21;
/** Narrower frames, in pixels, are drawn together. */
const SMALLEST = 1.5;

class Graph {
  constructor(model, palette) {
    this.model = model;
    this.palette = palette;
    this.stage = byId("stage");
    this.tall = byId("tall");
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d");
    this.widths = new Map();
    this.rows = [];
    this.zoomed = 0;
    this.marked = -1;
    this.hovered = -1;
    this.matches = null;
    this.drawTime = 0;
    this.drawnScroll = 0;
    this.stage.addEventListener("scroll", () => {
      // Whoever brings a frame into sight draws by itself.
      if (this.stage.scrollTop !== this.drawnScroll) this.request();
    });
    new ResizeObserver(() => this.request()).observe(this.stage);
  }

  /** Shows a view; `settings` are `{flame, colour, measure}`. */
  show(view, zoomed, settings) {
    this.view = view;
    this.zoomed = zoomed;
    this.settings = settings;
    this.marked = -1;
    this.hovered = -1;
    this.layOut();
    this.draw();
  }

  zoom(node) {
    this.zoomed = node;
    this.layOut();
    this.bringIntoSight(node);
    this.draw();
  }

  /** Marks the nodes that a search has found; `null` for no search. */
  highlight(matches) {
    if (matches === null && this.matches === null) return;
    this.matches = matches;
    this.request();
  }

  mark(node) {
    this.marked = node;
    this.bringIntoSight(node);
    this.draw();
  }

  hover(node) {
    if (node === this.hovered) return;
    this.hovered = node;
    this.request();
  }

  request() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => this.draw());
  }

  /** The height of what is zoomed to, and where the scroll position begins. */
  layOut() {
    const { view } = this;
    let deepest = view.depth[this.zoomed];
    const stack = [this.zoomed];
    const least = (view.value[this.zoomed] * SMALLEST) / Math.max(1, this.stage.clientWidth);
    while (stack.length > 0) {
      const node = stack.pop();
      if (view.depth[node] > deepest) deepest = view.depth[node];
      for (const child of view.childrenOf(node)) {
        if (view.value[child] < least) break;
        stack.push(child);
      }
    }
    this.rowCount = deepest + 1;
    this.tall.style.height = `${this.rowCount * ROW}px`;
    if (this.settings.flame && !this.laidOut) this.stage.scrollTop = this.tall.offsetHeight;
    this.laidOut = true;
  }

  /** The top of a row within the tall area. */
  rowTop(depth) {
    if (!this.settings.flame) return depth * ROW;
    return Math.max(this.stage.clientHeight, this.rowCount * ROW) - (depth + 1) * ROW;
  }

  bringIntoSight(node) {
    const top = this.rowTop(this.view.depth[node]);
    const { scrollTop, clientHeight } = this.stage;
    if (top < scrollTop) this.stage.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.stage.scrollTop = top + ROW - clientHeight;
  }

  draw() {
    this.pending = false;
    if (!this.view) return;
    const began = performance.now();
    const { stage, canvas, context, view } = this;
    const [width, height] = [stage.clientWidth, this.printing ? this.rowCount * ROW : stage.clientHeight];
    if (width === 0 || height === 0) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    this.look = {
      dark: Theme.current() === "dark" && !this.printing,
      text: style.getPropertyValue("--text"),
      muted: style.getPropertyValue("--muted"),
      match: style.getPropertyValue("--match"),
      accent: style.getPropertyValue("--accent"),
      font: `12px ${style.getPropertyValue("--sans")}`,
    };
    context.font = this.look.font;
    context.textBaseline = "middle";
    this.rows = [];
    const scroll = this.printing ? 0 : stage.scrollTop;
    this.drawnScroll = stage.scrollTop;
    const whole = view.value[0];
    const path = view.pathTo(this.zoomed);
    if (whole > 0) {
      for (const node of path) this.box(node, 0, width, scroll, height, node !== this.zoomed);
      const scale = width / view.value[this.zoomed];
      const left = view.start[this.zoomed];
      const stack = [this.zoomed];
      while (stack.length > 0) {
        const node = stack.pop();
        let rest = 0;
        let restAt = -1;
        for (const child of view.childrenOf(node)) {
          const boxWidth = view.value[child] * scale;
          if (boxWidth >= SMALLEST) {
            this.box(child, (view.start[child] - left) * scale, boxWidth, scroll, height, false);
            stack.push(child);
          } else {
            // Children come largest first: the rest is too small to be seen one by one.
            restAt = (view.start[child] - left) * scale;
            rest = (view.start[node] + view.value[node] - view.ownValue[node] - left) * scale - restAt;
            break;
          }
        }
        if (rest >= SMALLEST) this.sliver(view.depth[node] + 1, restAt, rest, scroll, height);
      }
    }
    byId("nothing").hidden = whole > 0;
    this.drawTime = performance.now() - began;
  }

  box(node, x, width, scroll, height, above) {
    const { view, context, look } = this;
    const depth = view.depth[node];
    const y = this.rowTop(depth) - scroll;
    if (y + ROW < 0 || y > height) return;
    (this.rows[depth] ??= []).push({ node, x, width });
    const frame = view.frame[node];
    const matched = this.matches !== null && this.matches[node] === 1;
    const dimmed = above || (this.matches !== null && !matched);
    context.globalAlpha = dimmed ? (look.dark ? 0.45 : 0.5) : 1;
    context.fillStyle = matched
      ? look.dark ? "oklch(0.52 0.16 345)" : "oklch(0.82 0.13 345)"
      : this.fill(node, frame);
    const gap = width > 3 ? 1 : 0;
    // On whole pixels: edges need no smoothing, which is most of the time that many narrow frames take.
    const left = Math.round(x);
    context.fillRect(left, y, Math.max(1, Math.round(x + width) - left - gap), ROW - 1);
    if (width > 26) this.label(frame, x + 5, y + ROW / 2, width - gap - 9, dimmed);
    context.globalAlpha = 1;
    if (node === this.hovered || node === this.marked) {
      context.strokeStyle = node === this.marked ? look.accent : look.text;
      context.lineWidth = node === this.marked ? 2 : 1;
      const inset = context.lineWidth / 2;
      context.strokeRect(x + inset, y + inset, Math.max(1, width - gap - 2 * inset), ROW - 1 - 2 * inset);
    }
  }

  fill(node, frame) {
    const { view, look, settings } = this;
    if (settings.colour === "change") return changeColour(view.change(node, settings.measure), look.dark);
    return this.palette.fill(frame, view.value[node] / view.value[0], settings.colour, look.dark);
  }

  sliver(depth, x, width, scroll, height) {
    const y = this.rowTop(depth) - scroll;
    if (y + ROW < 0 || y > height) return;
    this.context.globalAlpha = 0.35;
    this.context.fillStyle = this.look.muted;
    this.context.fillRect(x, y, width, ROW - 1);
    this.context.globalAlpha = 1;
  }

  label(frame, x, y, room, dimmed) {
    const { context, look } = this;
    const name = this.model.name(frame);
    const width = this.widthOf(name);
    context.globalAlpha = dimmed ? 0.75 : 1;
    context.fillStyle = look.text;
    if (width > room) {
      const shortened = this.shorten(name, width, room);
      if (shortened !== "") context.fillText(shortened, x, y);
      return;
    }
    context.fillText(name, x, y);
    const place = this.model.place(frame);
    if (place === "") return;
    const short = baseName(place);
    const placeWidth = this.widthOf(short);
    if (width + 10 + placeWidth > room) return;
    context.globalAlpha = dimmed ? 0.45 : 0.62;
    context.fillText(short, x + width + 10, y);
  }

  /** As much of a text as there is room for, with an ellipsis. */
  shorten(text, width, room) {
    let length = Math.floor((text.length * (room - this.widthOf("…"))) / width);
    while (length > 1) {
      const shortened = `${text.slice(0, length)}…`;
      if (this.context.measureText(shortened).width <= room) return shortened;
      length -= 1;
    }
    return "";
  }

  widthOf(text) {
    let width = this.widths.get(text);
    if (width === undefined) {
      width = this.context.measureText(text).width;
      this.widths.set(text, width);
    }
    return width;
  }

  /** The node at a point of the window, or -1. */
  nodeAt(clientX, clientY) {
    const area = this.canvas.getBoundingClientRect();
    const x = clientX - area.left;
    const y = clientY - area.top + this.stage.scrollTop;
    const depth = this.settings.flame
      ? Math.floor((Math.max(this.stage.clientHeight, this.rowCount * ROW) - y) / ROW)
      : Math.floor(y / ROW);
    const row = this.rows[depth] ?? [];
    return row.find((box) => x >= box.x && x < box.x + box.width)?.node ?? -1;
  }

  /** Where a node is drawn in the window, or `null`. */
  areaOf(node) {
    const box = (this.rows[this.view.depth[node]] ?? []).find((candidate) => candidate.node === node);
    if (!box) return null;
    const area = this.canvas.getBoundingClientRect();
    const top = area.top + this.rowTop(this.view.depth[node]) - this.stage.scrollTop;
    return { left: area.left + box.x, top, width: box.width, height: ROW };
  }

  /** The drawn neighbour of a node: 1 to the right, -1 to the left. */
  neighbour(node, step) {
    const row = [...(this.rows[this.view.depth[node]] ?? [])].sort((a, b) => a.x - b.x);
    return row[row.findIndex((box) => box.node === node) + step]?.node ?? node;
  }
}
