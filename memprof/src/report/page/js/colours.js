// Colours of frames, by module or by size, for light and dark.

/** As many hues as the eye tells apart, without the pink of search matches. A step of 5 comes by all of them. */
const HUES = 12;

class Palette {
  constructor(model) {
    this.model = model;
    this.modules = new Map();
    this.cache = new Map();
    this.hues = this.chooseHues();
  }

  /**
   * The hue of each module. The same module has the same in every report, unless a larger one of this report has it:
   * no two of the largest look alike.
   */
  chooseHues() {
    const { model } = this;
    const held = new Float64Array(model.parents.length);
    for (let i = 0; i < model.ends.length; i++) held[model.ends[i]] += model.bytes[i];
    const areas = new Map();
    for (let node = held.length - 1; node > 0; node--) {
      held[model.parents[node]] += held[node];
      const module = this.moduleOf(model.frames[node]);
      if (module !== "") areas.set(module, (areas.get(module) ?? 0) + held[node]);
    }
    const hues = new Map();
    const taken = new Set();
    for (const [module] of [...areas].sort((a, b) => b[1] - a[1])) {
      let hue = hash(module) % HUES;
      if (taken.size < HUES) while (taken.has(hue)) hue = (hue + 5) % HUES;
      taken.add(hue);
      hues.set(module, hue);
    }
    return hues;
  }

  /** The colour of a module, a little lighter by `shift`. */
  ofModule(module, shift, dark) {
    const number = hash(module);
    const hue = 20 + this.hues.get(module) * (280 / HUES);
    const chroma = 0.06 + ((number >>> 8) % 3) * 0.012;
    const lightness = (dark ? 0.43 : 0.865) + (((number >>> 16) % 3) - 1) * 0.015 + shift;
    return `oklch(${lightness} ${chroma} ${hue})`;
  }

  /** What the colour of a frame stands for: the top package, the library, or the file. */
  moduleOf(frame) {
    if (frame < 0) return "";
    const file = this.model.files[frame];
    let module = this.modules.get(file);
    if (module === undefined) {
      module = moduleOfFile(this.model.strings[file]);
      this.modules.set(file, module);
    }
    return module;
  }

  /** Fill for a frame; `share` is its part of the whole, for colours by size. */
  fill(frame, share, mode, dark) {
    if (frame < 0) return dark ? "#2b3138" : "#e3e7eb";
    if (mode === "size") return sizeColour(share, dark);
    const key = dark ? -1 - frame : frame;
    let colour = this.cache.get(key);
    if (colour === undefined) {
      // Neighbours of one module differ a little, by their function.
      const shift = ((hash(this.model.name(frame)) % 5) - 2) * 0.012;
      colour = this.ofModule(this.moduleOf(frame), shift, dark);
      this.cache.set(key, colour);
    }
    return colour;
  }
}

/** From grey to strong, by the logarithm of the share: a hundredth is as far from a tenth as that from the whole. */
function sizeColour(share, dark) {
  const strength = share > 0 ? Math.max(0, 1 + Math.log10(share) / 4) : 0;
  return dark
    ? `oklch(${0.34 + 0.24 * strength} ${0.01 + 0.13 * strength} ${75 - 40 * strength})`
    : `oklch(${0.94 - 0.2 * strength} ${0.01 + 0.14 * strength} ${90 - 45 * strength})`;
}

/** Blue for less, grey for the same, red for more; `change` from -1 to 1. */
function changeColour(change, dark) {
  // A tenth is seen, and the whole is not glaring.
  const strength = Math.abs(change) ** 0.6;
  const hue = change < 0 ? 255 : 25;
  return dark
    ? `oklch(${0.36 + 0.12 * strength} ${0.15 * strength} ${hue})`
    : `oklch(${0.92 - 0.17 * strength} ${0.13 * strength} ${hue})`;
}

function moduleOfFile(file) {
  const frozen = /^<frozen ([^>.]+)/.exec(file);
  if (frozen) return frozen[1];
  const installed = /(?:site|dist)-packages\/([^/]+)/.exec(file) ?? /\/python\d[\d.]*t?\/(?:lib-dynload\/)?([^/]+)/.exec(file);
  if (installed) return withoutSuffix(installed[1]);
  if (file === "" || file === "<unknown>") return "unknown";
  return withoutSuffix(baseName(file));
}

function withoutSuffix(name) {
  return name.replace(/(?:\.cpython-[^.]*)?\.(?:pyx?|so[.\d]*|[ch]|cc|cpp|cxx|hpp|rs)$/, "") || name;
}

/** FNV-1a. */
function hash(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}
