// Downloads: the learners as CSV, a chart as PNG or SVG. All of it is made here; nothing is sent anywhere.

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function cell(value) {
  if (value === null || value === undefined) return "";
  let text = typeof value === "object" ? JSON.stringify(value) : String(value);
  // A spreadsheet would take such a text for a formula.
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** CSV as RFC 4180 has it, with a byte order mark, by which spreadsheets know that it is UTF-8. */
export function csv(header, rows) {
  const lines = [header, ...rows].map((row) => row.map(cell).join(","));
  return new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv;charset=utf-8" });
}

export async function picture(view, name, kind) {
  if (kind === "svg") {
    save(`${name}.svg`, new Blob([await view.toSVG()], { type: "image/svg+xml" }));
    return;
  }
  const canvas = await view.toCanvas(2);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  save(`${name}.png`, blob);
}
