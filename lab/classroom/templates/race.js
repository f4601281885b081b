// A race that was recorded, again; or one that happens, which live.js hears of. The page has every start's marks; where a
// lane is at a moment is computed from them (lab/classroom/race/model.py says the same in Python). Between two stations
// nobody knows how far it has come.

let race = JSON.parse(document.getElementById("data").textContent);
const SPEEDS = [0.01, 0.1, 0.25, 0.5, 1, 2, 5, 10, 100];
const still = matchMedia("(prefers-reduced-motion: reduce)");
const STILL_MS = 500; // how often a number changes for eyes that want no motion
const ordinal = (place) => `${place}${{ 1: "st", 2: "nd", 3: "rd" }[place] ?? "th"}`;
const byId = (id) => document.getElementById(id);

const MANY_ROWS = 8; // more of them have their stations' names above, and one line each

let place = 0, speed = 1, base = 0, since = null, drawn = 0, lanes = [], said = "";
let live = null; // of a race that happens: what the server says of it, until it has ended

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const round = () => race.rounds[place];
const ends = (lane, factor) => (lane.finish ?? 0) * factor;
const happens = () => live !== null && live.state === "running" && live.place === place;
const isSlowed = (lane) => race.slow.lanes.includes(lane.name);
const end = () => (happens() ? Infinity : Math.max(0, ...round().lanes.map((lane) => ends(lane, isSlowed(lane) ? race.slow.factor : 1))));
const total = () => live?.rounds ?? race.rounds.length;
const at = (now) => Math.min(end(), base + (since === null ? 0 : ((now - since) / 1000) * speed));
const waits = () => since === null && base === 0;

function watch(seconds) {
  const tenths = Math.round(seconds * 10) / 10;
  if (seconds < 59.9995) return `${seconds.toFixed(3)} s`;
  return `${Math.floor(tenths / 60)}:${(tenths % 60).toFixed(1).padStart(4, "0")}`;
}

function lay() {
  lanes = round().lanes.flatMap((lane) => (isSlowed(lane) ? [laid(lane, 1), laid(lane, race.slow.factor)] : [laid(lane, 1)]));
  byId("lanes").replaceChildren(...lanes.map((each) => each.row));
  byId("heads").replaceChildren(...race.stations.map((station) => el("span", {}, el("span", { class: "long" }, station.label), el("span", { class: "short" }, station.short))));
  byId("heads").style.setProperty("--count", race.stations.length);
  document.documentElement.style.setProperty("--rows", lanes.length);
  document.documentElement.classList.toggle("many", lanes.length > MANY_ROWS);
  byId("podium").replaceChildren();
  byId("wins").textContent = "";
  said = "";
}

function laid(lane, factor) {
  const slow = factor > 1;
  const who = slow
    ? el("div", { class: "who" }, el("b", {}, `${factor} × slower`), el("small", {}, "the same start"))
    : el("div", { class: "who", style: `color: ${lane.colour}` }, el("b", {}, `${lane.symbol} ${lane.name}`), el("small", {}, lane.how));
  const cells = race.stations.map((station) => {
    const took = el("span", { class: "took" });
    const label = el("span", { class: "label" }, el("span", { class: "long" }, station.label), el("span", { class: "short" }, station.short));
    return { took, cell: el("li", { class: "cell", style: `--fill: ${station.fill}; --text: ${station.ink}` }, label, took) };
  });
  const course = lane.failed
    ? el("div", { class: "course" }, `did not finish: ${lane.failed}`)
    : el("ol", { class: "course", style: `--count: ${race.stations.length}`, "aria-label": `Stations of ${lane.name}` }, ...cells.map((each) => each.cell));
  const time = el("div", { class: "watch" }), rank = el("div", { class: "place" });
  const kind = `lane${slow ? " slow" : ""}${lane.failed ? " failed" : ""}`;
  return { lane, factor, cells, time, rank, kind, row: el("li", { class: kind }, who, course, time, rank) };
}

function show(each, moment) {
  const { lane, cells } = each, t = moment / each.factor;
  if (lane.failed) return;
  const done = lane.finish !== null && t >= lane.finish;
  const passed = (phase) => !waits() && lane.course.some((one) => one.phase === phase && one.at <= t);
  const reached = race.stations.findLastIndex((station) => passed(station.phase));
  let before = 0, heading = !waits();
  race.stations.forEach((station, index) => {
    const way = lane.course.find((one) => one.phase === station.phase);
    let kind = "none", text = "";
    if (passed(station.phase)) { kind = "passed"; text = way.took; before = way.at; }
    else if ((way || lane.ahead.includes(station.phase)) && index < reached) { kind = "untold"; text = "not told yet"; }
    else if ((way || lane.ahead.includes(station.phase)) && heading) { kind = "underway"; text = watch(t - before); heading = false; }
    else if (way || lane.ahead.includes(station.phase)) kind = "ahead";
    set(cells[index].cell, "className", `cell ${kind}`);
    set(cells[index].took, "textContent", text);
  });
  set(each.time, "textContent", watch(done ? lane.finish : t));
  set(each.rank, "textContent", done && each.factor === 1 ? ordinal(lane.place) : "");
  set(each.row, "className", `${each.kind}${done ? " finished" : ""}`);
}

function set(node, property, value) {
  if (node[property] !== value) node[property] = value;
}

function podium(moment) {
  const there = round().lanes.filter((lane) => lane.finish !== null && lane.finish <= moment && !waits()).sort((one, other) => one.finish - other.finish);
  const words = there.map((lane) => `${ordinal(lane.place)} ${lane.name}, ${watch(lane.finish)}`).join("; ");
  if (words === said) return;
  said = words;
  byId("podium").replaceChildren(...there.map((lane) => {
    const name = el("b", { style: `color: ${lane.colour}` }, `${lane.symbol} ${lane.name}`);
    return el("li", { class: lane.place <= 3 ? `p${lane.place}` : "later" }, `${ordinal(lane.place)} `, name, watch(lane.finish));
  }));
  byId("status").textContent = words;
}

function draw(now) {
  const moment = at(now), over = moment >= end();
  if (over && since !== null) { base = moment; since = null; }
  for (const each of lanes) show(each, moment);
  podium(moment);
  set(byId("clock"), "textContent", watch(moment));
  const rounds = total() > 1 ? `round ${place + 1} of ${total()}` : "one round";
  const rate = live !== null ? "live" : speed === 1 ? "true speed" : `${speed} × true speed`;
  set(byId("told"), "textContent", `${waits() ? "ready" : over ? "over" : since === null ? "stopped" : "running"} · ${rate} · ${rounds}`);
  set(byId("go").firstElementChild, "textContent", waits() ? "Start" : over ? (last() ? "Over" : "Next round") : live !== null ? "Running" : since === null ? "Go on" : "Stop");
  set(byId("go"), "disabled", live !== null ? !mayGo() : over && last());
  set(byId("go"), "hidden", live !== null && !live.mine);
  for (const id of ["again", "slower", "faster", "before", "next"]) set(byId(id), "hidden", live !== null);
  set(byId("before"), "disabled", place === 0);
  set(byId("next"), "disabled", last());
  byId("race").classList.toggle("runs", since !== null);
  if (over && last() && race.rounds.length > 1 && live === null) {
    set(byId("wins"), "textContent", `First in ${race.rounds.length} rounds: ${Object.entries(race.wins).map(([name, count]) => `${name} ${count} ×`).join(", ")}`);
  }
  drawn = now;
}

const last = () => place === total() - 1;
const mayGo = () => live.mine && live.state === "ready" && (live.place === place ? waits() : at(performance.now()) >= end());

function tick(now) {
  if (race !== null && since !== null && (!still.matches || now - drawn >= STILL_MS || at(now) >= end())) draw(now);
  requestAnimationFrame(tick);
}

function go(to) {
  if (live !== null || to < 0 || to >= race.rounds.length) return;
  place = to; base = 0; since = performance.now();
  lay();
  draw(since);
}

function turn() {
  const now = performance.now();
  if (live !== null) { if (mayGo()) turnLive(now); return; }
  if (at(now) >= end() && !waits()) { go(place + 1); return; }
  if (since !== null) { base = at(now); since = null; } else since = now;
  draw(now);
}

function turnLive(now) {
  if (live.place === place) { dispatchEvent(new CustomEvent("start", { detail: place + 1 })); return; }
  place = live.place; base = 0; since = null; // the room may guess again before it starts
  lay();
  draw(now);
}

function pace(step) {
  if (live !== null) return;
  const now = performance.now(), next = SPEEDS[SPEEDS.indexOf(speed) + step];
  if (next === undefined) return;
  base = at(now); since = since === null ? null : now; speed = next;
  draw(now);
}

const KEYS = {
  " ": turn, r: () => go(place), "+": () => pace(1), "=": () => pace(1), "-": () => pace(-1), ArrowUp: () => pace(1), ArrowDown: () => pace(-1),
  ArrowRight: () => go(place + 1), n: () => go(place + 1), ArrowLeft: () => go(place - 1), p: () => go(place - 1),
};
for (const [id, act] of [["go", turn], ["again", KEYS.r], ["slower", KEYS["-"]], ["faster", KEYS["+"]], ["before", KEYS.p], ["next", KEYS.n]]) byId(id).addEventListener("click", act);
addEventListener("keydown", (event) => {
  const act = KEYS[event.key], focused = event.target.closest?.("button, summary, a, .scroll");
  if (!act || race === null || event.ctrlKey || event.altKey || event.metaKey || (focused && (event.key === " " || event.key.startsWith("Arrow")))) return;
  event.preventDefault();
  act();
});

const NEARLY_SECONDS = 0.25; // what is told of a running clock may come late; nobody sees it jump by less

function heard(told, mine) {
  const now = performance.now(), shape = (one) => JSON.stringify([one?.stations, one?.slow, one?.rounds[place]?.lanes.map((lane) => [lane.name, lane.failed])]);
  const before = shape(race), seen = byId("race").hidden ? null : waits();
  race = told.race;
  live = told.state === "done" ? null : { state: told.state, place: told.place, rounds: told.rounds, mine };
  byId("race").hidden = false;
  set(byId("source"), "textContent", `From the request until ${race.goal} · ${race.source}`);
  const jumps = seen === null || (told.state === "running" && (place !== told.place || seen));
  if (jumps) { place = told.place; base = Math.max(0, told.at); since = told.state === "running" ? now : null; }
  const missed = !jumps && seen && (told.place > place || told.state === "stopping" || told.state === "done");
  if (missed) { base = 0; since = now; } // it was over before anybody was told that it ran
  if (seen === null && told.state === "done") base = end(); // it was seen while it happened, by others
  if (told.state === "running" && Math.abs(at(now) - told.at) > NEARLY_SECONDS) { base = told.at; since = now; }
  if (jumps || shape(race) !== before) lay();
  const by = new Map(round().lanes.map((lane) => [lane.name, lane]));
  for (const each of lanes) each.lane = by.get(each.lane.name);
  draw(now);
}

if (race !== null) {
  byId("race").hidden = false;
  lay();
  if (location.hash === "#go") go(0); else draw(performance.now());
}
requestAnimationFrame(tick);
