// The home page: what runs here, looked at every two seconds.

import { Access } from "./live.js";
import { counted, element, figure } from "./text.js";
import { themed } from "./theme.js";

const LOOK_EVERY = 2000; // ms

const access = new Access("");
const get = (id) => document.getElementById(id);

/** Put children into an element, unless they say what is there already: a reader may be in the middle of it. */
function put(holder, children, key) {
  const said = JSON.stringify(key);
  if (holder.dataset.said === said) return;
  holder.dataset.said = said;
  holder.replaceChildren(...children);
}

function tile([name, value]) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, figure(value)));
}

function link({ id, title, url, panels, source }) {
  const from = source === "notebook" ? "of the notebook" : source && source !== title && `of ${source}`;
  const note = [id, panels && counted(panels, "panel"), from];
  return element("li", {}, element("a", { href: access.link(url) }, title), element("span", {}, note.filter(Boolean).join(", ")));
}

function reducer({ id, context, status, done, total, events, errors, last_error }) {
  const word = status === "catching up" && total ? `catching up, ${Math.floor((100 * done) / total)}%` : status;
  return element(
    "tr",
    { class: errors || status === "failed" ? "failing" : "" },
    element("th", { scope: "row" }, id),
    element("td", {}, context),
    element("td", {}, element("span", { class: "word", "data-word": status }, word)),
    element("td", { class: "figure" }, figure(events)),
    element("td", { class: "figure" }, figure(errors), last_error ? element("small", {}, last_error) : null),
  );
}

function module({ name, title, version, reducers, queries, error, problems, not_served }) {
  const wrong = error ? [`could not be loaded: ${error}`] : [...problems, ...not_served.map((what) => `not served: ${what}`)];
  const has = error ? "" : `${counted(reducers, "reducer")}, ${counted(queries, "query", "queries")}`;
  return element(
    "li",
    { class: error ? "failing" : "" },
    element("strong", {}, title),
    element("span", {}, [`${name} ${version}`.trim(), has].filter(Boolean).join(" · ")),
    ...wrong.map((what) => element("small", {}, what)),
  );
}

function show(about) {
  const { version, workspace, owner, learners, active, sources, events, events_per_second: rate } = about;
  get("facts").textContent = `${version} · workspace ${workspace}${owner ? "" : ", followed"}`;
  const tiles = Object.entries({ Learners: learners, "Active now": active, Sources: sources, Events: events, "Events/s": rate < 10 ? rate : Math.round(rate) });
  put(get("tiles"), tiles.map(tile), tiles);
  const links = [...about.dashboards, ...about.links];
  const none = (text) => [element("li", { class: "waiting" }, text)];
  put(get("dashboards"), links.length ? links.map(link) : none("None yet: in a notebook, lo.dashboard(...) or lo.overview() makes one."), links);
  put(get("courses"), about.courses.map(({ name, id }) => element("li", {}, element("strong", {}, name), element("span", {}, id))), about.courses);
  const rows = about.reducers.length
    ? about.reducers.map(reducer)
    : [element("tr", {}, element("td", { colspan: "5", class: "waiting" }, "None yet: in a notebook, @lo.reducer(...) adds one."))];
  put(get("reducers"), rows, about.reducers);
  get("modules-panel").hidden = !about.modules.length;
  put(get("modules"), about.modules.map(module), about.modules);
  put(
    get("docs"),
    about.docs
      ? [element("a", { href: about.docs, rel: "noreferrer" }, "Documentation")]
      : ["Documentation: the folder docs of the project; in a notebook, lo? and lo.dashboard? show what there is."],
    about.docs,
  );
}

function tell(name, word, text) {
  document.body.dataset.state = name;
  get("state").textContent = word;
  get("notice").hidden = !text;
  get("notice").firstChild.textContent = text;
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await access.fetch("home.json");
      if (answer.status === 401) {
        tell("expired", "Access ended", "This page's access has ended. Open it again from the notebook, or with a new address.");
      } else {
        show(await answer.json());
        tell("live", "Live", "");
      }
    } catch {
      tell("disconnected", "Disconnected", "No connection to the app. It is tried again by itself.");
    }
  }
  setTimeout(look, LOOK_EVERY);
}

for (const each of document.querySelectorAll("a[data-page]")) each.href = access.link(each.dataset.page);
themed(get("theme"), () => {});
show(JSON.parse(get("about").textContent));
tell("live", "Live", "");
setTimeout(look, LOOK_EVERY);
