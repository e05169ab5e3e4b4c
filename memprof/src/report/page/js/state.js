// The state of the page in the fragment of its address: what differs from how the page began.

class State {
  constructor(defaults) {
    this.defaults = defaults;
  }

  /** The values in the address, each of its default's type; what makes no sense is passed over. */
  read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const values = { ...this.defaults };
    for (const [key, usual] of Object.entries(this.defaults)) {
      const text = given.get(key);
      if (text === null) continue;
      if (typeof usual === "boolean") values[key] = text === "1";
      else values[key] = text;
    }
    return values;
  }

  /** Writes the values; `step` makes a step that Back undoes. */
  write(values, step) {
    const given = new URLSearchParams();
    for (const [key, usual] of Object.entries(this.defaults)) {
      const value = values[key];
      if (value === usual || value === undefined) continue;
      given.set(key, typeof value === "boolean" ? (value ? "1" : "0") : value);
    }
    const fragment = given.toString();
    if (fragment === location.hash.slice(1)) return;
    try {
      history[step ? "pushState" : "replaceState"](null, "", fragment === "" ? location.pathname + location.search : `#${fragment}`);
    } catch {
      // A page shown inside another (a build server's artifact viewer) may not have a history of its own.
    }
  }
}

/** "3-17" as two numbers, if it is a window within 0 to `last`. */
function parseWindow(text, last) {
  const found = /^(\d+)-(\d+)$/.exec(text);
  if (!found) return null;
  const window = [Number(found[1]), Number(found[2])];
  return window[0] <= window[1] && window[1] <= last ? window : null;
}
