// Values as a person reads them, and the forms in which answers hold them.

const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A number, or "–" for what is not there, which is not the same as 0. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isFinite(value) ? numbers.format(value) : "–";
  if (typeof value === "object") return "error" in value ? `error: ${value.error}` : JSON.stringify(value);
  return String(value);
}

/** How many of something: "1 learner", "1,200 learners". */
export function counted(number, one, several = `${one}s`) {
  return `${figure(number)} ${number === 1 ? one : several}`;
}

/** What `behind` of an answer means for who reads it; empty where nothing is. `reducers` say by how many events. */
export function behindWords(behind, reducers = []) {
  return Object.entries(behind).map(([reducer, why]) => {
    if (why === "paused") {
      const events = reducers.find(({ id }) => id === reducer)?.behind;
      if (events === 0) return `The reducer ${reducer} is paused, with all events so far in this answer: newer ones won't be until its code runs again.`;
      return `The reducer ${reducer} is paused: newer events ${events ? "aren't in" : "don't come into"} this answer until its code runs again.`;
    }
    if (why === "replaced") return `The reducer ${reducer} was changed: this is the answer of the code before, until the new one has gone through past events.`;
    return `The reducer ${reducer} is not at the newest event (${why}): some aren't in this answer yet.`;
  }).join(" ");
}

/** Seconds as "3 min 20 s". */
export function duration(seconds) {
  if (typeof seconds !== "number") return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

/** How long ago a moment (seconds since 1970) was, by the server's clock. */
export function ago(time, now) {
  if (typeof time !== "number") return "–";
  const passed = now - time;
  return passed < 5 ? "now" : `${duration(passed)} ago`;
}

export const timeOfDay = (seconds) => clock.format(new Date(seconds * 1000));
export const dateAndTime = (seconds) => moment.format(new Date(seconds * 1000));

/** A value in one of the formats that a dashboard may name. */
export function written(value, format, now) {
  if (format === "ago") return ago(value, now);
  if (format === "duration") return duration(value);
  if (format === "percent") return typeof value === "number" ? `${Math.round(value * 100)}%` : "–";
  return figure(value);
}

/** What is at a dotted path of a row. */
export function at(row, path) {
  if (path in row) return row[path];
  let here = row;
  for (const part of path.split(".")) {
    if (here === null || typeof here !== "object") return undefined;
    here = here[part];
  }
  return here;
}

const EARLIEST = 1e8; // as lo_kernel.app.series has them
const MILLISECONDS = 1e11;
const TIMES = ["t", "time", "timestamp", "ts"];

/** [[milliseconds, number, milliseconds until], ...] where a value is a series, else null. */
export function seriesOf(value) {
  let pairs = null;
  let step = 0;
  if (Array.isArray(value)) {
    pairs = value.map((item) => {
      if (Array.isArray(item)) return item.length === 2 ? item : [null, null];
      if (item === null || typeof item !== "object") return [null, null];
      const time = TIMES.find((name) => name in item);
      const other = Object.keys(item).filter((name) => name !== time);
      return time && other.length === 1 ? [item[time], item[other[0]]] : [null, null];
    });
  } else if (value !== null && typeof value === "object") {
    if (Array.isArray(value.values) && typeof value.start === "number" && value.step) {
      step = value.step;
      pairs = value.values.map((number, place) => [value.start + place * value.step, number]);
    } else {
      pairs = Object.entries(value);
    }
  }
  if (!pairs || !pairs.length) return null;
  const found = [];
  for (const [time, number] of pairs) {
    const seconds = Number(time);
    if (!(seconds >= EARLIEST) || typeof number !== "number") return null;
    found.push([seconds > MILLISECONDS ? seconds : seconds * 1000, number]);
  }
  let gap = step * 1000;
  for (let place = 1; !step && place < found.length; place += 1) {
    const between = found[place][0] - found[place - 1][0];
    if (between > 0 && (!gap || between < gap)) gap = between;
  }
  for (const point of found) point.push(point[0] + (gap || 60000));
  return found;
}

/** An element with attributes and children; texts are set as texts, never as HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
