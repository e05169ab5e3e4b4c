// One view of the model: filtered, perhaps inverted, summed up and laid out from left to right.
//
// A view is a tree of its own, again as arrays with parents before children.

class View {
  /** `sides` is 1, or 2 where two captures are compared; `side` is the one that gives the widths. */
  constructor(frames, parents, sides, side) {
    this.frame = frames;
    this.parent = parents;
    const size = frames.length;
    const sums = () => ({ bytes: new Float64Array(size), count: new Float64Array(size) });
    this.sums = Array.from({ length: sides }, sums);
    ({ bytes: this.bytes, count: this.count } = this.sums[side]);
    this.side = side;
    this.depth = new Uint16Array(size);
    this.start = new Float64Array(size);
  }

  get size() {
    return this.frame.length;
  }

  /** Sums from the leaves to the root, then lays children out side by side, the largest first. */
  finish(measure, compareNames) {
    const { parent } = this;
    this.own = this.sums.map(({ bytes, count }) => ({ bytes: bytes.slice(), count: count.slice() }));
    for (const { bytes, count } of this.sums) {
      for (let node = this.size - 1; node > 0; node--) {
        bytes[parent[node]] += bytes[node];
        count[parent[node]] += count[node];
      }
    }
    const childCounts = new Int32Array(this.size + 1);
    for (let node = 1; node < this.size; node++) childCounts[parent[node] + 1] += 1;
    for (let node = 1; node <= this.size; node++) childCounts[node] += childCounts[node - 1];
    this.firstChild = childCounts;
    this.children = new Int32Array(Math.max(0, this.size - 1));
    const next = childCounts.slice();
    for (let node = 1; node < this.size; node++) {
      this.children[next[parent[node]]++] = node;
      this.depth[node] = this.depth[parent[node]] + 1;
    }
    const key = measure === "count" ? "count" : "bytes";
    this.value = this.sums[this.side][key];
    this.ownValue = this.own[this.side][key];
    const { value, start } = this;
    const larger = (a, b) => value[b] - value[a] || compareNames(this.frame[a], this.frame[b]);
    for (let node = 0; node < this.size; node++) {
      const children = this.childrenOf(node);
      if (children.length > 1) children.sort(larger);
      let at = start[node];
      for (const child of children) {
        start[child] = at;
        at += value[child];
      }
    }
    return this;
  }

  /** How a node has changed from the first capture to the second, from -1 (gone) over 0 to 1 (new). */
  change(node, measure) {
    const key = measure === "count" ? "count" : "bytes";
    const [before, after] = this.sums.map((sums) => sums[key][node]);
    return after === before ? 0 : (after - before) / Math.max(before, after);
  }

  childrenOf(node) {
    return this.children.subarray(this.firstChild[node], this.firstChild[node + 1]);
  }

  /** The nodes from the root to this one. */
  pathTo(node) {
    const path = [];
    for (let at = node; at > 0; at = this.parent[at]) path.push(at);
    path.push(0);
    return path.reverse();
  }

  /** The node at which these frames lead, as far as they exist in this view. */
  follow(frames) {
    let node = 0;
    for (const frame of frames) {
      const child = this.childrenOf(node).find((candidate) => this.frame[candidate] === frame);
      if (child === undefined) break;
      node = child;
    }
    return node;
  }
}

/** Makes nodes on the way down, each frame once below a parent. */
class ViewBuilder {
  constructor(model) {
    this.frames = [ROOT];
    this.parents = [0];
    this.known = new Map();
    // Frames from the lowest number, a thread's, to the highest, so that parent and frame make one exact key.
    this.lowest = FIRST_THREAD - model.threads.length;
    this.stride = model.functions.length - this.lowest;
  }

  child(parent, frame) {
    const key = parent * this.stride + (frame - this.lowest);
    let node = this.known.get(key);
    if (node === undefined) {
      node = this.frames.length;
      this.frames.push(frame);
      this.parents.push(parent);
      this.known.set(key, node);
    }
    return node;
  }

  view(sides, side) {
    return new View(Int32Array.from(this.frames), Int32Array.from(this.parents), sides, side);
  }
}

/** The view that the options ask for. */
function buildView(model, options) {
  const lived = model.livedIn(options.window);
  const builder = new ViewBuilder(model);
  const chosen = [];
  for (let i = 0; i < model.ends.length; i++) {
    if ((options.thread === null || options.thread === model.endThreads[i]) && lived(i)) chosen.push(i);
  }
  if (options.byThread) chosen.sort((a, b) => model.endThreads[a] - model.endThreads[b] || a - b);
  const sameOrder = options.inverted === model.inverted;
  const lay = sameOrder && !(options.inverted && options.hideImports) ? layNodes : layPaths;
  const nodes = new Int32Array(chosen.length);
  for (let first = 0; first < chosen.length; ) {
    let end = chosen.length;
    let top = 0;
    if (options.byThread) {
      const thread = model.endThreads[chosen[first]];
      top = builder.child(0, FIRST_THREAD - thread);
      for (end = first; end < chosen.length && model.endThreads[chosen[end]] === thread; ) end++;
    }
    const nodeOf = lay(model, options, builder, top);
    for (; first < end; first++) nodes[first] = nodeOf(model.ends[chosen[first]]);
  }
  const view = builder.view(model.compares ? 2 : 1, options.side);
  for (let i = 0; i < chosen.length; i++) {
    // Where two captures are compared, they stand where the threads of one stand otherwise.
    const { bytes, count } = view.sums[model.compares ? model.endThreads[chosen[i]] : 0];
    bytes[nodes[i]] += model.bytes[chosen[i]];
    count[nodes[i]] += model.counts[chosen[i]];
  }
  return view.finish(options.measure, (a, b) => (model.name(a) < model.name(b) ? -1 : 1));
}

/** Whether a frame is passed over while what it calls is shown. */
function passedOver(model, options, frame) {
  return options.hideInterpreter && frame >= 0 && model.kinds[frame] !== 0;
}

function isImport(model, frame) {
  return frame >= 0 && model.kinds[frame] === IMPORT_SYSTEM;
}

/** Takes the tree's own nodes over, each once; for views in the order in which the data are. */
function layNodes(model, options, builder, top) {
  const taken = new Int32Array(model.parents.length).fill(-1);
  const importing = new Uint8Array(model.parents.length);
  taken[0] = top;
  const waiting = [];
  return (end) => {
    for (let at = end; taken[at] < 0; at = model.parents[at]) waiting.push(at);
    while (waiting.length > 0) {
      const node = waiting.pop();
      const parent = model.parents[node];
      const frame = model.frames[node];
      importing[node] = importing[parent] || (options.hideImports && isImport(model, frame));
      const over = importing[node] || passedOver(model, options, frame);
      taken[node] = over ? taken[parent] : builder.child(taken[parent], frame);
    }
    return taken[end];
  };
}

/** Lays each stack down by itself; for views that turn the data round. */
function layPaths(model, options, builder, top) {
  const path = [];
  return (end) => {
    path.length = 0;
    for (let at = end; at > 0; at = model.parents[at]) path.push(model.frames[at]);
    // From here on callers first: the import system cuts a stack from the caller's side.
    if (!model.inverted) path.reverse();
    if (options.hideImports) {
      const cut = path.findIndex((frame) => isImport(model, frame));
      if (cut >= 0) path.length = cut;
    }
    if (options.inverted) path.reverse();
    let node = top;
    for (const frame of path) if (!passedOver(model, options, frame)) node = builder.child(node, frame);
    return node;
  };
}

/** Each function's own and total sums, a side each; a function that calls itself counts once a stack. */
function functionSums(model, view) {
  const rows = new Map();
  const open = new Map();
  const stack = [0];
  const rowOf = (frame) => {
    const key = frame >= 0 ? `${model.functions[frame]} ${model.files[frame]}` : String(frame);
    let row = rows.get(key);
    if (row === undefined) {
      const sums = view.sums.map(() => ({ ownBytes: 0, bytes: 0, count: 0 }));
      row = { key, name: model.name(frame), file: model.file(frame), sums };
      rows.set(key, row);
    }
    return row;
  };
  while (stack.length > 0) {
    const node = stack.pop();
    if (node < 0) {
      const row = rowOf(view.frame[~node]);
      open.set(row.key, open.get(row.key) - 1);
      continue;
    }
    if (node > 0) {
      const row = rowOf(view.frame[node]);
      const running = open.get(row.key) ?? 0;
      open.set(row.key, running + 1);
      row.sums.forEach((sums, side) => {
        sums.ownBytes += view.own[side].bytes[node];
        if (running > 0) return;
        sums.bytes += view.sums[side].bytes[node];
        sums.count += view.sums[side].count[node];
      });
      stack.push(~node);
    }
    for (const child of view.childrenOf(node)) stack.push(child);
  }
  return [...rows.values()].filter((row) => row.sums.some(({ bytes, count }) => bytes + count > 0));
}
