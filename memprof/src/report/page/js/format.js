// Numbers and names as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const GROUPED = new Intl.NumberFormat("en-US");

/** Bytes in units of 1000, three or four digits. */
function formatBytes(bytes) {
  let unit = 0;
  let value = bytes;
  while (Math.abs(value) >= 999.95 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(Math.abs(value) < 10 ? 2 : 1)} ${UNITS[unit]}`;
}

/** The same with its sign. */
function formatChange(bytes) {
  return bytes < 0 ? `−${formatBytes(-bytes)}` : bytes > 0 ? `+${formatBytes(bytes)}` : "0 B";
}

/** A count with its thousands grouped. */
function formatCount(count) {
  return GROUPED.format(count);
}

/** A part of a whole in percent. */
function formatShare(part, whole) {
  if (!(whole > 0) || part === 0) return "0%";
  const percent = (100 * part) / whole;
  if (percent < 0.01) return "<0.01%";
  return `${percent.toFixed(percent < 1 ? 2 : 1)}%`;
}

/** How much more or less the second of two values is, in percent. */
function formatGrowth(before, after) {
  if (before === after) return "";
  if (before === 0) return "new";
  return `${after < before ? "−" : "+"}${formatShare(Math.abs(after - before), before)}`;
}

/** A span of time given in milliseconds. */
function formatDuration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)} h` : `${minutes}:${pad(whole % 60)} min`;
}

/** A moment, in the reader's time zone. */
function formatMoment(milliseconds) {
  return new Date(milliseconds).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** The last part of a path. */
function baseName(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The end of a long path, as far as it tells files apart: so many of its parts. */
function shortPath(path, count = 3) {
  const parts = path.split("/");
  return parts.length > count + 1 ? `…/${parts.slice(-count).join("/")}` : path;
}

/** An element with text and children. Names are only ever set as text. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

function byId(id) {
  return document.getElementById(id);
}
