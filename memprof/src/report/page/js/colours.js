// Colours of frames, by module or by size, for light and dark.

class Palette {
  constructor(model) {
    this.model = model;
    this.modules = new Map();
    this.cache = new Map();
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
      colour = moduleColour(this.moduleOf(frame), shift, dark);
      this.cache.set(key, colour);
    }
    return colour;
  }
}

/** Hues leave out the pink of search matches. */
function moduleColour(module, shift, dark) {
  const number = hash(module);
  const hue = 20 + (number % 20) * 15;
  const chroma = 0.055 + ((number >>> 8) % 3) * 0.014;
  const lightness = (dark ? 0.43 : 0.865) + (((number >>> 16) % 3) - 1) * 0.02 + shift;
  return `oklch(${lightness} ${chroma} ${hue})`;
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

/** FNV-1a: the same module has the same colour in every report. */
function hash(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}
