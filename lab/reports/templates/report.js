// What a page of a report can do where scripts run; without them it is complete, only still. Nothing is fetched.

const { arms: known, charts } = JSON.parse(document.getElementById("charts").textContent);
const hidden = new Set();
const drawings = [];

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Stripes mark what was emulated. They are defined once for the page, in a picture without any extent.
function defineStripes() {
  const definitions = svg("defs");
  known.forEach((arm, index) => {
    arm.pattern = arm.striped ? `url(#stripes-${index})` : arm.fill;
    if (!arm.striped) return;
    const look = { id: `stripes-${index}`, width: 9, height: 9, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
    definitions.append(svg("pattern", look, box(0, 0, 9, 9, { fill: arm.fill }), box(0, 0, 2, 9, { fill: "var(--card)" })));
  });
  document.body.append(svg("svg", { width: 0, height: 0, class: "unseen", "aria-hidden": "true" }, definitions));
}

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

// One mark of a chart can be reached by Tab; arrows, Home and End go on from there.
function walk(event) {
  const marks = [...event.currentTarget.querySelectorAll(".mark")];
  const here = marks.indexOf(document.activeElement);
  const steps = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: marks.length - 1 };
  const next = marks[steps[event.key]];
  if (here < 0 || !(event.key in steps)) return;
  event.preventDefault();
  if (!next) return;
  marks[here].setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
}

// ---- the charts

class Drawing {
  constructor(figure, chart) {
    this.arms = new Map(known.map((arm) => [arm.label, arm]));
    this.panels = chart.panels.map((panel) => ({ panel, isLogarithmic: panel.logarithmic, place: html("div") }));
    const title = html("p", { class: "title" }, html("b", {}, chart.title), html("small", {}, chart.how));
    const label = `${chart.title}. Arrow keys move from mark to mark, Escape closes what a mark says.`;
    this.chart = html("div", { class: "panels", role: "group", "aria-label": label });
    this.chart.append(...this.panels.map((each) => this.frame(each)));
    this.chart.addEventListener("keydown", walk);
    figure.prepend(title, this.chart);
    figure.classList.add("live");
    new ResizeObserver(() => requestAnimationFrame(() => this.draw(false))).observe(this.chart);
  }

  frame(each) {
    const { title, logarithmic: start, legend } = each.panel;
    const head = html("div", { class: "head" }, html("b", {}, title));
    if (start !== null) {
      const name = `logarithmic axis: ${title}`;
      const button = html("button", { type: "button", "aria-pressed": start, "aria-label": name }, "log");
      button.addEventListener("click", () => {
        each.isLogarithmic = !each.isLogarithmic;
        button.setAttribute("aria-pressed", each.isLogarithmic);
        this.draw(true);
      });
      head.append(button);
    }
    const words = legend.map(([fill, text]) => {
      const swatch = html("i", fill === "diamond" ? { class: "diamond" } : {});
      if (fill !== "diamond") swatch.style.background = fill;
      return html("li", {}, swatch, text);
    });
    return html("div", { class: `panel ${each.panel.kind}` }, head, each.place, ...(words.length ? [html("ul", { class: "legend" }, ...words)] : []));
  }

  // `anew` when the width is the same but what is to be shown is not.
  draw(anew) {
    for (const { panel, isLogarithmic, place } of this.panels) {
      const width = Math.floor(place.clientWidth);
      if (!width || (!anew && place.drawnAt === width)) continue;
      place.drawnAt = width;
      const rows = panel.rows.filter((row) => !hidden.has(row.arm));
      const picture = rows.length ? KINDS[panel.kind]({ ...panel, rows }, this.arms, width, isLogarithmic) : "";
      place.replaceChildren(picture);
    }
    if (!this.chart.querySelector('.mark[tabindex="0"]')) this.chart.querySelector(".mark")?.setAttribute("tabindex", 0);
  }
}

// ---- which backends are shown

function choose() {
  const says = html("span", { role: "status" });
  const all = html("button", { type: "button", hidden: "" }, "show all");
  const buttons = known.map((arm) => {
    const swatch = svg("svg", { width: 18, height: 16, "aria-hidden": "true" },
      shape(arm.marker, 9, 8, 6.5, { fill: arm.fill, stroke: arm.ink }));
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
    for (const drawing of drawings) drawing.draw(true);
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
  const bar = html("div", { class: "bar", role: "group", "aria-label": "Backends shown" }, html("span", {}, "Show"), ...buttons, all, says);
  document.querySelector("main").prepend(bar);
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
  const groups = ["every group", ...bodies.map((body) => body.rows[0].textContent.trim())];
  const field = (label, control) => html("label", {}, label, control);
  const select = (names) => html("select", {}, ...names.map((name) => html("option", {}, name)));
  const [words, group, outcome] = [html("input", { type: "search" }), select(groups), select(Object.keys(OUTCOMES))];
  const says = html("span", { role: "status" });
  const opener = html("button", { type: "button", "aria-pressed": "false" }, "open all");

  function filter() {
    let shown = 0;
    const wanted = words.value.trim().toLowerCase();
    for (const [index, body] of bodies.entries()) {
      const rows = [...body.rows].slice(1);
      for (const row of rows) {
        const cells = [...row.querySelectorAll("td:not([hidden]) > .cell")];
        const isMatch = !wanted || `${row.textContent} ${row.id}`.toLowerCase().includes(wanted);
        row.hidden = !(isMatch && [0, index + 1].includes(group.selectedIndex) && OUTCOMES[outcome.value](cells));
        shown += !row.hidden;
      }
      body.hidden = rows.every((row) => row.hidden);
    }
    const total = matrix.querySelectorAll("tr[id]").length;
    says.textContent = shown === total ? `${total} questions` : `${shown} of ${total} questions`;
  }

  opener.addEventListener("click", () => {
    const isOpen = opener.getAttribute("aria-pressed") === "false";
    opener.setAttribute("aria-pressed", isOpen);
    for (const cell of matrix.querySelectorAll("tr:not([hidden]) details")) cell.open = isOpen;
  });
  const bar = html("div", { class: "bar filter", role: "group", "aria-label": "Questions shown" },
    field("Words", words), field("Group", group), field("Answer", outcome), opener, says);
  for (const control of [words, group, outcome]) control.addEventListener("input", filter);
  document.addEventListener("chosen", filter);
  matrix.closest(".scroll").before(bar);
  filter();
}

defineStripes();
listen();
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  if (charts[figure.dataset.chart]) drawings.push(new Drawing(figure, charts[figure.dataset.chart]));
}
if (known.length > 1) choose();
document.querySelectorAll("table.matrix").forEach(filterMatrix);
[...document.querySelectorAll("table.sortable")].filter((table) => table.tBodies[0].rows.length > 2).forEach(makeSortable);
