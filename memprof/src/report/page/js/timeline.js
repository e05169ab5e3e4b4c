// Memory over time above the graph, with two handles for a window in temporal reports.

class Timeline {
  /** `changed(window)` is called while a handle moves, with `final` true at the end. */
  constructor(model, started, changed) {
    this.memory = model.memory;
    this.model = model;
    this.started = started;
    this.changed = changed;
    this.canvas = byId("timeline-canvas");
    this.last = model.lastInterval;
    this.window = null;
    if (this.memory.time.length < 2) return;
    byId("timeline").hidden = false;
    this.from = this.memory.time[0];
    this.until = this.memory.time.at(-1);
    this.highest = 1;
    for (const list of [this.memory.rss, this.memory.heap]) for (const bytes of list) this.highest = Math.max(this.highest, bytes);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    Theme.listeners.push(() => this.draw());
    if (model.temporal) this.addHandles();
    this.canvas.addEventListener("pointermove", (event) => this.tell(event));
    this.canvas.addEventListener("pointerleave", () => this.tell(null));
  }

  get shown() {
    return this.memory.time.length >= 2;
  }

  /** The window as numbers of intervals, from `first` to `last`; `null` is the whole run. */
  set(window) {
    this.window = window;
    if (!this.shown || !this.model.temporal) return;
    const [first, last] = window ?? [0, this.last];
    this.place("handle-from", first, this.edge(first));
    this.place("handle-to", last, this.edge(last + 1));
    byId("shade-before").hidden = byId("shade-after").hidden = window === null;
    byId("shade-before").style.left = "0";
    byId("shade-before").style.width = `${this.x(this.edge(first))}px`;
    byId("shade-after").style.left = `${this.x(this.edge(last + 1))}px`;
    byId("shade-after").style.right = "0";
    byId("window-reset").hidden = window === null;
    this.tell(null);
    this.draw();
  }

  /** Interval `i` lies between snapshots `i - 1` and `i`. */
  edge(index) {
    const { time } = this.memory;
    return index <= 0 ? this.from : time[Math.min(index - 1, time.length - 1)];
  }

  place(id, index, time) {
    const handle = byId(id);
    handle.style.left = `${this.x(time)}px`;
    handle.setAttribute("aria-valuemin", "0");
    handle.setAttribute("aria-valuemax", String(this.last));
    handle.setAttribute("aria-valuenow", String(index));
    handle.setAttribute("aria-valuetext", formatDuration(time - this.started));
  }

  addHandles() {
    for (const [id, side] of [["handle-from", 0], ["handle-to", 1]]) {
      const handle = byId(id);
      handle.hidden = false;
      const move = (index, final) => {
        const window = [...(this.window ?? [0, this.last])];
        window[side] = side === 0 ? Math.min(Math.max(index, 0), window[1]) : Math.max(Math.min(index, this.last), window[0]);
        const whole = window[0] === 0 && window[1] === this.last;
        this.set(whole ? null : window);
        this.changed(this.window, final);
      };
      handle.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        handle.focus();
        handle.setPointerCapture(event.pointerId);
        handle.onpointermove = (moved) => move(this.indexAt(moved.clientX) - side, false);
        handle.onlostpointercapture = () => {
          handle.onpointermove = null;
          this.changed(this.window, true);
        };
      });
      handle.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
        const now = (this.window ?? [0, this.last])[side];
        const step = steps[event.key] ?? { Home: -now, End: this.last - now }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        move(now + step, true);
      });
    }
    byId("window-reset").addEventListener("click", () => {
      this.set(null);
      this.changed(null, true);
    });
  }

  x(time) {
    const span = Math.max(1, this.until - this.from);
    return 14 + ((time - this.from) / span) * (this.canvas.clientWidth - 28);
  }

  /** The number of the edge nearest to a place on the screen. */
  indexAt(clientX) {
    const { time } = this.memory;
    const wanted = clientX - this.canvas.getBoundingClientRect().left;
    let [low, high] = [0, time.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.x(time[middle]) < wanted) low = middle + 1;
      else high = middle;
    }
    const nearer = low > 0 && (low === time.length || wanted - this.x(time[low - 1]) < this.x(time[low]) - wanted);
    return nearer ? low : low + 1;
  }

  /** Says what the pointer is over, or which window is chosen. */
  tell(event) {
    const text = byId("window-text");
    if (event) {
      const index = Math.min(this.memory.time.length - 1, Math.max(0, this.indexAt(event.clientX) - 1));
      const at = formatDuration(this.memory.time[index] - this.started);
      text.textContent = `${at}: resident ${formatBytes(this.memory.rss[index])}, heap ${formatBytes(this.memory.heap[index])}`;
    } else if (this.window !== null) {
      const [first, last] = this.window;
      const peak = this.model.peaks === null ? "" : `, highest ${formatBytes(this.model.peaks[this.model.peakIn(this.window)])}`;
      text.textContent = `${formatDuration(this.edge(first) - this.started)} to ${formatDuration(this.edge(last + 1) - this.started)}${peak}`;
    } else {
      text.textContent = this.model.temporal ? "Drag the handles to choose a window of time" : "";
    }
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (width === 0 || !this.shown) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name);
    const bottom = height - 18;
    const top = 24;
    const y = (bytes) => bottom - (bytes / this.highest) * (bottom - top);
    this.drawAxes(context, width, bottom, y, colour, style);
    this.drawArea(context, this.memory.heap, y, bottom, colour("--heap"), width);
    this.drawLine(context, this.memory.rss, y, colour("--rss"), 1.25);
    this.drawLine(context, this.memory.heap, y, colour("--heap"), 1.5);
    this.drawPeak(context, y, colour("--heap"));
    this.drawSizes(context, width, y, colour);
    if (this.model.temporal && this.placed !== width) {
      this.placed = width;
      this.set(this.window);
    }
  }

  drawAxes(context, width, bottom, y, colour, style) {
    context.font = `11px ${style.getPropertyValue("--sans")}`;
    context.textBaseline = "middle";
    context.fillStyle = colour("--faint");
    context.strokeStyle = colour("--line");
    context.lineWidth = 1;
    for (const bytes of ticks(this.highest, 2)) {
      const at = Math.round(y(bytes)) + 0.5;
      context.beginPath();
      context.moveTo(14, at);
      context.lineTo(width - 14, at);
      context.stroke();
    }
    context.textAlign = "center";
    const span = this.until - this.started;
    for (const time of ticks(span, Math.max(2, Math.floor(width / 140)))) {
      const at = this.x(this.started + time);
      if (at < 24 || at > width - 24) continue;
      context.fillText(short(formatDuration(time)), at, bottom + 9);
    }
  }

  /** The highest value in each column of pixels, so that no peak is lost. */
  *columns(list) {
    let column = -1;
    let highest = 0;
    for (let i = 0; i < list.length; i++) {
      const at = Math.round(this.x(this.memory.time[i]));
      if (at !== column) {
        if (column >= 0) yield [column, highest];
        column = at;
        highest = list[i];
      } else if (list[i] > highest) highest = list[i];
    }
    if (column >= 0) yield [column, highest];
  }

  drawLine(context, list, y, colour, width) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    for (const [x, bytes] of this.columns(list)) context.lineTo(x, y(bytes));
    context.stroke();
  }

  /** What the horizontal lines stand for, above everything else. */
  drawSizes(context, width, y, colour) {
    context.textAlign = "right";
    context.lineWidth = 3;
    context.strokeStyle = colour("--surface");
    context.fillStyle = colour("--muted");
    // Beside the handle, where there is one.
    const right = width - (this.model.temporal ? 26 : 16);
    for (const bytes of ticks(this.highest, 2).slice(1)) {
      const [text, at] = [short(formatBytes(bytes)), y(bytes) - 7];
      context.strokeText(text, right, at);
      context.fillText(text, right, at);
    }
  }

  /** A dot where the heap was largest. */
  drawPeak(context, y, colour) {
    const { heap, time } = this.memory;
    let peak = 0;
    for (let i = 1; i < heap.length; i++) if (heap[i] > heap[peak]) peak = i;
    context.fillStyle = colour;
    context.beginPath();
    context.arc(this.x(time[peak]), y(heap[peak]), 3, 0, 2 * Math.PI);
    context.fill();
  }

  drawArea(context, list, y, bottom, colour) {
    context.fillStyle = colour;
    context.globalAlpha = 0.13;
    context.beginPath();
    context.moveTo(this.x(this.from), bottom);
    for (const [x, bytes] of this.columns(list)) context.lineTo(x, y(bytes));
    context.lineTo(this.x(this.until), bottom);
    context.fill();
    context.globalAlpha = 1;
  }
}

/** Without the zeros behind the point. */
function short(text) {
  return text.replace(/\.0+ /, " ");
}

/** Round steps from 0 up to a limit, about as many as wanted. */
function ticks(limit, wanted) {
  if (!(limit > 0)) return [];
  const rough = limit / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const made = [];
  for (let value = 0; value <= limit; value += step) made.push(value);
  return made;
}
