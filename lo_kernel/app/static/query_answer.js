// An answer as a table that a person can read: whom a row is about, its fields, errors in their places.

import { compare, sortKey, sparkline } from "./learners.js";
import { nameOf } from "./live.js";
import { counted, dateAndTime, element, figure, seriesOf } from "./text.js";

const SHOWN = 200; // rows at first, and with each "more"
const INLINE = 64; // characters of a nested value that stand in the cell itself
const LONG = 240; // characters of a text

const ASIDE = new Set(["user_id", "profile"]); // what the roster says of a learner, who is named already
const SEGMENTS = { students: "learner", documents: "document", classes: "class", teachers: "teacher" };

const MOMENTS = [1.2e9, 4e9]; // seconds since 1970 that are a time of our days, and hardly a count

/** Whether a value is an error in a value's place. */
export const isError = (value) => value !== null && typeof value === "object" && "error" in value && "function" in value;

const isScalar = (value) => value === null || typeof value !== "object";

/**
 * Whom a row is about, by kind: `{learner: "Ada", document: "essay"}`; its number where it says nothing.
 * `names` has learners by safe id, for rows whose query has left the roster's fields out.
 */
function identity(row, place, names) {
  const parts = row.path.split(".");
  const found = {};
  for (let at = 0; at + 1 < parts.length; at += 2) {
    const name = parts[at + 1].replaceAll("%2E", ".");
    const kind = SEGMENTS[parts[at]];
    if (kind === "learner") found.learner = row.value.profile ? nameOf({ ...row, part: "" }, row.path) : names?.get(name) ?? name;
    else if (kind) found[kind] = name;
  }
  if (!Object.keys(found).length) found["#"] = place + 1;
  return found;
}

/** A value as what stands in a cell. */
export function shown(value) {
  if (isError(value)) {
    const node = value.error_provenance?.node ?? value.error_path?.[0];
    return element("span", { class: "wrong" }, `error: ${value.error}`, node && !String(value.error).includes(node) ? ` (node ${node})` : "");
  }
  if (typeof value === "string" && value.length > LONG) return folded(`${value.slice(0, INLINE)}…`, value);
  if (isScalar(value)) return figure(value);
  const text = inline(value);
  if (text !== null && text.length <= INLINE) return text;
  const size = Array.isArray(value) ? counted(value.length, "item") : counted(Object.keys(value).length, "field");
  return folded(size, JSON.stringify(value, null, 2));
}

const folded = (summary, text) => element("details", {}, element("summary", {}, summary), element("pre", {}, text));

function inline(value) {
  if (Array.isArray(value)) {
    if (!value.length) return "none";
    return value.every(isScalar) ? value.map(figure).join(", ") : null;
  }
  const entries = Object.entries(value);
  if (!entries.length) return "empty";
  return entries.every(([, item]) => isScalar(item)) ? entries.map(([name, item]) => `${name}: ${figure(item)}`).join(", ") : null;
}

export class AnswerTable {
  constructor(table, more = null) {
    this.table = table;
    this.more = more;
    this.limit = SHOWN;
    this.sort = { path: null, down: false };
    this.lines = new Map();
    this.columns = [];
    this.names = null;
    this.head = element("thead", {});
    this.body = element("tbody", {});
    table.append(this.head, this.body);
    more?.addEventListener("click", () => {
      this.limit += SHOWN;
      this.update(this.rows, new Set());
    });
  }

  /** Forget what was there: another query. */
  clear() {
    this.rows = new Map();
    this.lines.clear();
    this.columns = [];
    this.kinds = [];
    this.limit = SHOWN;
    this.sort = { path: null, down: false };
    this.head.replaceChildren();
    this.body.replaceChildren();
    if (this.more) this.more.hidden = true;
  }

  /** Show `rows` (a Map of rows by path); `changed` are paths, null for all. */
  update(rows, changed) {
    this.rows = rows;
    const fields = new Set();
    const kinds = new Set();
    const order = [...rows.values()];
    order.forEach((row, place) => {
      row.who = identity(row, place, this.names);
      for (const kind of Object.keys(row.who)) kinds.add(kind);
      for (const name of Object.keys(row.value)) if (!(row.student && ASIDE.has(name))) fields.add(name);
    });
    if (kinds.size > 1) kinds.delete("#");
    if (rows.size === 1 && kinds.has("#")) kinds.delete("#");
    const columns = [...fields];
    this.moments = new Set(columns.filter((name) => {
      const held = order.map((row) => row.value[name]).filter((value) => value !== null && value !== undefined);
      return held.length > 0 && held.every((value) => typeof value === "number" && value > MOMENTS[0] && value < MOMENTS[1]);
    }));
    if (JSON.stringify([[...kinds], columns]) !== JSON.stringify([this.kinds, this.columns])) this.setColumns([...kinds], columns);
    const numbers = (name) => order.some((row) => typeof row.value[name] === "number") && !this.moments.has(name);
    columns.forEach((name, place) => this.head.firstChild.children[this.kinds.length + place].classList.toggle("is-number", numbers(name)));
    this.table.classList.toggle("alone", rows.size === 1 && !this.kinds.length && columns.length === 1);
    this.arranged = this.arrange(order);
    const seen = this.arranged.slice(0, this.limit);
    const lines = [];
    for (const row of seen) {
      let line = this.lines.get(row.path);
      const known = Boolean(line);
      if (!line) {
        line = element("tr", {});
        this.lines.set(row.path, line);
      }
      if (!known || changed === null || changed.has(row.path)) this.fill(line, row, known && changed !== null);
      lines.push(line);
    }
    lines.forEach((line, place) => {
      if (this.body.children[place] !== line) this.body.insertBefore(line, this.body.children[place] ?? null);
    });
    while (this.body.children.length > lines.length) this.body.lastChild.remove();
    const kept = new Set(seen.map(({ path }) => path));
    for (const path of this.lines.keys()) if (!kept.has(path)) this.lines.delete(path);
    this.table.setAttribute("aria-rowcount", String(rows.size + 1));
    if (this.more) {
      const left = rows.size - seen.length;
      this.more.hidden = left <= 0;
      this.more.textContent = `${figure(seen.length)} of ${counted(rows.size, "row")} are shown: show ${figure(Math.min(SHOWN, left))} more`;
    }
  }

  setColumns(kinds, columns) {
    this.kinds = kinds;
    this.columns = columns;
    this.lines.clear();
    this.body.replaceChildren();
    const titles = [...kinds.map((kind) => [`who.${kind}`, kind]), ...columns.map((name) => [`value.${name}`, name === "output" ? "value" : name])];
    const cells = titles.map(([path, title]) => {
      const content = this.more ? element("button", { type: "button", onclick: () => this.sortBy(path) }, title) : title;
      const cell = element("th", { scope: "col" }, content);
      cell.dataset.path = path;
      return cell;
    });
    this.head.replaceChildren(element("tr", {}, ...cells));
  }

  sortBy(path) {
    const same = this.sort.path === path;
    if (same && this.sort.down === this.sort.first) this.sort.down = !this.sort.down;
    else if (same) this.sort = { path: null, down: false }; // a third time: as the app gave them
    else {
      const numbers = [...this.rows.values()].some((row) => typeof this.key(row, path) === "number");
      this.sort = { path, down: numbers, first: numbers };
    }
    this.update(this.rows, new Set());
  }

  key(row, path) {
    const [where, ...name] = path.split(".");
    return sortKey(row[where][name.join(".")]);
  }

  arrange(order) {
    const { path, down } = this.sort;
    for (const cell of this.head.querySelectorAll("th")) {
      if (cell.dataset.path === path) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    if (path === null) return order;
    return order
      .map((row) => [row, this.key(row, path)])
      .sort(([, a], [, b]) => {
        const absent = (a === null) - (b === null);
        if (absent) return absent;
        const which = typeof a === "number" && typeof b === "number" ? a - b : compare(String(a), String(b));
        return down ? -which : which;
      })
      .map(([row]) => row);
  }

  fill(line, row, mark) {
    line.said ??= [];
    const contents = [...this.kinds.map((kind) => row.who[kind]), ...(row.error ? [] : this.columns.map((name) => row.value[name]))];
    const said = contents.map((value) => JSON.stringify(value) ?? "");
    if (Boolean(row.error) !== Boolean(line.failed) || !line.children.length) {
      line.failed = Boolean(row.error);
      line.said = [];
      line.replaceChildren(
        ...this.kinds.map((kind, place) => element(place ? "td" : "th", place ? {} : { scope: "row" })),
        ...(row.error ? [element("td", { colspan: String(Math.max(1, this.columns.length)) })] : this.columns.map(() => element("td", {}))),
      );
    }
    if (row.error) line.lastChild.replaceChildren(shown({ error: row.error, function: "" }));
    contents.forEach((value, place) => {
      if (line.said[place] === said[place]) return;
      const cell = line.children[place];
      const series = seriesOf(value);
      if (series) sparkline(cell, series);
      else if (typeof value === "number" && this.moments.has(this.columns[place - this.kinds.length])) {
        cell.replaceChildren(element("time", { datetime: new Date(value * 1000).toISOString(), title: String(value) }, dateAndTime(value)));
      } else cell.replaceChildren(shown(value));
      const id = place === 0 && this.kinds[0] === "learner" ? row.student : null;
      if (id && id !== value) cell.append(element("small", {}, id));
      cell.classList.toggle("is-number", typeof value === "number");
      if (mark && place >= this.kinds.length) {
        cell.classList.remove("new");
        void cell.offsetWidth; // the mark begins anew
        cell.classList.add("new");
      }
    });
    line.said = said;
  }

  /** Whether a learner is among the rows whom nobody has named. */
  get nameless() {
    return [...this.rows.values()].some((row) => row.student && !row.value.profile && !this.names?.has(row.student));
  }

  /** Header and lines for a file, all rows. */
  export() {
    const header = [...this.kinds.flatMap((kind) => (kind === "learner" ? ["student", "name"] : [kind === "#" ? "row" : kind])), ...this.columns];
    const rows = (this.arranged ?? []).map((row) => [
      ...this.kinds.flatMap((kind) => (kind === "learner" ? [row.student, row.who.learner] : [row.who[kind]])),
      ...this.columns.map((name, place) => (row.error ? (place ? "" : `error: ${row.error}`) : row.value[name])),
    ]);
    return [header, rows];
  }
}

/** Rows that were no answer of the app's: a sample. */
export function rowsOf(sample, name) {
  const items = Array.isArray(sample) ? sample : [sample];
  return new Map(items.map((item, place) => {
    const value = isScalar(item) || Array.isArray(item) ? { output: item } : item;
    const student = typeof value.user_id === "string" ? value.user_id : null;
    const path = student ? `students.${student.replaceAll(".", "%2E")}.rows.${place}` : `${name}.${place}`;
    return [path, { path, student, part: "", value, error: null }];
  }));
}
