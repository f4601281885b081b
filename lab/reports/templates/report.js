// What a page of a report can do where scripts run; without them it is complete, only still. Nothing is fetched.

const known = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const drawings = [];

// ---- what a mark says when it is pointed at or focused

const tip = html("div", { class: "tip", role: "tooltip", id: "tip", hidden: "" });
let told = null;

function tell(target) {
  told = target;
  tip.replaceChildren(...target.tip.map((text, index) => html(index ? "div" : "b", {}, text)));
  tip.hidden = false;
  const around = (target.querySelector(".shape") ?? target).getBoundingClientRect();
  const left = around.left + Math.min(around.width, 60) / 2 - 20;
  const fits = around.top > tip.offsetHeight + 8;
  const top = fits ? around.top - tip.offsetHeight - 2 : around.bottom + 2;
  const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${scrollX + Math.max(8, Math.min(left, most))}px`;
  tip.style.top = `${scrollY + top}px`;
}

function hush() {
  tip.hidden = true;
  told = null;
}

function listen() {
  document.querySelector("main").append(tip);
  document.addEventListener("pointerover", (event) => {
    const target = event.target.closest?.(".mark, .tip");
    if (target?.tip) tell(target);
    else if (!target && told && !told.matches(":focus-visible")) hush();
  });
  document.addEventListener("focusin", (event) => (event.target.tip ? tell(event.target) : hush()));
  document.addEventListener("focusout", hush);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hush();
  });
}

// ---- the drawings

function enliven(figure) {
  figure.classList.add("live");
  const panels = figure.querySelector(".panels");
  const title = figure.querySelector(".title b").textContent;
  panels.setAttribute("role", "group");
  panels.setAttribute("aria-label", `${title}. Arrow keys move from mark to mark, Escape closes what a mark says.`);
  panels.addEventListener("keydown", walk);
  drawings.push(...[...panels.querySelectorAll("svg.chart")].map((picture) => new Drawing(picture)));
  enter(panels);
}

// Some visible mark of each figure can be reached by Tab.
function enter(panels) {
  const marks = [...panels.querySelectorAll(".mark")].filter((mark) => mark.style.display !== "none");
  if (marks.some((mark) => mark.getAttribute("tabindex") === "0")) return;
  marks[0]?.setAttribute("tabindex", 0);
}

// ---- which backends are shown

function choose() {
  const says = html("span", { role: "status" });
  const all = html("button", { type: "button", hidden: "" }, "show all");
  const buttons = known.map((arm) => {
    const swatch = html("i", { "aria-hidden": "true" });
    swatch.style.background = arm.fill;
    const button = html("button", { type: "button", "aria-pressed": "true", "data-for": arm.label }, swatch, arm.label);
    button.addEventListener("click", () => {
      if (hidden.has(arm.label)) hidden.delete(arm.label);
      else if (hidden.size < buttons.length - 1) hidden.add(arm.label);
      show();
    });
    return button;
  });
  function show() {
    for (const button of buttons) button.setAttribute("aria-pressed", !hidden.has(button.dataset.for));
    for (const cell of document.querySelectorAll("[data-arm]")) cell.hidden = hidden.has(cell.dataset.arm);
    for (const drawing of drawings) drawing.arrange(hidden);
    for (const panels of document.querySelectorAll("figure.live .panels")) enter(panels);
    if (!hidden.size && document.activeElement === all) buttons[0].focus();
    all.hidden = !hidden.size;
    const shown = buttons.length - hidden.size;
    says.textContent = hidden.size ? `${shown} of ${buttons.length} shown${shown === 1 ? "; the last one stays" : ""}` : "";
    document.dispatchEvent(new Event("chosen"));
  }
  all.addEventListener("click", () => {
    hidden.clear();
    show();
  });
  const shown = known.length > 1 ? [html("span", {}, "Show"), ...buttons, all, says] : [];
  const bar = html("div", { class: "bar", role: "group", "aria-label": "What is shown" }, ...shown);
  document.querySelector(".first").after(bar);
  return bar;
}

// ---- sections that are folded: all at once, and for paper

function foldAll(bar) {
  const sections = [...document.querySelectorAll("details.section")];
  const button = html("button", { type: "button", "aria-pressed": "false", class: "fold" }, "open all sections");
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", isOpen);
    for (const section of sections) section.open = isOpen;
  });
  bar.append(button);
}

// ---- the isolation matrix: by words, by group, by what was answered

const OUTCOMES = {
  "any answer": () => true,
  "reaches the host": (cells) => cells.some((cell) => cell.matches(".open")),
  "its own only": (cells) => cells.some((cell) => cell.matches(".own")),
  "stopped": (cells) => cells.some((cell) => cell.matches(".closed")),
  "not known": (cells) => cells.some((cell) => cell.matches(".unknown")),
  "not what was expected": (cells) => cells.some((cell) => cell.matches(".unexpected")),
  "backends differ": (cells) => new Set(cells.map((cell) => cell.dataset.reach)).size > 1,
};

function filterMatrix(matrix) {
  const bodies = [...matrix.tBodies];
  const names = bodies.map((body) => body.rows[0].textContent.trim());
  const field = (label, control) => html("label", {}, label, control);
  const select = (choices) => html("select", {}, ...choices.map((name) => html("option", {}, name)));
  const words = html("input", { type: "search" });
  const [group, outcome] = [select(["every group", ...names]), select(Object.keys(OUTCOMES))];
  const whose = select(["any backend", ...known.map((arm) => arm.label)]);
  const says = html("span", { role: "status" });
  const opener = html("button", { type: "button", "aria-pressed": "false" }, "open all");

  function filter() {
    let shown = 0;
    const wanted = words.value.trim().toLowerCase();
    for (const [index, body] of bodies.entries()) {
      const rows = [...body.rows].slice(1);
      for (const row of rows) {
        const cells = [...row.querySelectorAll("td:not([hidden]) > .cell")]
          .filter((cell) => !whose.selectedIndex || cell.parentElement.dataset.arm === whose.value);
        const isMatch = !wanted || `${row.textContent} ${row.id}`.toLowerCase().includes(wanted);
        row.hidden = !(isMatch && [0, index + 1].includes(group.selectedIndex) && OUTCOMES[outcome.value](cells));
        shown += !row.hidden;
      }
      body.hidden = rows.every((row) => row.hidden);
    }
    const total = matrix.querySelectorAll("tr[id]").length;
    says.textContent = shown === total ? `${total} questions` : `${shown} of ${total} questions`;
  }

  // A bar of counts was pressed: show the questions that it counts.
  function ask(mark) {
    words.value = "";
    outcome.value = { open: "reaches the host", own: "its own only", closed: "stopped", unknown: "not known" }[mark.dataset.opens];
    whose.value = mark.dataset.of;
    group.selectedIndex = names.findIndex((name) => name.toLowerCase() === (mark.dataset.group ?? "").toLowerCase()) + 1;
    filter();
    matrix.closest("details.section").open = true;
    bar.scrollIntoView();
    outcome.focus();
  }

  opener.addEventListener("click", () => {
    const isOpen = opener.getAttribute("aria-pressed") === "false";
    opener.setAttribute("aria-pressed", isOpen);
    for (const cell of matrix.querySelectorAll("tr:not([hidden]) details")) cell.open = isOpen;
  });
  const bar = html("div", { class: "bar filter", role: "group", "aria-label": "Questions shown" },
    field("Words", words), field("Group", group), field("Answer", outcome), field("of", whose), opener, says);
  for (const control of [words, group, outcome, whose]) control.addEventListener("input", filter);
  document.addEventListener("chosen", filter);
  for (const mark of document.querySelectorAll(".mark[data-opens]")) {
    mark.addEventListener("click", () => ask(mark));
    mark.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && (event.preventDefault(), ask(mark)));
  }
  matrix.closest(".scroll").before(bar);
  filter();
}

// ---- a report that is still growing looks again, with what was open still open

const GIVEN_UP = 1800;  // seconds without a new page: what measured has ended otherwise

function grow() {
  const key = `open ${location.pathname}`;
  const sections = [...document.querySelectorAll("details.section")];
  const ids = sections.map((section) => section.getAttribute("aria-labelledby"));
  try {
    const kept = JSON.parse(sessionStorage.getItem(key) ?? "null");
    for (const [index, section] of sections.entries()) section.open ||= kept?.includes(ids[index]) ?? false;
    sessionStorage.removeItem(key);
  } catch { /* a browser that keeps nothing for files: sections close */ }
  const growing = document.querySelector(".growing");
  if (!growing || Date.now() / 1000 - growing.dataset.written > GIVEN_UP) return;
  setTimeout(() => {
    try {
      sessionStorage.setItem(key, JSON.stringify(ids.filter((_, index) => sections[index].open)));
    } catch { /* see above */ }
    location.reload();
  }, growing.dataset.again * 1000);
}

listen();
document.querySelectorAll("figure.chart-of").forEach(enliven);
foldAll(choose());
document.querySelectorAll("table.matrix").forEach(filterMatrix);
[...document.querySelectorAll("table.sortable")].filter((table) => table.tBodies[0].rows.length > 2).forEach(makeSortable);
addEventListener("beforeprint", () => document.querySelectorAll("details.section, .mind > details").forEach((each) => { each.open = true; }));
grow();
