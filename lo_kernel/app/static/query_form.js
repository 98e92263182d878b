// The form of a query's parameters: a field for each, and the values that it holds.

import { element } from "./text.js";

const HINTS = { number: "a number", text: "text", list: "a JSON list", object: "a JSON object", "yes or no": "yes or no", any: "text, a number or JSON" };

/** What somebody wrote, as the type wants it; throws an Error that says what was expected. */
export function valueOf(text, type) {
  const given = text.trim();
  if (type === "text") return text;
  if (type === "number") {
    const number = Number(given.replace(",", "."));
    if (!Number.isFinite(number)) throw new Error(`expected a number, got “${given}”`);
    return number;
  }
  if (type === "yes or no") return given === "true";
  let read;
  try {
    read = JSON.parse(given);
  } catch {
    if (type === "any") return text;
    throw new Error(`expected ${HINTS[type]}, got text that is not`);
  }
  const fits = type === "any" || (type === "list" ? Array.isArray(read) : read !== null && typeof read === "object" && !Array.isArray(read));
  if (!fits) throw new Error(`expected ${HINTS[type]}, got ${given.slice(0, 60)}`);
  return read;
}

const written = (value) => (value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));

export class ParameterForm {
  /** `offers` gives `{courses, anyCourse, learners()}`, the last a promise of `[{user_id, profile}]`. */
  constructor(holder, offers) {
    this.holder = holder;
    this.offers = offers;
    this.fields = [];
  }

  /** Fields for these parameters; what was written into one of the same name and type stays. */
  show(parameters) {
    const before = new Map(this.fields.map(({ parameter, input }) => [`${parameter.name} ${parameter.type}`, input.value]));
    this.fields = parameters.map((parameter, place) => this.field(parameter, place, before.get(`${parameter.name} ${parameter.type}`)));
    this.holder.replaceChildren(...this.fields.map(({ shown }) => shown));
  }

  field(parameter, place, kept) {
    const { name, type, required, offer } = parameter;
    const id = `parameter-${place}`;
    const problem = element("p", { class: "problem", id: `${id}-problem` });
    const about = { id, name, "aria-required": String(required), "aria-describedby": problem.id };
    const input = this.input(parameter, about, place);
    if (kept !== undefined) input.value = kept;
    const note = [required ? "required" : "may be left out", offer === "courses" ? "a course" : offer === "learners" ? "a learner" : HINTS[type]];
    const label = element("label", { for: id }, name, " ", element("small", {}, note.reverse().join(", ")));
    input.addEventListener("input", () => {
      input.removeAttribute("aria-invalid");
      problem.textContent = "";
    });
    return { parameter, input, problem, shown: element("div", {}, label, input, problem) };
  }

  input({ name, type, required, default: standard, offer }, about, place) {
    const without = required ? "" : standard === null || standard === undefined ? "left out" : `left out: ${written(standard)}`;
    if (offer === "courses" && !this.offers.anyCourse) {
      const all = element("option", { value: "" }, required ? "Choose a course" : "All courses");
      return element("select", about, all, ...this.offers.courses.map(({ id, name: title }) => element("option", { value: id }, title)));
    }
    if (type === "yes or no") {
      const options = [["", without || "Choose"], ["true", "yes"], ["false", "no"]];
      return element("select", about, ...options.map(([value, text]) => element("option", { value }, text)));
    }
    const input = element("input", { ...about, type: "text", inputmode: type === "number" ? "decimal" : false, autocomplete: "off", spellcheck: "false", placeholder: without });
    if (offer) {
      const list = element("datalist", { id: `offered-${place}` });
      input.setAttribute("list", list.id);
      if (offer === "courses") list.append(...this.offers.courses.map(({ id, name: title }) => element("option", { value: id, label: title })));
      // Who is in the class goes on record when it is read: not before somebody is at the field.
      else {
        input.addEventListener("focus", async () => {
          for (const { user_id, profile } of await this.offers.learners()) {
            list.append(element("option", { value: user_id, label: profile?.name?.full_name ?? user_id }));
          }
        }, { once: true });
      }
      this.holder.after(list);
    }
    return input;
  }

  /** The values that were given, or null where one of them can't be read; the field then says why. */
  values() {
    const given = {};
    let first = null;
    for (const { parameter, input, problem } of this.fields) {
      problem.textContent = "";
      input.removeAttribute("aria-invalid");
      if (input.value.trim() === "") {
        if (!parameter.required) continue;
        problem.textContent = "expected a value, got none";
      } else {
        try {
          given[parameter.name] = valueOf(input.value, parameter.type);
          continue;
        } catch (error) {
          problem.textContent = error.message;
        }
      }
      input.setAttribute("aria-invalid", "true");
      first ??= input;
    }
    first?.focus();
    return first ? null : given;
  }
}
