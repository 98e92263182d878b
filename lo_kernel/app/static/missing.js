// A dashboard that isn't there: why, and the way home.

import { Access } from "./live.js";
import { themed } from "./theme.js";

const access = new Access("../");
document.getElementById("reason").textContent = JSON.parse(document.getElementById("about").textContent).error;
for (const link of document.querySelectorAll("a.home")) link.href = access.link("");
themed(document.getElementById("theme"), () => {});
