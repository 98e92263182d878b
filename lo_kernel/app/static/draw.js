// One panel: its answer drawn by Vega, or as plain elements where that says it better.
//
// Rows become tuples that are kept and changed in place, field by field. Taking all out and putting them in
// again would leak memory, and would draw everything anew.

import { at, element, figure, seriesOf, written } from "./text.js";
import { colours } from "./theme.js";

const RANK_EVERY = 2000; // ms between two changes of the rows' order, so that a reader can follow it
const MANY_MARKS = 400; // above, a canvas is quicker than SVG
const TABLE_ROWS = 40;
const SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json";

/** What a tuple of each kind holds; more than one for a row that is a series. */
const TUPLES = {
  bar: (row, field) => [{ label: row.label, value: number(at(row.value, field)) }],
  histogram: (row, field) => [{ value: number(at(row.value, field)) }],
  categories: (row, field) => [{ value: figure(at(row.value, field)) }],
  line: (row, field) => (seriesOf(at(row.value, field)) ?? []).map(([t, value]) => ({ label: row.label, t, value })),
  heatmap: (row, field) =>
    (seriesOf(at(row.value, field)) ?? []).map(([t, value, until]) => ({
      label: row.label,
      t,
      until,
      value,
      said: `${row.label}: ${figure(value)}`,
    })),
  spread: (row, field) => (seriesOf(at(row.value, field)) ?? []).map(([t, value, until]) => ({ t, until, value })),
  template: (row) => [{ ...row.value, student: row.student ?? row.label, name: row.label }],
};
const RANKED = { bar: true, heatmap: true };

const number = (value) => (typeof value === "number" ? value : null);

const scripts = new Map(); // by address: those that are there, or come

function script(address) {
  if (!scripts.has(address)) {
    scripts.set(address, new Promise((done, failed) => {
      const given = element("script", {
        src: address,
        onload: done,
        onerror: () => {
          given.remove();
          scripts.delete(address); // the next drawing asks again
          failed(new Error("the app did not give what draws charts; with the next change it is asked again"));
        },
      });
      document.head.append(given);
    }));
  }
  return scripts.get(address);
}

/** The Vega scripts, once; they are asked for when the first chart needs them. */
async function vegaEmbed(addresses) {
  for (const address of addresses) await script(address); // each needs those before it
  return window.vegaEmbed;
}

/** Colours and sizes of a chart on this page. */
function config() {
  const { ground, text, quiet, line } = colours();
  const axis = { labelColor: text, titleColor: quiet, gridColor: line, domainColor: line, tickColor: line };
  return {
    background: ground,
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    axis: { ...axis, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelPadding: 6 },
    axisX: { gridOpacity: 0.6, domain: false, ticks: false, titlePadding: 8 },
    axisY: { grid: false, domain: false, ticks: false },
    legend: { labelColor: text, titleColor: quiet, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 },
    title: { color: text, subtitleColor: quiet },
    text: { color: text },
    header: { labelColor: text, titleColor: quiet },
    view: { stroke: null },
  };
}

/** Changes to a drawing that isn't there yet: the tuples that it begins with. */
class First {
  tuples = [];

  insert(tuple) {
    this.tuples.push(tuple);
  }

  /** Into what Vega-Lite compiled, as they are: it would read them as text, and make copies. */
  into(compiled) {
    const rows = compiled.data.find(({ name }) => name === "rows");
    delete rows.format;
    rows.values = this.tuples;
    return compiled;
  }
}

export class Panel {
  /** `holder` is where it is drawn; `rows()` gives the rows as they are now, by path. */
  constructor(holder, { title, vega, rows }) {
    this.holder = holder;
    this.title = title;
    this.vega = vega;
    this.rows = rows;
    this.drawing = null;
    this.view = null;
    this.tuples = new Map();
    this.ranked = -Infinity;
    this.busy = null;
    this.again = undefined;
  }

  /** Draw as `drawing` says from now on; the same again changes nothing. */
  async show(drawing) {
    if (JSON.stringify(drawing) === JSON.stringify(this.drawing)) return;
    this.drawing = drawing;
    await this.redraw();
  }

  /** Draw anew: as another kind, or in other colours. */
  async redraw() {
    while (this.busy) await this.busy;
    this.finalize();
    const { spec, kind } = this.drawing;
    this.holder.dataset.kind = kind;
    if (!spec) {
      this.plain();
      return;
    }
    this.busy = this.embed(spec).finally(() => {
      this.busy = null;
    });
    await this.busy;
    if (this.view) await this.change(null);
  }

  async embed(spec) {
    let embed;
    try {
      embed = await vegaEmbed(this.vega);
    } catch (error) {
      this.undrawn(error);
      return;
    }
    // Scales without a single value have no sensible size, so nothing is drawn before there is one; and the
    // first picture already has all of them.
    const first = new First();
    this.gather(null, first);
    if (!first.tuples.length) {
      this.holder.replaceChildren(element("p", { class: "waiting" }, "Waiting for events."));
      return;
    }
    const plot = element("div", { class: "plot" });
    this.holder.replaceChildren(plot);
    const whole = { ...spec, $schema: SCHEMA, data: { name: "rows", values: [] } };
    if (("mark" in spec || "layer" in spec) && !("width" in spec)) {
      whole.width = "container";
      whole.autosize = { type: "fit-x", contains: "padding" };
    }
    whole.description ??= this.title;
    try {
      const result = await embed(plot, whole, {
        ast: true, // expressions are interpreted: the page's policy lets nothing be compiled
        renderer: first.tuples.length > MANY_MARKS ? "canvas" : "svg",
        patch: (compiled) => first.into(compiled),
        actions: false,
        logLevel: 1, // of what is odd about a chart without rows nobody has to hear
        defaultStyle: false,
        tooltip: { disableDefaultStyle: true },
        config: config(),
      });
      this.view = result.view;
      this.release = result.finalize;
    } catch (error) {
      this.failed = true;
      this.undrawn(error);
    }
  }

  undrawn(error) {
    this.tuples = new Map();
    this.holder.replaceChildren(element("p", { class: "problem" }, `This can't be drawn: ${error.message}`));
  }

  finalize() {
    this.release?.();
    this.release = null;
    this.view = null;
    this.failed = false;
    this.tuples = new Map();
    this.ranked = -Infinity;
  }

  /** Bring the drawing up to date; `paths` are the rows that changed, null for all. */
  async change(paths) {
    if (!this.drawing) return;
    if (this.busy) {
      this.again = this.again === undefined ? paths : paths && this.again && new Set([...paths, ...this.again]);
      return;
    }
    if (!this.view) {
      if (!this.drawing.spec) this.plain();
      else if (this.rows().size && !this.failed) await this.redraw();
      return;
    }
    const changes = window.vega.changeset();
    if (this.gather(paths, changes)) {
      this.busy = this.view.change("rows", changes).runAsync();
      await this.busy;
      this.busy = null;
    }
    if (this.again !== undefined) {
      const waiting = this.again;
      this.again = undefined;
      await this.change(waiting);
    }
  }

  /** Put into `changes` what makes the tuples those of the rows; whether there is anything. */
  gather(paths, changes) {
    const rows = this.rows();
    const { kind, field } = this.drawing;
    const make = TUPLES[kind];
    const inserted = new Set();
    let any = false;
    const set = (tuple, name, value) => {
      if (tuple[name] === value) return;
      if (inserted.has(tuple)) tuple[name] = value;
      else changes.modify(tuple, name, value);
      any = true;
    };
    for (const path of paths ?? new Set([...rows.keys(), ...this.tuples.keys()])) {
      const row = rows.get(path);
      const wanted = row ? make(row, field) : [];
      const held = this.tuples.get(path) ?? [];
      wanted.forEach((tuple, place) => {
        if (place < held.length) {
          for (const name of Object.keys(tuple)) set(held[place], name, tuple[name]);
        } else {
          if (RANKED[kind]) tuple.rank = held[0]?.rank ?? rows.size;
          held.push(tuple);
          changes.insert(tuple);
          inserted.add(tuple);
          any = true;
          if (place === 0) this.ranked = -Infinity;
        }
      });
      for (const tuple of held.splice(wanted.length)) {
        changes.remove(tuple);
        any = true;
      }
      if (held.length) this.tuples.set(path, held);
      else this.tuples.delete(path);
    }
    if (RANKED[kind] && performance.now() - this.ranked > RANK_EVERY) {
      this.ranked = performance.now();
      const size = (tuples) => tuples.reduce((sum, tuple) => sum + (tuple.value ?? 0), 0);
      [...this.tuples.values()]
        .sort((one, other) => size(other) - size(one) || one[0].label.localeCompare(other[0].label))
        .forEach((tuples, rank) => tuples.forEach((tuple) => set(tuple, "rank", rank)));
    }
    return any;
  }

  /** Numbers, tables and texts need no drawing. */
  plain() {
    const rows = [...this.rows().values()];
    const { kind, field, error } = this.drawing;
    const total = (sum, row) => sum + (number(at(row.value, field)) ?? 0);
    let made;
    if (kind === "error") {
      made = element("p", { class: "problem" }, error);
    } else if (kind === "waiting") {
      made = element("p", { class: "waiting" }, "Waiting for events.");
    } else if (kind === "number") {
      made = element(
        "p",
        { class: "big" },
        element("strong", {}, figure(rows.length === 1 ? at(rows[0].value, field) : rows.reduce(total, 0))),
        element("span", {}, this.drawing.label || field),
      );
    } else if (kind === "text") {
      made = element("dl", { class: "texts" });
      for (const row of rows.slice(0, TABLE_ROWS)) {
        made.append(element("dt", {}, row.label), element("dd", {}, figure(at(row.value, field))));
      }
    } else {
      made = this.table(rows);
    }
    this.holder.replaceChildren(made);
  }

  table(rows) {
    const columns = this.drawing.columns.filter(({ holds }) => holds !== "series").slice(0, 6);
    const now = Date.now() / 1000;
    const head = element("tr", {}, element("th", { scope: "col" }, "learner"));
    head.append(...columns.map(({ path }) => element("th", { scope: "col" }, path)));
    const body = rows.slice(0, TABLE_ROWS).map((row) => {
      const line = element("tr", {}, element("th", { scope: "row" }, row.label));
      line.append(
        ...columns.map(({ path, holds }) =>
          element("td", { class: holds === "number" && "figure" }, written(at(row.value, path), holds === "moment" ? "ago" : "", now)),
        ),
      );
      return line;
    });
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": this.title }, table);
  }
}
