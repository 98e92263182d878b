// Light or dark: the system's, until somebody chooses. The choice is kept in this browser.

const KEY = "lo_kernel.theme";

function kept() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a page inside another may not keep anything
  }
}

const system = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

/** Wire the button, and call `onChange` whenever the theme becomes another. */
export function themed(button, onChange) {
  const chosen = kept();
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  const show = () => {
    button.setAttribute("aria-label", isDark() ? "Switch to the light theme" : "Switch to the dark theme");
    button.title = button.getAttribute("aria-label");
    button.dataset.dark = String(isDark());
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // it holds until the page is closed
    }
    show();
    onChange();
  });
  system.addEventListener("change", () => {
    show();
    onChange();
  });
  show();
}

/** The colours that the page has now, for what is drawn by Vega. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ground: of("--surface"), text: of("--text"), quiet: of("--quiet"), line: of("--line") };
}
