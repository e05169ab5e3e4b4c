// The data of the page, as arrays of numbers.

/** What a node shows that has no frame; threads follow below. */
const ROOT = -1;
const TOO_DEEP = -2;
const FOLDED = -3;
const FIRST_THREAD = -4;

/** Kinds of frames, as the data number them. */
const IMPORT_SYSTEM = 1;
const RUNNER = 2;

class Model {
  constructor(data) {
    this.strings = data.strings;
    this.inverted = data.inverted;
    // Whether there are two captures, the one before and the one after.
    this.compares = data.compares;
    this.temporal = data.temporal;
    this.peaks = data.peaks;
    this.functions = Int32Array.from(data.frames.function);
    this.files = Int32Array.from(data.frames.file);
    this.lines = Float64Array.from(data.frames.line);
    this.kinds = Uint8Array.from(data.frames.kind);
    this.sources = Int32Array.from(data.frames.source);
    this.threads = data.threads;
    this.parents = Int32Array.from(data.nodes.up, (distance, node) => node - distance);
    this.frames = Int32Array.from(data.nodes.frame);
    let node = 0;
    this.ends = Int32Array.from(data.allocated.step, (step) => (node += step));
    this.endThreads = Int32Array.from(data.allocated.thread);
    this.bytes = Float64Array.from(data.allocated.bytes);
    this.counts = Float64Array.from(data.allocated.count);
    this.from = data.temporal ? Int32Array.from(data.allocated.from) : null;
    this.to = data.temporal ? Int32Array.from(data.allocated.to, (to) => (to < 0 ? 0x7fffffff : to)) : null;
    this.memory = data.memory;
    // One interval before each snapshot and one after the last.
    this.lastInterval = this.peaks === null ? this.memory.time.length : this.peaks.length - 1;
    this.folded = data.folded;
  }

  name(frame) {
    if (frame >= 0) return this.strings[this.functions[frame]];
    if (frame <= FIRST_THREAD) return `Thread ${this.threadName(FIRST_THREAD - frame)}`;
    return { [ROOT]: "All", [TOO_DEEP]: "⋯ stack too deep", [FOLDED]: "⋯ small frames" }[frame];
  }

  threadName(thread) {
    return this.strings[this.threads[thread]];
  }

  file(frame) {
    return frame >= 0 ? this.strings[this.files[frame]] : "";
  }

  /** `file:line`, or nothing where the file is not known. */
  place(frame) {
    if (frame < 0 || this.file(frame) === "<unknown>") return "";
    const line = this.lines[frame];
    return line > 0 ? `${this.file(frame)}:${line}` : this.file(frame);
  }

  /** The line of source of a frame, where the report holds it. */
  source(frame) {
    return frame >= 0 && this.sources[frame] >= 0 ? this.strings[this.sources[frame]] : "";
  }

  /** Whether something lived in a window, as memray's temporal reports count; `null` is the whole run. */
  livedIn(window) {
    if (!this.temporal) return () => true;
    const [first, last] = window ?? [0, this.lastInterval];
    if (this.peaks === null) {
      // Leaks: born in the window and not gone by its end.
      return (i) => this.from[i] >= first && this.from[i] <= last && this.to[i] > last;
    }
    // High water: alive at the highest point of the window.
    const peak = this.peakIn([first, last]);
    return (i) => this.from[i] <= peak && this.to[i] > peak;
  }

  /** The interval of the window with the most memory, the first among equals. */
  peakIn([first, last]) {
    let peak = first;
    for (let i = first; i <= last; i++) if (this.peaks[i] > this.peaks[peak]) peak = i;
    return peak;
  }
}
