// What the three pages have in common. Texts of people become text nodes, never HTML; what is inserted as HTML is a
// lesson's Markdown, which the server has rendered without any HTML of its own.

export const LETTERS = "ABCDEFGHIJKL";
const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function written(html, className = "written") {
  const made = el("div", { class: className });
  made.innerHTML = html;
  for (const link of made.querySelectorAll("a")) { link.rel = "noopener noreferrer"; link.target = "_blank"; }
  return made;
}

export async function post(path, sent) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) });
  } catch {
    throw new Error("no connection; try again");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `refused (${answer.status})`);
  return told;
}

export function listen(path, told, gone = () => {}) {
  // A stream that breaks is opened again by the browser; one that was refused is not, so it is asked anew.
  let stream;
  const open = () => {
    stream = new EventSource(path);
    stream.onmessage = (event) => { say(""); told(JSON.parse(event.data)); };
    stream.addEventListener("gone", () => { stream.close(); gone(); });
    stream.onerror = async () => {
      const refused = stream.readyState === EventSource.CLOSED && await whyNot(path);
      say(refused || "No connection. Trying again …");
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, 2000);
    };
  };
  open();
  return () => stream.close();
}

async function whyNot(path) {
  // An event stream that is refused does not say why; a plain request does.
  const asked = new AbortController();
  try {
    const answer = await fetch(path, { signal: asked.signal });
    return answer.ok ? "" : (await answer.json()).error;
  } catch {
    return "";
  } finally {
    asked.abort();
  }
}

function say(trouble) {
  const line = document.getElementById("connection");
  if (line) line.textContent = trouble;
}

export function fill(place, ...children) {
  place.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

const bars = (votes) => (votes.second === null ? ["first"] : ["first", "second"]);

export function chart(drawn, asked) {
  return drawn.ticks ? numbers(drawn, asked) : choices(drawn);
}

export function measuring(live) {
  // What is measured now; nothing of what it found.
  if (!live) return null;
  if (live.state !== "measuring") return el("p", { class: "live" }, live.state === "over" ? "The run is measured." : "The measurement has ended early: questions are answered by what it found until then.");
  const share = live.expected ? el("progress", { max: live.expected, value: live.done, "aria-label": "Measured so far" }) : null;
  return el("p", { class: "live" }, "Measuring now: ", el("span", {}, live.what || "it begins"), " ", share, live.expected ? ` ${live.done} of ${live.expected}` : "");
}

export function legend(drawn) {
  if (drawn.second === null) return null;
  return el("p", { class: "key" }, el("i", { class: "first" }), `before the discussion (${drawn.first})  `, el("i", { class: "second" }), "after it");
}

function choices(drawn) {
  const most = Math.max(1, ...drawn.bars.flatMap((bar) => bars(bar).map((vote) => bar[vote])));
  const rows = drawn.bars.map((bar, place) => {
    const lines = bars(bar).map((vote) => {
      const line = el("div", { class: `line ${vote}` });
      line.style.width = `${(100 * bar[vote]) / most}%`;
      return el("div", { class: "row" }, el("div", { class: "track" }, line), el("b", {}, `${bar[vote]}`));
    });
    return el("li", { class: bar.right ? "right" : "" },
      el("div", { class: "what" }, el("span", { class: "letter" }, LETTERS[place]), el("span", {}, bar.text), bar.right ? el("strong", {}, "✓ measured") : null), ...lines);
  });
  return el("ol", { class: "choices drawn" }, ...rows);
}

function numbers(drawn, asked) {
  if (typeof drawn.value !== "number" && !drawn.bars.some((bar) => bar.first || bar.second)) return el("p", { class: "quiet" }, "No guesses.");
  const width = 1000, height = 420, base = 340, top = 70;
  const x = (place) => 20 + place * (width - 40);
  const most = Math.max(1, ...drawn.bars.flatMap((bar) => bars(bar).map((vote) => bar[vote])));
  const parts = [], counts = [];
  if (typeof drawn.low === "number" && typeof drawn.high === "number") {
    parts.push(svg("rect", { class: "interval", x: x(drawn.low), y: top - 24, width: Math.max(3, x(drawn.high) - x(drawn.low)), height: base - top + 24 }));
  }
  for (const bar of drawn.bars) {
    const votes = bars(bar), wide = (x(bar.left + bar.width) - x(bar.left) - 6) / votes.length;
    votes.forEach((vote, place) => {
      if (!bar[vote]) return;
      const tall = ((base - top) * bar[vote]) / most, left = x(bar.left) + 3 + place * wide;
      parts.push(svg("rect", { class: vote, x: left, y: base - tall, width: Math.max(2, wide - 2), height: tall }));
      const number = svg("text", { x: left + wide / 2, y: base - tall - 8, "text-anchor": "middle" });
      number.textContent = bar[vote];
      counts.push(number);
    });
  }
  parts.push(svg("line", { class: "axis", x1: 20, x2: width - 20, y1: base, y2: base }));
  for (const tick of drawn.ticks) {
    parts.push(svg("line", { class: "axis", x1: x(tick.at), x2: x(tick.at), y1: base, y2: base + 8 }));
    const text = svg("text", { class: "tick", x: x(tick.at), y: base + 36, "text-anchor": "middle" });
    text.textContent = tick.label;
    parts.push(text);
  }
  if (typeof drawn.value === "number") {
    parts.push(svg("line", { class: "measured", x1: x(drawn.value), x2: x(drawn.value), y1: top - 30, y2: base }));
    const end = drawn.value > 0.8 ? "end" : drawn.value < 0.2 ? "start" : "middle";
    const text = svg("text", { class: "measured", x: x(drawn.value), y: top - 40, "text-anchor": end });
    text.textContent = `measured: ${asked.answer.says}`;
    parts.push(text);
  }
  parts.push(...counts);  // over the line
  const said = drawn.bars.filter((bar) => bar.first || bar.second).length;
  return svg("svg", { class: "numbers", viewBox: `0 0 ${width} ${height - 30}`, role: "img", "aria-label": `Guesses in ${said} groups along an axis` }, ...parts);
}

export function answer(asked) {
  const found = asked.answer;
  if (found.reason) {
    return el("div", { class: "measurement none" }, el("p", { class: "says" }, "This run can’t tell."), el("p", {}, `${found.reason}.`),
      found.needs ? el("p", {}, "A run that can: ", el("code", {}, found.needs)) : null);
  }
  return el("div", { class: "measurement" }, el("p", { class: "says" }, found.says), el("p", { class: "sure" }, found.sure),
    ...found.notes.map((note) => el("p", { class: "also" }, note)));
}
