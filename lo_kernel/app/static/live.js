// The app's answers, kept up to date: one websocket for each different query, which comes back by itself.

const FIRST_PAUSE = 500; // ms until the first attempt to connect again
const LONGEST_PAUSE = 8000;

/**
 * Who this page is to the app. Usually a cookie says it; a page inside another one gets no cookie, and then
 * the ticket of its address goes with each request. Where cookies work, the ticket leaves the address bar.
 */
export class Access {
  constructor(up) {
    this.up = up;
    const address = new URL(location.href);
    this.ticket = address.searchParams.get("token");
    this.framed = window.top !== window;
    this.useTicket = Boolean(this.ticket) && this.framed;
    if (this.ticket && !this.framed) {
      address.searchParams.delete("token");
      history.replaceState(history.state, "", address);
    }
  }

  /** The ticket, where the cookie was of no use. */
  tryTicket() {
    if (!this.ticket || this.useTicket) return false;
    this.useTicket = true;
    return true;
  }

  async fetch(path, options = {}) {
    const headers = this.useTicket ? { Authorization: `Bearer ${this.ticket}` } : {};
    const answer = await fetch(this.up + path, { ...options, headers, cache: "no-store" });
    if (answer.status === 401 && this.tryTicket()) return this.fetch(path, options);
    return answer;
  }

  socket(path) {
    const address = new URL(this.up + path, location.href);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    return new WebSocket(address, this.useTicket ? [`lo-token.${this.ticket}`] : []);
  }

  /** An address for a link; the ticket goes into it where it is one of the app's, and to nobody else. */
  link(path) {
    const home = new URL(this.up || "./", location.href);
    let address;
    try {
      address = new URL(path, home);
    } catch {
      return path; // a module's link that is no address
    }
    const ours = address.origin === location.origin && address.pathname.startsWith(home.pathname);
    if (this.useTicket && ours) address.searchParams.set("token", this.ticket);
    return address.href;
  }
}

/** One row of an answer, under the path that the app gave it. */
function rowOf(path) {
  const parts = path.split(".");
  const row = { path, student: null, part: "", value: {} };
  const rest = [];
  for (let place = 0; place + 1 < parts.length; place += 2) {
    const name = parts[place + 1].replaceAll("%2E", ".");
    if (parts[place] === "students") row.student = name;
    else rest.push(name);
  }
  row.part = rest.join(" · ");
  return row;
}

/** The name by which a row is known on pages: the learner's, else what it says of itself. */
export function nameOf(row, path) {
  const { profile, user_id } = row.value;
  const name = profile?.name?.full_name;
  const id = row.student ?? user_id;
  const who = name && name !== id ? String(name).replace(/^testcase-/, "") : id;
  if (who) return row.part ? `${who} · ${row.part}` : who;
  const text = Object.values(row.value).find((value) => typeof value === "string");
  return text ?? String(Number(path.split(".").at(-1)) + 1 || path);
}

/** The rows of one query. `onChange(paths)` gets the rows that changed, or null for all of them. */
export class Answer {
  constructor(access, query, { onChange, onState }) {
    this.access = access;
    this.query = query;
    this.onChange = onChange;
    this.onState = onState;
    this.rows = new Map();
    this.connected = false;
    this.complete = false;
    this.error = null;
    this.progress = null;
    this.behind = {}; // reducers whose states aren't the newest, and why
    this.attempts = 0;
    this.fresh = null;
    this.timer = null;
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    this.fresh = new Map(); // the snapshot to come: what is shown stays until it is whole
    const socket = this.access.socket("wsapi/communication_protocol");
    this.socket = socket;
    socket.addEventListener("open", () => {
      if (socket !== this.socket) return;
      this.connected = true;
      this.attempts = 0;
      this.error = null;
      socket.send(JSON.stringify({ q: { ...this.query, mark_complete: true, progress: true } }));
      this.onState();
    });
    socket.addEventListener("message", (event) => {
      if (socket === this.socket) this.take(JSON.parse(event.data));
    });
    socket.addEventListener("close", () => {
      if (socket === this.socket) this.lost();
    });
  }

  lost() {
    const before = this.connected;
    this.connected = false;
    this.progress = null;
    if (!before && this.attempts === 0 && this.access.tryTicket()) {
      this.open();
      return;
    }
    const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.attempts);
    this.attempts += 1;
    this.timer = setTimeout(() => this.open(), pause * (0.5 + Math.random() / 2));
    this.onState();
  }

  /** Connect anew at once, where there is no connection, or it is not to be trusted. */
  hurry(anyway = false) {
    if (this.connected && !anyway) return;
    const socket = this.socket;
    this.socket = null;
    socket.close();
    this.connected = false;
    this.open();
    this.onState();
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket.close();
  }

  take(messages) {
    const rows = this.fresh ?? this.rows;
    const changed = new Set();
    const behind = {};
    let whole = false;
    let state = false;
    let said = false; // a frame of an answer says what is behind, or else nothing is
    for (const { op, path, value, behind: marks } of messages) {
      said ||= op !== "progress" && (op !== "complete" || this.fresh?.size === 0);
      Object.assign(behind, marks);
      if (op === "complete") {
        this.rows = this.fresh ?? this.rows;
        this.fresh = null;
        this.complete = true;
        this.progress = null;
        whole = state = true;
      } else if (op === "progress") {
        this.progress = value;
        state = true;
      } else if (op === "delete") {
        rows.delete(path);
        changed.add(path);
        if (this.error !== null && path === this.query.target_exports[0]) {
          this.error = null;
          state = true;
        }
      } else if (op === "error" && (path === "q" || path === "request" || path === this.query.target_exports[0])) {
        this.error = value.error ?? this.error; // of one that was told, only what is new in it comes
        state = true;
      } else {
        let row = rows.get(path);
        if (!row) {
          row = rowOf(path);
          rows.set(path, row);
        }
        if (this.error !== null) {
          this.error = null;
          state = true;
        }
        row.error = op === "error" ? value.error : null;
        if (op !== "error") Object.assign(row.value, value);
        changed.add(path);
      }
    }
    if (said && JSON.stringify(behind) !== JSON.stringify(this.behind)) {
      this.behind = behind;
      state = true;
    }
    if (whole) this.onChange(null);
    else if (this.fresh === null && changed.size) this.onChange(changed);
    if (state) this.onState();
  }
}
