// One learner: what is known, and what came in last.

import { ago, at, counted, dateAndTime, element, timeOfDay, written } from "./text.js";

const REFRESH = 1000; // ms between two looks at the events, at least
const KEPT = 40;

export class Detail {
  constructor(dialog, access) {
    this.dialog = dialog;
    this.access = access;
    this.line = null;
    this.looked = 0;
    this.timer = null;
    this.title = dialog.querySelector("h2");
    this.facts = dialog.querySelector(".facts");
    this.values = dialog.querySelector(".values");
    this.events = dialog.querySelector(".events");
    this.none = dialog.querySelector(".none");
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside it
    });
    dialog.addEventListener("close", () => {
      clearTimeout(this.timer);
      this.line = null;
      if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    });
  }

  open(line) {
    if (!line) return;
    this.line = line;
    this.newest = 0;
    this.title.textContent = line.label;
    this.facts.textContent = line.student ?? "";
    this.events.replaceChildren();
    this.none.hidden = true;
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.querySelector(".body").scrollTop = 0;
    this.look();
  }

  /** Show the line's values, and its new events soon, when it is the one that is open. */
  update(lines, columns, now, changed) {
    if (!this.line) return;
    this.line = lines.get(this.line.key) ?? this.line;
    this.fill(columns, now);
    if (changed === null || changed.has(this.line.key)) {
      this.timer ??= setTimeout(() => this.look(), Math.max(0, this.looked + REFRESH - performance.now()));
    }
  }

  fill(columns, now) {
    const made = [];
    for (const { path, title, format, holds } of columns) {
      if (holds === "series") continue;
      made.push(element("div", {}, element("dt", {}, title), element("dd", {}, written(at(this.line.value, path), format, now))));
    }
    this.values.replaceChildren(...made);
    if (this.about) {
      const { user_id, events, last_seen, first_seen } = this.about;
      const parts = [user_id];
      if (last_seen) {
        parts.push(`${counted(events, "event")} since ${dateAndTime(first_seen)}`, `last ${ago(last_seen, now)}`);
      }
      this.facts.textContent = parts.join(" · ");
    }
  }

  async look() {
    this.timer = null;
    this.looked = performance.now();
    const { line } = this;
    if (!line?.student) return;
    const address = `webapi/learner/${encodeURIComponent(line.student)}?after=${this.newest}`;
    const answer = await this.access.fetch(address).catch(() => null);
    if (!answer?.ok || this.line?.student !== line.student) return;
    this.about = await answer.json();
    const { recent } = this.about;
    if (recent.length) this.newest = recent[0].n;
    this.events.prepend(...recent.map((event) => this.event(event)));
    while (this.events.children.length > KEPT) this.events.lastChild.remove();
    this.none.hidden = this.events.children.length > 0;
  }

  event({ time, event, about }) {
    const when = element("time", { datetime: new Date(time * 1000).toISOString() }, timeOfDay(time));
    return element("li", {}, when, element("strong", {}, event), element("code", {}, about));
  }
}
