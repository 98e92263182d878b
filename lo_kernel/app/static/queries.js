// The page of queries: choose one, give its parameters, see the answer (as it changes, if wanted) and how it
// is built. Who holds the notebook's token may write a query here, too.

import { csv, save } from "./files.js";
import { Access, Answer } from "./live.js";
import { AnswerTable, rowsOf } from "./query_answer.js";
import { ParameterForm } from "./query_form.js";
import { behindWords, counted, element, figure, timeOfDay } from "./text.js";
import { themed } from "./theme.js";

const LOOK_EVERY = 3000; // ms between two looks at which queries there are
const SHOW_EVERY = 200; // ms between two drawings of the answer, at least
const REST = 3; // times as long as that took does the browser get for everything else
const OWN = "own"; // the fragment of the address under which one is written

const access = new Access("");
const get = (id) => document.getElementById(id);
let about = JSON.parse(get("about").textContent);
const mayWrite = about.open;
const state = { chosen: null, own: null, answer: null, rows: null, behind: {}, reducers: [], live: false, asked: 0, took: null, last: null, expired: false, unreachable: false };

let learners = null;
let named = 0;
/** Who is in the class: `[{user_id, profile}]`. That it was read goes on record. */
function roster() {
  named = performance.now();
  learners = access.fetch("webapi/courseroster/everyone").then((answer) => (answer.ok ? answer.json() : [])).catch(() => []);
  return learners;
}

const form = new ParameterForm(get("fields"), {
  get courses() { return about.courses; },
  get anyCourse() { return about.any_course; },
  learners: () => learners ?? roster(),
});
const table = new AnswerTable(get("rows"), get("more"));
const sample = new AnswerTable(get("sample").querySelector("table"));

// -- which queries there are ---------------------------------------------------------------------------------

let listed = "";
function list() {
  const wanted = get("filter").value.trim().toLowerCase();
  const found = about.queries.filter(({ name, description }) => `${name} ${description}`.toLowerCase().includes(wanted));
  const key = JSON.stringify([found.map(({ name, description }) => [name, description]), state.chosen?.name]);
  if (key !== listed) {
    listed = key;
    const items = found.map(({ name, description }) => item(name, `#${encodeURIComponent(name)}`, name, description));
    if (mayWrite) items.push(element("li", { class: "own" }, link(OWN, `#${OWN}`, "Write a query", "As JSON; with the notebook's token only.")));
    get("names").replaceChildren(...items);
  }
  get("none").hidden = found.length > 0;
  get("none").textContent = about.queries.length ? "No query is called so." : "No queries yet: in a notebook, @lo.reducer(...) adds one.";
  get("facts").textContent = `${counted(about.queries.length, "query", "queries")} · ${counted(about.learners, "learner")}`;
}

const item = (...of) => element("li", {}, link(...of));

function link(name, href, title, note) {
  const here = state.chosen?.name === name;
  return element("a", { href, "aria-current": here ? "true" : false }, element("strong", {}, title), element("span", {}, note));
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await access.fetch("queries.json");
      state.expired = answer.status === 401;
      if (answer.ok) {
        about = { ...about, ...(await answer.json()) };
        const now = about.queries.find(({ name }) => name === state.chosen?.name);
        if (now && JSON.stringify(now) !== JSON.stringify(state.chosen)) choose(now, false);
        else if (!state.chosen) follow();
        list();
      }
      if (state.live && state.chosen && state.chosen.name !== OWN && Object.values(behind()).includes("paused")) drawing();
      if (state.unreachable) state.answer?.hurry(true);
      state.unreachable = false;
    } catch {
      state.unreachable = true;
    }
    tell();
  }
  setTimeout(look, LOOK_EVERY);
}

// -- the one that is chosen ------------------------------------------------------------------------------------

/** Choose the query that the address names; the first where it names none. */
function follow() {
  let named = location.hash.slice(1);
  try {
    named = decodeURIComponent(named);
  } catch {
    // as it stands
  }
  if (named === OWN && mayWrite) {
    write();
    return;
  }
  const found = about.queries.find(({ name }) => name === named);
  if (found) choose(found);
  else if (named) {
    choose(null);
    get("name").textContent = "No such query";
    get("description").textContent = `There is no query ${named} now. It may come back when the notebook's cell runs again.`;
  } else if (about.queries.length) choose(about.queries[0]);
}

function choose(query, anew = true) {
  state.chosen = query;
  if (anew) {
    stop();
    forget();
    get("editor").replaceChildren();
    get("live").checked = false;
    get("sample").hidden = true;
    get("built").hidden = true;
    get("reducers").hidden = true;
  }
  get("form").hidden = !query;
  if (!query) {
    get("notebook").hidden = true;
    list();
    return;
  }
  get("name").textContent = query.name === OWN ? "A query of your own" : query.name;
  get("description").textContent = query.description;
  form.show(query.parameters);
  spell();
  list();
  if (query.name === OWN) return;
  const rows = query.sample === null ? null : rowsOf(query.sample, query.export);
  get("sample").hidden = rows === null || !get("answer").hidden;
  if (rows) {
    sample.clear();
    sample.update(rows, null);
  }
  drawing();
}

/** How the same is asked in a notebook. */
function spell() {
  get("notebook").hidden = !state.chosen || state.chosen.name === OWN;
  if (get("notebook").hidden) return;
  const given = form.fields.filter(({ input }) => input.value.trim() !== "").map(({ parameter, input }) => {
    const number = parameter.type === "number" && Number.isFinite(Number(input.value));
    return `, ${parameter.name}=${number ? input.value.trim() : JSON.stringify(input.value)}`;
  });
  get("notebook").querySelector("code").textContent = `await lo.query(${JSON.stringify(state.chosen.name)}${given.join("")})`;
}

// -- how it is built -------------------------------------------------------------------------------------------

let drawn = 0;
/** Draw the chosen query with the times of its last run. */
async function drawing() {
  drawn = performance.now();
  const { chosen } = state;
  if (!chosen || chosen.name === OWN) {
    if (state.own) await check(false);
    return;
  }
  const answer = await access.fetch(`queries/drawing?query=${encodeURIComponent(chosen.name)}`).catch(() => null);
  if (answer?.ok && state.chosen === chosen) build(await answer.json());
}

let builtAs = "";
function build({ svg, nodes, seconds, dag, reducers }) {
  get("built").hidden = false;
  state.reducers = state.chosen?.name === OWN ? [] : reducers; // of one's own nobody looks again how far they are
  tell();
  const late = behind();
  const notes = reducers.filter(({ id, status }) => status !== "paused" || !(id in late)).map(care).filter(Boolean).join(" ");
  get("reducers").hidden = !notes;
  if (get("reducers").textContent !== notes) get("reducers").textContent = notes;
  get("took").textContent = seconds === null ? "Not run yet." : `The last run took ${time(seconds)} in the app.`;
  if (svg === builtAs) return;
  builtAs = svg;
  const read = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
  if (read.nodeName === "svg") get("drawing").replaceChildren(document.importNode(read, true));
  const head = element("tr", {}, ...["node", "what it does", "needs", "rows", "time"].map((title) => element("th", { scope: "col" }, title)));
  const lines = nodes.map(({ node, what, needs, rows, seconds: took, answer }) => element(
    "tr",
    {},
    element("th", { scope: "row" }, node, answer ? element("span", { class: "quiet" }, " (the answer)") : null),
    element("td", {}, what),
    element("td", {}, needs.join(", ") || "–"),
    element("td", { class: "figure" }, figure(rows)),
    element("td", { class: "figure" }, took === null ? "–" : time(took)),
  ));
  get("nodes").replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
  get("json").textContent = JSON.stringify(dag, null, 2);
  const change = mayWrite && state.chosen.name !== OWN ? [element("button", { type: "button", class: "small", onclick: copy }, "Change a copy")] : [];
  get("json-tools").replaceChildren(...change);
}

/** What is to be known of a reducer before its states are believed. */
function care({ id, status, errors, last_error: last }) {
  if (status === "paused") return `The reducer ${id} is paused: its code isn't here now, and its states are those of before.`;
  if (status === "failed") return `The reducer ${id} failed: ${last}.`;
  return errors ? `The reducer ${id} failed at ${counted(errors, "event")}, last with ${last}. Other events are counted.` : "";
}

const time = (seconds) => (seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 2 : 0)} ms` : `${seconds.toFixed(2)} s`);

// -- one that is written here ----------------------------------------------------------------------------------

const START = {
  execution_dag: { answer: { dispatch: "call", function_name: "learning_observer.courseroster", args: [], kwargs: {} } },
  exports: { answer: { returns: "answer" } },
};
let text = JSON.stringify(START, null, 2);

function copy() {
  text = get("json").textContent;
  location.hash = `#${OWN}`;
}

function write() {
  state.own = null;
  choose({ name: OWN, description: "Nodes as JSON. It runs here only: nothing is kept.", parameters: [], sample: null });
  get("form").hidden = true;
  const area = element("textarea", { id: "dag", spellcheck: "false", autocapitalize: "off", "aria-describedby": "wrong" });
  area.value = text;
  area.addEventListener("input", () => {
    text = area.value;
    area.removeAttribute("aria-invalid");
  });
  const exports = element("select", { id: "export", onchange: () => pick(exports.value) });
  const button = element("button", { type: "button", onclick: () => check(true) }, "Check and draw");
  get("editor").replaceChildren(
    element("label", { for: "dag" }, "Execution DAG"),
    area,
    element("div", { class: "tools" }, button, element("label", { hidden: true }, "Answer ", exports)),
  );
  check(false);
}

/** Have the app build what is written; says what is wrong with it, and where. */
async function check(asked) {
  const area = get("dag");
  const given = text;
  const wanted = state.own ? `?export=${encodeURIComponent(state.own.export)}` : "";
  const answer = await access.fetch(`queries/check${wanted}`, { method: "POST", body: given }).catch(() => null);
  if (!answer || !area?.isConnected) return false;
  const found = await answer.json();
  if (!answer.ok) {
    state.own = null;
    get("form").hidden = true;
    get("built").hidden = true;
    area.setAttribute("aria-invalid", "true");
    wrong(found.error);
    tell();
    if (asked) area.focus();
    return false;
  }
  wrong("");
  tell();
  area.removeAttribute("aria-invalid");
  const before = state.own?.export;
  state.own = { text: given, dag: found.drawing.dag, exports: found.exports, export: "" };
  const names = found.exports.map(({ export: name }) => name);
  get("export").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  get("export").parentElement.hidden = names.length < 2;
  get("export").value = names.includes(before) ? before : names[0];
  pick(get("export").value, false);
  build(found.drawing);
  return true;
}

function pick(name, draw = true) {
  const { parameters } = state.own.exports.find(({ export: each }) => each === name);
  const same = state.own.export === name;
  state.own.export = name;
  get("form").hidden = false;
  if (!same && JSON.stringify(form.fields.map(({ parameter }) => parameter)) !== JSON.stringify(parameters)) form.show(parameters);
  if (draw) check(false);
}

// -- asking ----------------------------------------------------------------------------------------------------

function stop() {
  state.answer?.close();
  state.answer = null;
}

function forget() {
  table.clear();
  state.rows = null;
  state.behind = {};
  get("answer").hidden = true;
  get("said").textContent = "";
  get("changed").textContent = "";
  wrong("");
}

function wrong(said) {
  if (get("wrong").textContent !== said) get("wrong").textContent = said;
}

async function run() {
  const own = state.chosen.name === OWN;
  if (own && state.own?.text !== text && !(await check(true))) return;
  const kwargs = form.values();
  if (kwargs === null) return;
  stop();
  wrong("");
  const live = get("live").checked;
  const dag = own ? state.own.dag : state.chosen.dag;
  const name = own ? state.own.export : state.chosen.export;
  state.live = live;
  state.asked = performance.now();
  state.took = state.last = null;
  const query = { execution_dag: dag, target_exports: [name], kwargs: { ...kwargs, rerun_dag_delay: live ? 0 : -1 } };
  const asked = new Answer(access, query, {
    onChange: (paths) => state.answer === asked && changed(paths),
    onState: () => state.answer === asked && turned(),
  });
  state.answer = asked;
  tell();
}

let dirty = new Set();
let timer = null;
let rested = 0;
function changed(paths) {
  if (state.took === null) state.took = performance.now() - state.asked;
  else state.last = Date.now() / 1000;
  dirty = paths === null || dirty === null ? null : new Set([...dirty, ...paths]);
  const delay = paths === null ? 0 : Math.max(0, rested - performance.now(), state.took === null ? 0 : SHOW_EVERY);
  timer ??= setTimeout(() => requestAnimationFrame(show), delay);
}

function show() {
  timer = null;
  const changes = dirty;
  dirty = new Set();
  const { answer } = state;
  const rows = answer?.complete ? answer.rows : answer ? null : state.rows;
  if (!rows) return;
  const since = performance.now();
  const first = get("answer").hidden;
  get("answer").hidden = false;
  get("sample").hidden = true;
  table.update(rows, changes);
  rested = performance.now() + Math.max(SHOW_EVERY, REST * (performance.now() - since));
  const size = rows.size ? counted(rows.size, "row") : "No rows";
  const said = state.live ? `${size}, kept live.` : `${size}, all there after ${time(state.took / 1000)}.`;
  if (get("said").textContent !== said) get("said").textContent = said;
  get("changed").textContent = state.live && state.last ? `Last change ${timeOfDay(state.last)}.` : "";
  if (table.nameless && (!learners || performance.now() - named > LOOK_EVERY)) name();
  if (first && matchMedia("(max-width: 860px)").matches) get("answer").scrollIntoView({ block: "nearest" });
  if (performance.now() - drawn > LOOK_EVERY || changes === null) drawing();
  document.body.dataset.shown = String(Number(document.body.dataset.shown ?? 0) + 1);
}

/** Names for rows whose query has left the roster's fields out. */
async function name() {
  const found = await roster();
  table.names = new Map(found.map(({ user_id, profile }) => [user_id, profile?.name?.full_name?.replace(/^testcase-/, "") ?? user_id]));
  table.update(table.rows, null);
}

/** The connection, or the answer as a whole, is in another state. */
function turned() {
  const { answer } = state;
  if (!answer) return;
  if (answer.error !== null && !state.expired) {
    wrong(answer.error);
    if (answer.complete || !answer.rows.size) get("answer").hidden = true;
    if (!state.live) done();
  } else if (answer.complete && !state.live) done();
  else if (answer.complete) wrong("");
  tell();
}

/** What the answer that is shown is behind with. */
const behind = () => (state.answer?.complete ? state.answer.behind : state.behind);

/** What was asked once is there: nobody need be connected for it. */
function done() {
  const { answer } = state;
  state.rows = answer.rows;
  state.behind = answer.behind;
  stop();
}

// -- in which state it is ----------------------------------------------------------------------------------------

function condition() {
  const { answer } = state;
  if (state.expired) return ["expired", "Access ended", "This page's access has ended. Open it again from the notebook, or with a new address."];
  if (state.unreachable || (answer && !answer.connected && answer.attempts > 0)) {
    return ["disconnected", "Disconnected", "No connection to the app. What is shown is from before; it is tried again by itself."];
  }
  const past = answer?.progress;
  if (past) {
    const share = past.total ? ` ${Math.floor((100 * past.done) / past.total)}%` : "";
    return ["past", "Reading the past", `The reducer ${past.reducer} goes through past events:${share}. The answer comes after.`];
  }
  if (get("wrong").textContent) return ["error", "Error", ""];
  if (answer && !answer.complete) return ["connecting", "Asking", ""];
  if (!answer) return ["ready", "Ready", ""];
  return Object.keys(answer.behind).length ? ["behind", "Behind", ""] : ["live", "Live", ""];
}

function tell() {
  const [name, word, said] = condition();
  const late = behindWords(behind(), state.reducers);
  get("behind").hidden = !late;
  if (get("behind").textContent !== late) get("behind").textContent = late;
  document.body.dataset.state = name;
  if (get("state").textContent !== word) get("state").textContent = word;
  get("notice").hidden = !said;
  if (get("notice").firstChild.textContent !== said) get("notice").firstChild.textContent = said;
}

// -- what a person can do ----------------------------------------------------------------------------------------

get("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
get("form").addEventListener("input", () => spell());
get("live").addEventListener("change", () => {
  if (get("live").checked) run();
  else if (state.answer) {
    done();
    state.live = false;
    show();
    tell();
  }
});
get("filter").addEventListener("input", () => list());
get("csv").addEventListener("click", () => save(`${state.chosen.name}.csv`, csv(...table.export())));
addEventListener("hashchange", () => {
  follow();
  if (matchMedia("(max-width: 860px)").matches) get("query").scrollIntoView();
});
addEventListener("online", () => state.answer?.hurry());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) state.answer?.hurry();
});

for (const each of document.querySelectorAll("a[data-page]")) each.href = access.link(each.dataset.page);
themed(get("theme"), () => {});
follow();
list();
setTimeout(look, LOOK_EVERY);
