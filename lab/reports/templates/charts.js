// What one does with a drawing: ask a mark, leave backends out, switch an axis. The marks are drawn already: here they
// are only moved along their axis, and rows closer together.

const SVG = document.createRange().createContextualFragment("<svg></svg>").firstChild.namespaceURI;

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A drawn thing that is bound to the axis: where it was drawn, and a way to put it elsewhere.
function bound(element) {
  if (element.tagName === "use") {
    const x = Number(element.getAttribute("x"));
    return (place) => element.setAttribute("x", place(x));
  }
  const tokens = element.getAttribute("d").trim().split(/\s+/);
  return (place) => {
    let isX = true;
    const moved = tokens.map((token) => {
      if (Number.isNaN(Number(token))) return token;
      const found = isX ? place(Number(token)) : token;
      isX = !isX;
      return found;
    });
    element.setAttribute("d", moved.join(" "));
  };
}

class Drawing {
  constructor(picture) {
    this.picture = picture;
    this.axis = JSON.parse(picture.dataset.panel);
    this.box = picture.getAttribute("viewBox").split(" ").map(Number);
    this.isLogarithmic = this.axis.log;
    this.groups = [...picture.querySelectorAll(":scope > [data-row]")];
    this.marks = this.groups.filter((group) => group.matches(".mark"));
    this.bound = [...picture.querySelectorAll(".scaled path, .scaled use")]
      .filter((each) => !each.closest("defs")).map(bound);
    this.ticks = picture.querySelectorAll(".axis .tick");
    picture.removeAttribute("role");
    picture.removeAttribute("aria-label");
    for (const mark of this.marks) {
      const title = mark.querySelector("title");
      mark.tip = title.textContent.split("\n");
      title.remove();  // or the browser would tell it a second time
      mark.setAttribute("role", mark.dataset.opens ? "button" : "img");
      mark.setAttribute("aria-label", mark.tip.join(". "));
      mark.setAttribute("tabindex", -1);
    }
    if (this.axis.switch) this.offerScale();
  }

  offerScale() {
    const head = this.picture.closest(".panel").querySelector(".head");
    const name = `logarithmic axis: ${head.textContent || "this figure"}`;
    const button = html("button", { type: "button", "aria-pressed": this.isLogarithmic, "aria-label": name }, "log");
    button.addEventListener("click", () => {
      this.isLogarithmic = !this.isLogarithmic;
      button.setAttribute("aria-pressed", this.isLogarithmic);
      this.arrange();
    });
    head.append(button);
  }

  // Show all but the rows and marks of `hidden` backends, without gaps, on an axis that ends where the data do.
  arrange(hidden = this.hidden ?? new Set()) {
    this.hidden = hidden;
    const { arms, pitch } = this.axis;
    const gone = (arms ?? []).map((arm) => hidden.has(arm));
    for (const group of this.groups) {
      const row = Number(group.dataset.row);
      group.style.display = hidden.has(group.dataset.of) ? "none" : "";
      const below = gone.slice(row + 1).filter(Boolean).length;
      if (below) group.setAttribute("transform", `translate(0 ${below * pitch})`);
      else group.removeAttribute("transform");
    }
    const cut = gone.filter(Boolean).length * pitch;
    const [x, y, width, height] = this.box;
    this.picture.setAttribute("viewBox", `${x} ${y + cut} ${width} ${height - cut}`);
    if (this.axis.log !== undefined) this.stretch();
  }

  stretch() {
    const { left, right, unit, prefix } = this.axis;
    const reaches = this.marks.filter((mark) => mark.dataset.reach && mark.style.display !== "none")
      .map((mark) => mark.dataset.reach.split(" ").map(Number));
    if (!reaches.length) return;
    const high = Math.max(...reaches.map(([, edge]) => edge));
    const least = Math.min(...reaches.map(([low]) => low).filter((low) => low > 0));
    const isLogarithmic = this.isLogarithmic && Number.isFinite(least);
    const scale = isLogarithmic ? logarithmic(least / 1.5, high * 1.08, unit) : linear(high * 1.01 || 1, unit, prefix);
    const { low: from, high: to, log: was } = this.axis;
    const value = (x) => {
      const share = (x - left) / (right - left);
      return was ? from * (to / from) ** share : from + share * (to - from);
    };
    // what is drawn from the left edge on starts there on every axis
    const place = (x) => Number((x <= left + 0.05 ? left : left + scale.share(value(x)) * (right - left)).toFixed(2));
    for (const move of this.bound) move(place);
    this.picture.classList.toggle("log", isLogarithmic);
    this.label(scale);
  }

  label(scale) {
    const { left, right, top, bottom, unit, prefix, base } = this.axis;
    const axis = this.picture.querySelector(".axis");
    for (const tick of axis.querySelectorAll(".tick")) tick.remove();
    for (const value of scale.ticks(Math.max(2, Math.floor((right - left) / (4.5 * base))))) {
      const x = left + scale.share(value) * (right - left);
      const said = format(value, unit, prefix);
      const inside = x + 0.23 * said.length * base < this.picture.viewBox.baseVal.width; // else the picture would cut it
      const anchor = inside ? "middle" : "end";
      const words = svg("text", { x, y: bottom + 1.2 * base, "text-anchor": anchor, "font-size": 0.82 * base }, said);
      axis.append(svg("g", { class: "tick" }, svg("line", { x1: x, x2: x, y1: top, y2: bottom }), words));
    }
  }
}

// One mark of a figure can be reached by Tab; arrows, Home and End go on from there.
function walk(event) {
  const marks = [...event.currentTarget.querySelectorAll(".mark")].filter((mark) => mark.checkVisibility());
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
