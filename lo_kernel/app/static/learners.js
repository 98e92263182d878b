// The list of learners: filter, sort, keyboard. Only the lines that can be seen are in the page, so a thousand
// learners cost as much as thirty.

import { at, element, figure, seriesOf, written } from "./text.js";

const SPARE = 8; // lines above and below those that can be seen
const SORT_EVERY = 2000; // ms; and not while somebody is at the list with pointer or keyboard
const SVG = "http://www.w3.org/2000/svg";

export class LearnerList {
  constructor({ table, scroller, filter, count, onOpen }) {
    this.table = table;
    this.scroller = scroller;
    this.filter = filter;
    this.count = count;
    this.onOpen = onOpen;
    this.columns = [];
    this.lines = new Map();
    this.order = [];
    this.shown = new Map();
    this.sort = { path: null, down: false };
    this.sorted = 0;
    this.now = Date.now() / 1000;
    this.head = element("thead", {});
    this.body = element("tbody", {});
    this.before = element("tr", { "aria-hidden": "true", class: "spare" });
    this.after = element("tr", { "aria-hidden": "true", class: "spare" });
    this.body.append(this.before, this.after);
    table.append(this.head, this.body);
    filter.addEventListener("input", () => this.arrange());
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroller);
    table.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const line = event.target.closest("tr[data-key]");
      if (line) this.onOpen(this.lines.get(line.dataset.key));
    });
  }

  /** Columns as `{path, title, format, holds}`; the same again changes nothing. */
  setColumns(columns) {
    if (JSON.stringify(columns) === JSON.stringify(this.columns)) return;
    this.columns = columns;
    this.table.style.setProperty("--columns", columns.length);
    const line = element("tr", {});
    for (const { path, title, holds } of [{ path: null, title: "Learner", holds: "text" }, ...columns]) {
      const button = element("button", { type: "button", title, onclick: () => this.sortBy(path, holds) }, title);
      line.append(element("th", { scope: "col", "data-path": path ?? "", class: `is-${holds}` }, button));
    }
    this.head.replaceChildren(line);
    for (const row of this.shown.values()) row.remove();
    this.shown.clear();
    // The list keeps its height meanwhile: nobody would say that it has shrunk and grown again.
    this.after.style.height = `${this.order.length * this.lineHeight()}px`;
    this.arrange();
  }

  sortBy(path, holds) {
    const same = this.sort.path === path;
    this.sort = { path, down: same ? !this.sort.down : path !== null && holds !== "text" && holds !== "word" };
    this.scroller.scrollTop = 0;
    this.arrange();
  }

  /** Take the lines as they are now, and the server's clock; `changed` are their keys, null for all. */
  update(lines, now, changed) {
    const size = this.lines.size;
    this.lines = lines;
    this.now = now;
    const held = this.scroller.matches(":hover, :focus-within");
    if (changed === null || size !== lines.size) this.arrange();
    else if (this.sort.path !== null && !held && performance.now() - this.sorted > SORT_EVERY) this.arrange();
    else this.draw();
  }

  /** Lines that the filter lets through, in the order that was chosen. */
  arrange() {
    const wanted = this.filter.value.trim().toLowerCase();
    const { path, down } = this.sort;
    let lines = [...this.lines.values()];
    const all = lines.length;
    if (wanted) {
      lines = lines.filter(({ label, student }) => `${label} ${student}`.toLowerCase().includes(wanted));
    }
    const keys = new Map(lines.map((line) => [line, path === null ? line.label : sortKey(at(line.value, path))]));
    lines.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      const absent = (a === null) - (b === null);
      if (absent) return absent;
      const order = typeof a === "number" && typeof b === "number" ? a - b : compare(String(a), String(b));
      return (down ? -order : order) || compare(one.label, other.label);
    });
    this.order = lines;
    this.sorted = performance.now();
    for (const cell of this.head.querySelectorAll("th")) {
      const here = (cell.dataset.path || null) === path;
      if (here) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    this.count.textContent = wanted ? `${lines.length} of ${all}` : String(all);
    this.table.setAttribute("aria-rowcount", String(lines.length + 1));
    this.draw();
  }

  draw() {
    const height = this.lineHeight();
    const total = this.order.length;
    const first = Math.max(0, Math.min(total, Math.floor(this.scroller.scrollTop / height)) - SPARE);
    const last = Math.min(total, first + Math.ceil(this.scroller.clientHeight / height) + 2 * SPARE);
    this.before.style.height = `${first * height}px`;
    this.after.style.height = `${(total - last) * height}px`;
    const seen = new Set();
    let here = this.before;
    for (let place = first; place < last; place += 1) {
      const line = this.order[place];
      seen.add(line.key);
      let row = this.shown.get(line.key);
      if (!row) {
        row = this.row(line);
        this.shown.set(line.key, row);
      }
      if (here.nextSibling !== row) here.after(row);
      here = row;
      this.fill(row, line, place);
    }
    for (const [key, row] of this.shown) {
      if (!seen.has(key)) {
        row.remove();
        this.shown.delete(key);
      }
    }
  }

  lineHeight() {
    this.height ??= parseFloat(getComputedStyle(this.table).getPropertyValue("--line-height")) || 36;
    return this.height;
  }

  row(line) {
    const name = element("th", { scope: "row" }, element("button", { type: "button", class: "name" }));
    const cells = this.columns.map(({ holds }) => element("td", { class: `is-${holds}` }));
    const row = element("tr", {}, name, ...cells);
    row.dataset.key = line.key;
    row.texts = [];
    return row;
  }

  fill(row, line, place) {
    if (row.place !== place) {
      row.place = place;
      row.setAttribute("aria-rowindex", String(place + 2));
      row.classList.toggle("odd", place % 2 === 1);
    }
    if (row.texts[-1] !== line.label) {
      row.texts[-1] = line.label;
      const button = row.firstChild.firstChild;
      button.textContent = line.label;
      button.title = line.student ?? "";
    }
    this.columns.forEach(({ path, format, holds }, index) => {
      const value = at(line.value, path);
      const cell = row.children[index + 1];
      if (holds === "series") {
        const drawn = JSON.stringify(value) ?? "";
        if (row.texts[index] !== drawn) {
          row.texts[index] = drawn;
          sparkline(cell, seriesOf(value));
        }
        return;
      }
      const text = written(value, format, this.now);
      if (row.texts[index] === text) return;
      row.texts[index] = text;
      if (holds === "word") {
        cell.replaceChildren(element("span", { class: "word", "data-word": text }, text));
      } else {
        cell.textContent = text;
      }
    });
  }

  key(event) {
    const row = event.target.closest("tr[data-key]");
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (!row || step === undefined) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(this.order.length - 1, row.place + step));
    const [height, top] = [this.lineHeight(), this.scroller.scrollTop];
    const room = this.scroller.clientHeight - this.head.offsetHeight - height;
    if (place * height < top) this.scroller.scrollTop = place * height;
    else if (place * height > top + room) this.scroller.scrollTop = place * height - room;
    this.draw();
    this.shown.get(this.order[place].key)?.querySelector("button").focus({ preventScroll: true });
  }

  /** What the list shows, for a file: header and lines, numbers as numbers. */
  export() {
    const header = ["student", "name", ...this.columns.map(({ path }) => path)];
    const rows = this.order.map((line) => [
      line.student ?? line.key,
      line.label,
      ...this.columns.map(({ path }) => at(line.value, path)),
    ]);
    return [header, rows];
  }
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
export const compare = (one, other) => collator.compare(one, other);

export function sortKey(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "number") return value;
  const series = typeof value === "object" ? seriesOf(value) : null;
  return series ? series.reduce((sum, [, number]) => sum + number, 0) : figure(value);
}

/** A small line of a series: 80 by 20, from its least to its largest. */
export function sparkline(cell, series) {
  if (!series) {
    cell.textContent = "–";
    return;
  }
  const [width, height] = [84, 20];
  const most = Math.max(1, ...series.map(([, value]) => value));
  const step = series.length > 1 ? width / (series.length - 1) : 0;
  const points = series.map(([, value], place) => `${(place * step).toFixed(1)},${(height - 1 - (value / most) * (height - 2)).toFixed(1)}`);
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `newest ${figure(series.at(-1)[1])}, most ${figure(most)}`);
  const line = document.createElementNS(SVG, series.length > 1 ? "polyline" : "circle");
  if (series.length > 1) line.setAttribute("points", points.join(" "));
  else for (const [name, value] of [["cx", 3], ["cy", height / 2], ["r", 2.5]]) line.setAttribute(name, value);
  drawing.append(line);
  cell.replaceChildren(drawing);
}
