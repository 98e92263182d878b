// A dashboard's page: answers come in, panels and the list of learners show them.

import { Detail } from "./detail.js";
import { Panel } from "./draw.js";
import { csv, picture, save } from "./files.js";
import { LearnerList } from "./learners.js";
import { Access, Answer, nameOf } from "./live.js";
import { at, behindWords, counted, element, figure } from "./text.js";
import { themed } from "./theme.js";

const DRAW_EVERY = 200; // ms between two drawings, at least
const REST = 3; // times as long as a drawing took does the browser get for everything else
const LOOK_EVERY = 2000; // ms between two looks at how the app is doing

const about = JSON.parse(document.getElementById("about").textContent);
const access = new Access("../");
const get = (id) => document.getElementById(id);
const state = { paused: false, facts: null, expired: false, unreachable: false, clock: 0, missed: 0 };

// -- the answers, one for each different query ---------------------------------------------------------------

let answers = [];
let dirty = new Map(); // answer: paths that changed and are not drawn yet, null for all
let timer = null;

function ask() {
  for (const { answer } of answers) answer.close();
  const course = get("course").value;
  const byQuery = new Map();
  answers = [];
  about.queries.forEach(({ takes_course, ...query }, index) => {
    const kwargs = { ...query.kwargs, ...(takes_course && course ? { course_id: course } : {}) };
    const asked = { ...query, kwargs };
    const key = JSON.stringify(asked);
    if (!byQuery.has(key)) {
      const entry = { answer: null, lines: new Map() };
      entry.answer = new Answer(access, asked, {
        onChange: (paths) => changed(entry, paths),
        onState: () => tell(),
      });
      byQuery.set(key, entry);
      answers.push(entry);
    }
    panels[index].entry = byQuery.get(key);
  });
  dirty = new Map();
}

function changed(entry, paths) {
  label(entry, paths);
  const before = dirty.get(entry);
  dirty.set(entry, paths === null || before === null ? null : new Set([...(before ?? []), ...paths]));
  if (state.paused) {
    state.missed += paths === null ? 1 : paths.size;
    tell();
    return;
  }
  schedule(DRAW_EVERY);
}

function schedule(delay) {
  timer ??= setTimeout(() => requestAnimationFrame(draw), delay);
}

const nextFrame = () => new Promise((done) => {
  requestAnimationFrame(done);
});

/** Give rows the names by which learners are known here. */
function label({ answer, lines }, paths) {
  if (paths === null) lines.clear();
  for (const path of paths ?? answer.rows.keys()) {
    const row = answer.rows.get(path);
    if (!row) {
      lines.delete(path);
      continue;
    }
    let line = lines.get(path);
    if (!line) {
      line = { key: path, student: row.student, label: "", value: row.value };
      lines.set(path, line);
    }
    line.value = row.error ? { error: row.error } : row.value;
    if (!row.student && "output" in row.value) row.value.value = row.value.output;
    line.label = nameOf(row, path);
  }
}

// -- what is shown ---------------------------------------------------------------------------------------------

const panels = about.panels.map((panel, index) => {
  const holder = element("div", { class: "chart" });
  const title = panel.title || (typeof panel.query === "string" ? panel.query : about.title);
  const tools = element("div", { class: "tools" });
  const shown = element(
    "section",
    { class: "panel", "aria-labelledby": `panel-${index}` },
    element("header", {}, element("h2", { id: `panel-${index}` }, title), tools),
    holder,
  );
  get("panels").append(shown);
  const made = { shown, tools, entry: null };
  made.panel = new Panel(holder, { title, vega: about.vega, rows: () => made.entry.lines });
  for (const kind of ["png", "svg"]) {
    const name = `${about.id}-${index + 1}`;
    const take = () => made.panel.view && picture(made.panel.view, name, kind);
    tools.append(
      element("button", { type: "button", class: "small", onclick: take, "aria-label": `Download ${title} as ${kind.toUpperCase()}` }, kind.toUpperCase()),
    );
  }
  return made;
});

const detail = new Detail(get("detail"), access);
const list = new LearnerList({
  table: get("lines"),
  scroller: get("scroller"),
  filter: get("filter"),
  count: get("count"),
  onOpen: (line) => {
    detail.open(line);
    detail.update(lines(), list.columns, now(), null);
  },
});

const rate = (number) => figure(number < 10 ? number : Math.round(number));

const now = () => Date.now() / 1000 + state.clock; // by the server's clock

/** The lines of all answers, by path; of one learner in several answers, the fields of all. */
function lines() {
  if (answers.length === 1) return answers[0].lines;
  const together = new Map();
  for (const entry of answers) {
    for (const [key, line] of entry.lines) {
      const before = together.get(key);
      if (before) before.value = { ...before.value, ...line.value };
      else together.set(key, { ...line });
    }
  }
  return together;
}

async function draw() {
  let took = 0;
  try {
    if (!state.paused) took = await drawn();
  } finally {
    timer = null;
    if (dirty.size && !state.paused) schedule(Math.max(DRAW_EVERY, REST * took));
  }
}

/** Show what changed; gives how long the panels took, in ms. */
async function drawn() {
  const changes = dirty;
  dirty = new Map();
  let took = 0;
  for (const { panel, entry } of panels) {
    if (!changes.has(entry)) continue;
    const since = performance.now();
    await panel.change(changes.get(entry));
    took += performance.now() - since;
    await nextFrame(); // one panel a frame, so that none of them holds up scrolling
  }
  let paths = new Set();
  for (const some of changes.values()) paths = some === null || paths === null ? null : new Set([...paths, ...some]);
  const together = lines();
  list.update(together, now(), paths);
  detail.update(together, list.columns, now(), paths);
  if (together.size) mark("learners");
  if (changes.size) decide();
  tell();
  return took;
}

// How the answers are drawn is the app's to say, which looks at their shape; it is asked again when that may
// have become another.
const FEW = 8;
/** Note when something was first there, for whoever measures. */
function mark(name) {
  if (!performance.getEntriesByName(name, "mark").length) performance.mark(name);
}

/** Whether what a histogram shows are whole numbers alone, which it puts together by whole steps. */
function whole({ panel: { drawing }, entry }) {
  return drawing?.kind === "histogram" && [...entry.lines.values()].every(({ value }) => Number.isInteger(at(value, drawing.field) ?? 0));
}

let decided = "";
let deciding = false;
async function decide(anyway = false) {
  const complete = answers.every(({ answer }) => answer.complete);
  const sizes = answers.map(({ lines: { size } }) => (size > about.many ? 3 : size > FEW ? 2 : size ? 1 : 0));
  const shape = JSON.stringify([sizes, panels.map(whole), get("course").value]);
  const waiting = panels.some(({ panel }) => ["waiting", "error"].includes(panel.drawing?.kind));
  if (deciding || !complete || (shape === decided && !waiting && !anyway)) return;
  deciding = true;
  try {
    const course = get("course").value;
    const answer = await access.fetch(`dashboards/${about.id}/drawings${course ? `?course=${encodeURIComponent(course)}` : ""}`);
    if (!answer.ok) return;
    const drawings = await answer.json();
    decided = shape;
    list.setColumns(columnsOf(drawings));
    await Promise.all(panels.map(({ panel, tools }, index) => {
      const drawing = drawings[index];
      drawing.label = about.panels[index].label;
      for (const button of tools.children) button.hidden = !drawing.spec;
      return panel.show(drawing);
    }));
    if (panels.some(({ panel }) => panel.view)) mark("charts");
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
  } catch {
    // the connection went; it is asked again when it is back
  } finally {
    setTimeout(() => {
      deciding = false;
    }, waiting ? 1000 : 0);
  }
  tell();
}

/** Columns of the list: those that the dashboard names first, then the others. */
function columnsOf(drawings) {
  const found = new Map();
  for (const { columns } of drawings) for (const column of columns) found.set(column.path, column);
  const named = about.columns ?? {};
  const paths = [...Object.keys(named).filter((path) => found.has(path)), ...[...found.keys()].filter((path) => !(path in named))];
  return paths
    .filter((path) => named[path]?.show !== false && path !== "name" && path !== "output")
    .map((path) => {
      const { holds } = found.get(path);
      const title = named[path]?.title ?? path.replaceAll("_", " ").replaceAll(".", " › ");
      return { path, title, holds, format: named[path]?.format ?? (holds === "moment" ? "ago" : "") };
    });
}

// -- in which state it is ----------------------------------------------------------------------------------------

function condition() {
  const all = answers.map(({ answer }) => answer);
  if (state.expired) {
    return ["expired", "Access ended", "This page's access has ended. Open it again from the notebook, or with a new address."];
  }
  if (all.some(({ connected }) => !connected) || state.unreachable) {
    const ever = all.some(({ complete }) => complete);
    return ever || all.some(({ attempts }) => attempts > 1)
      ? ["disconnected", "Disconnected", "No connection to the app. What is shown is from before; it is tried again by itself."]
      : ["connecting", "Connecting", ""];
  }
  const failed = all.find(({ error }) => error);
  if (failed) return ["error", "Error", `The answer failed: ${failed.error}`];
  const reducers = state.facts?.reducers ?? [];
  const broken = reducers.find(({ status, errors }) => status === "failed" || errors > 0);
  if (broken) {
    const text = broken.status === "failed" ? `The reducer ${broken.id} failed` : `The reducer ${broken.id} failed at ${counted(broken.errors, "event")}`;
    return ["error", "Error", `${text}: ${broken.last_error || "see lo.errors in the notebook"}. Other events are counted.`];
  }
  const past = all.find(({ progress }) => progress)?.progress ?? reducers.find(({ status }) => status === "catching up");
  if (past) {
    const share = past.total ? ` ${Math.floor((100 * past.done) / past.total)}%` : "";
    return ["past", "Reading the past", `The reducer ${past.reducer ?? past.id} goes through past events:${share}.`];
  }
  if (!all.every(({ complete }) => complete)) return ["connecting", "Connecting", ""];
  const learners = Math.max(state.facts?.learners ?? 0, ...answers.map((entry) => entry.lines.size));
  if (!learners) return ["empty", "No learners yet", "No learners yet. They appear here with their first event."];
  const waiting = panels.filter(({ panel }) => panel.drawing?.kind === "waiting").length;
  const unheard = reducers.length > 0 && reducers.every(({ events }) => events === 0);
  if (waiting && (unheard || waiting === panels.length)) {
    return ["waiting", "Waiting", "Waiting for events: nothing has come yet that this dashboard is about."];
  }
  return Object.keys(behind()).length ? ["behind", "Behind", ""] : ["live", "Live", ""];
}

/** What the answers are behind with, one line for all. */
const behind = () => Object.assign({}, ...answers.map(({ answer }) => answer.behind));

/** How many learners are shown; those of all courses, where these are others. */
function learnersSaid({ learners: seen, active }) {
  const shown = new Set();
  for (const { answer, lines: some } of answers) {
    if (answer.complete) for (const { student } of some.values()) if (student) shown.add(student);
  }
  if (!shown.size || shown.size === seen) return `${counted(seen, "learner")} · ${figure(active)} active`;
  return `${counted(shown.size, "learner")} shown · ${figure(seen)} seen in all · ${figure(active)} of them active`;
}

let told = "";
function tell() {
  let [name, word, text] = condition();
  if (state.paused && ["live", "waiting", "behind"].includes(name)) {
    [name, word] = ["paused", "Paused"];
    text = state.missed ? `Paused. ${counted(state.missed, "change waits", "changes wait")}.` : "Paused.";
  }
  const facts = state.facts
    ? `${learnersSaid(state.facts)} · ${rate(state.facts.events_per_second)} events/s`
    : "";
  const late = behindWords(behind(), state.facts?.reducers);
  const now = JSON.stringify([name, word, text, facts, late]);
  if (now === told) return;
  told = now;
  document.body.dataset.state = name;
  get("state").textContent = word;
  get("facts").textContent = facts;
  get("behind").hidden = !late;
  if (get("behind").textContent !== late) get("behind").textContent = late;
  const notice = get("notice");
  notice.hidden = !text;
  if (notice.firstChild.textContent !== text) notice.firstChild.textContent = text;
  get("retry").hidden = name !== "disconnected";
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await access.fetch(`dashboards/${about.id}/state`);
      state.expired = answer.status === 401;
      if (answer.ok) {
        state.facts = await answer.json();
        state.clock = state.facts.now - Date.now() / 1000;
      }
      if (state.unreachable) for (const { answer: each } of answers) each.hurry(true);
      state.unreachable = false;
    } catch {
      state.unreachable = true;
    }
    if (!state.paused) {
      const together = lines();
      list.update(together, now(), new Set());
      detail.update(together, list.columns, now(), new Set());
    }
    tell();
  }
  setTimeout(look, LOOK_EVERY);
}

// -- what a person can do ----------------------------------------------------------------------------------------

get("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  state.missed = 0;
  get("pause").setAttribute("aria-pressed", String(state.paused));
  get("pause").querySelector("span").textContent = state.paused ? "Resume" : "Pause";
  if (!state.paused) schedule(0);
  tell();
});

get("csv").addEventListener("click", () => save(`${about.id}.csv`, csv(...list.export())));

get("retry").addEventListener("click", () => {
  for (const { answer } of answers) answer.hurry(true);
});

for (const { id, name } of about.courses) get("course").append(element("option", { value: id }, name));
if (about.course) get("course").value = about.course;
get("course").closest("label").hidden = about.courses.length < 2 || !about.queries.some(({ takes_course }) => takes_course);
if (about.courses.length < 2) get("course").value = "";
get("course").addEventListener("change", () => ask());

addEventListener("online", () => answers.forEach(({ answer }) => answer.hurry()));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) answers.forEach(({ answer }) => answer.hurry());
});

for (const link of document.querySelectorAll("a[data-page]")) link.href = access.link(link.dataset.page);
themed(get("theme"), () => {
  for (const { panel } of panels) if (panel.drawing?.spec) panel.redraw();
});

list.setColumns([]);
ask();
look();
