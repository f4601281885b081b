// A site of many runs where scripts run: filters, time lines, two runs side by side. Data come as scripts that call `take`,
// so that the page works as a file, from a folder, without a server. What runs say is set as text, never as markup.

const about = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
root.classList.add("scripted");
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// ---- data

const taken = new Map();
const waited = new Map();
window.take = (key, value) => taken.set(key, value);

function load(key, file) {
  if (!waited.has(key)) {
    waited.set(key, new Promise((resolve, reject) => {
      const script = html("script", { src: file });
      script.addEventListener("load", () => (taken.has(key) ? resolve(taken.get(key)) : reject(new Error(`${file} is damaged`))));
      script.addEventListener("error", () => {
        waited.delete(key);
        reject(new Error(`${file} is missing. Was the site published again, or copied in part? Load this page again`));
      });
      document.head.append(script);
    }));
  }
  return waited.get(key);
}

function complain(error) {
  const place = $("#trouble");
  place.textContent = `${error.message}.`;
  place.hidden = false;
}

let runs = null;
let lines = null;
let changedRuns = null;

async function ready() {
  const [columns, drawn] = await Promise.all([load("runs", about.runs), load("lines", about.lines)]);
  runs = columns;
  lines = drawn;
  runs.texts = runs.name.map((name, run) => [name, of("scenario", run), of("title", run), of("host", run), about.hosts[of("host", run)] ?? "", of("lab", run), of("ended", run), momentOf(runs.started[run]), ...of("backend", run)].join(" ").toLowerCase());
  runs.place = new Map(runs.id.map((id, run) => [id, run]));
}

const of = (column, run) => runs[column].known[runs[column].codes[run]];

async function toldBy(run) {
  const chunk = Math.floor(run / about.size);
  const { titles, runs: said } = await load(`run/${chunk}`, about.chunks[chunk]);
  return { ...said[run], rows: said[run].rows.map(([title, n, failed, median, low, high]) => ({ arm: titles[title][0], title: titles[title][1], unit: titles[title][2], n, failed, median, low, high })) };
}

// ---- views

const VIEWS = ["changes", "lines", "runs", "compare", "run"];

// What stands behind # as [view, argument]: #lines, #line=ID, #run=ID, #compare=ID,ID, #change-ID.
function asked() {
  const [name, argument = ""] = decodeURIComponent(location.hash.slice(1)).split("=");
  if (name === "line") return ["lines", argument];
  if (name.startsWith("change-")) return ["changes", ""];
  return VIEWS.includes(name) ? [name, argument] : ["changes", ""];
}

async function show() {
  const [view, argument] = asked();
  for (const each of VIEWS) document.getElementById(each).hidden = each !== view;
  for (const link of $$(".views a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    if (!runs) await ready();
    if (view === "lines") showLines(argument);
    if (view === "runs") listRuns();
    if (view === "run") await showRun(argument);
    if (view === "compare") await compare(argument ? argument.split(",") : chosen);
  } catch (error) {
    complain(error);
  }
  if (location.hash.startsWith("#change-")) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  else requestAnimationFrame(() => scrollTo({ top: 0, behavior: "instant" }));
}

// ---- filters

function filterOf(name) {
  const form = $(`form[data-for="${name}"]`);
  return Object.fromEntries([...form.elements].filter(({ name: key }) => key).map((each) => [each.name, each.type === "checkbox" ? each.checked : each.value]));
}

function offer(name, key, values) {
  const select = $(`form[data-for="${name}"] select[name="${key}"]`);
  const words = [...new Set(values)].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  select.append(...words.map((value) => html("option", { value }, value || "none")));
  if (words.length < 2) select.closest("label").hidden = true;
}

function count(name, shown, all, what) {
  $(`form[data-for="${name}"] .count`).textContent = shown === all ? `${all.toLocaleString("en")} ${what}` : `${shown.toLocaleString("en")} of ${all.toLocaleString("en")} ${what}`;
}

const pages = { runs: 0, lines: 0 };

function pager(name, size, length, again) {
  const last = Math.max(0, Math.ceil(length / size) - 1);
  pages[name] = Math.min(pages[name], last);
  const step = (words, to) => {
    const button = html("button", { type: "button" }, words);
    button.disabled = to < 0 || to > last || to === pages[name];
    button.addEventListener("click", () => {
      pages[name] = to;
      again();
      $(`#${name}`).scrollIntoView();
      $$(`.pager[data-for="${name}"] button`).find((each) => each.textContent === words)?.focus();
    });
    return button;
  };
  const here = pages[name];
  const bar = $(`.pager[data-for="${name}"]`);
  bar.hidden = last === 0;
  bar.replaceChildren(step("first", 0), step("previous", here - 1), `page ${here + 1} of ${last + 1}`, step("next", here + 1), step("last", last));
  return [here * size, (here + 1) * size];
}

function listen(name, again) {
  const form = $(`form[data-for="${name}"]`);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    if (name in pages) pages[name] = 0;
    if (runs || name === "events") again();
  });
}

// ---- what changed

function filterEvents() {
  const wanted = filterOf("events");
  const events = $$(".event");
  let shown = 0;
  for (const event of events) {
    const { scenario, host, backend, direction } = event.dataset;
    const fits = (!wanted.scenario || scenario === wanted.scenario) && (!wanted.host || host === wanted.host) &&
      (!wanted.backend || JSON.parse(backend).includes(wanted.backend)) && (!wanted.direction || direction.split(" ").includes(wanted.direction));
    event.hidden = !fits;
    shown += fits;
  }
  count("events", shown, events.length, "changes");
}

function offerEvents() {
  const data = $$(".event").map(({ dataset }) => dataset);
  offer("events", "scenario", data.map(({ scenario }) => scenario));
  offer("events", "host", data.map(({ host }) => host));
  offer("events", "backend", data.flatMap(({ backend }) => JSON.parse(backend)));
  $('form[data-for="events"]').hidden = data.length < 2;
  filterEvents();
}

// ---- runs

const RUNS_A_PAGE = 50;
let chosen = [];

function fittingRuns() {
  const wanted = filterOf("runs");
  const words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
  changedRuns ??= new Set(lines.flatMap(({ changes }) => changes.map(({ run }) => run)));
  const found = [];
  for (let run = runs.name.length - 1; run >= 0; run -= 1) {
    if (["scenario", "host", "lab", "kind"].some((key) => wanted[key] && of(key, run) !== wanted[key])) continue;
    if (["backend", "accelerator"].some((key) => wanted[key] && !of(key, run).includes(wanted[key]))) continue;
    if (wanted.changed && !changedRuns.has(run)) continue;
    if (words.every((word) => runs.texts[run].includes(word))) found.push(run);
  }
  return found;
}

function nameOf(run) {
  return html("a", { href: `#run=${runs.id[run]}` }, runs.name[run]);
}

function listRuns() {
  const found = fittingRuns();
  count("runs", found.length, runs.name.length, "runs");
  const [first, last] = pager("runs", RUNS_A_PAGE, found.length, listRuns);
  $("table.runs tbody").replaceChildren(...found.slice(first, last).map((run) => {
    const box = html("input", { type: "checkbox", "aria-label": `compare ${runs.name[run]}` });
    box.checked = chosen.includes(runs.id[run]);
    box.addEventListener("change", () => choose(runs.id[run], box.checked));
    const kind = of("kind", run);
    const cells = [momentOf(runs.started[run]), null, [of("scenario", run), ...(kind === "compare" ? [] : [html("small", {}, ` ${kind}`)])], of("backend", run).join(", "), of("host", run), of("accelerator", run).join(", "), of("lab", run),
      [of("ended", run), ...(runs.complete[run] ? [] : [html("small", {}, " in no time line")])]];
    return html("tr", { class: runs.complete[run] ? null : "incomplete" }, html("td", {}, box), ...cells.map((cell) => (cell === null ? html("th", { scope: "row" }, nameOf(run)) : html("td", {}, ...[cell].flat()))));
  }));
  tellChosen();
}

// Two at most: a third takes the place of the older one.
function choose(id, wanted) {
  chosen = chosen.filter((each) => each !== id);
  if (wanted) chosen = [...chosen, id].slice(-2);
  for (const box of $$("table.runs tbody tr")) {
    const name = $("a", box).hash.slice("#run=".length);
    $("input", box).checked = chosen.includes(name);
  }
  tellChosen();
}

function tellChosen() {
  const names = chosen.map((id) => runs.name[runs.place.get(id)]);
  const link = html("a", { href: `#compare=${chosen.join(",")}` }, "Compare them");
  for (const place of [$("#chosen"), ...$$(".pick .chosen")]) {
    place.replaceChildren(...(names.length === 0 ? [place.id ? "Tick two runs to compare them." : ""] : [`To compare: ${names.join(" and ")}. `, ...(names.length === 2 ? [link.cloneNode(true)] : ["One more is needed."])]));
  }
}

async function showRun(id) {
  const run = runs.place.get(id);
  if (run === undefined) throw new Error("This run is not part of the site any more");
  const { facts, rows } = await toldBy(run);
  $("#run-title").textContent = runs.name[run];
  const command = `lab report ${quoted(runs.name[run])}`;
  const add = html("button", { type: "button" }, "compare with another");
  add.addEventListener("click", () => {
    choose(id, true);
    location.hash = chosen.length === 2 ? `compare=${chosen.join(",")}` : "runs";
  });
  $("#told").replaceChildren(
    html("p", {}, `${of("title", run)}. ${of("scenario", run)} on host ${of("host", run)}, ${momentOf(runs.started[run])} UTC; ended: ${of("ended", run)}.`),
    ...(runs.complete[run] ? [] : [html("p", { class: "warning findings-like" }, "It did not end by plan: its figures are of what there was, and no time line has it.")]),
    html("p", { class: "bar" }, runs.report[run] ? html("a", { href: `runs/${id}.html` }, "The whole report") : html("span", {}, "Its report is not part of this site; ", html("code", {}, command), " writes it."), add),
    rows.length ? tableOf(["backend", "quantity", "n", "failed", "median", "95 %"], rows.map((row) => [row.arm, row.title, row.n, row.failed || "–", worded(row.median, row.unit), intervalOf(row.low, row.high, row.unit)]), "Medians") : html("p", {}, "Only comparisons have figures here; the report of a study tells its own."),
    html("h3", {}, "What was recorded of host, versions and image"),
    html("dl", { class: "facts" }, ...Object.entries(facts).flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)])),
  );
}

function tableOf(heads, rows, label) {
  const body = rows.map(([first, ...cells]) => html("tr", {}, html("th", { scope: "row" }, first), ...cells.map((cell) => html("td", {}, cell instanceof Node ? cell : String(cell)))));
  return html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, html("table", {}, html("thead", {}, html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head)))), html("tbody", {}, ...body)));
}

// ---- two runs side by side

// A word for a shell, as it is typed.
const quoted = (word) => (/^[\w.+:@%][\w.+:@%-]*$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
const diffCommand = (names) => ["lab", "diff", ...(names.some((name) => name.startsWith("-")) ? ["--"] : []), ...names.map(quoted)].join(" ");

async function compare(ids) {
  const pair = ids.map((id) => runs.place.get(id));
  const place = $("#comparison");
  if (pair.length !== 2 || pair.includes(undefined)) {
    place.replaceChildren(html("p", {}, ids.length ? "Two runs are needed: choose another one in the list of runs." : "Choose two runs: tick them in the list, or take them from a time line."));
    return;
  }
  pair.sort((one, other) => runs.started[one] - runs.started[other]);
  const told = await Promise.all(pair.map(toldBy));
  const names = pair.map((run) => runs.name[run]);
  const key = ({ arm, title }) => `${arm}\u0000${title}`;
  const second = new Map(told[1].rows.map((row) => [key(row), row]));
  const both = told[0].rows.filter((row) => second.has(key(row)) && second.get(key(row)).unit === row.unit).map((row) => [row, second.get(key(row))]);
  const facts = Object.keys({ ...told[0].facts, ...told[1].facts }).filter((name) => told[0].facts[name] !== told[1].facts[name]);
  const alike = of("scenario", pair[0]) === of("scenario", pair[1]);
  const sameHost = of("host", pair[0]) === of("host", pair[1]);
  const unlikeConditions = facts.filter((name) => name.startsWith("condition: "));
  place.replaceChildren(
    html("p", {}, nameOf(pair[0]), ` (${momentOf(runs.started[pair[0]])}), then `, nameOf(pair[1]), ` (${momentOf(runs.started[pair[1]])}).`),
    ...(alike ? [] : [html("p", { class: "warning findings-like" }, "They measured different scenarios: no number here compares them.")]),
    ...(sameHost ? [] : [html("p", { class: "warning findings-like" }, "They were measured on different hosts: every number says more about those.")]),
    ...(alike && unlikeConditions.length ? [html("p", { class: "warning findings-like" }, `They were measured under different conditions (${unlikeConditions.map((name) => name.slice("condition: ".length)).join(", ")}).`)] : []),
    html("p", {}, "Intervals side by side are no test, whether they overlap or not. The test is ", html("code", { class: "command" }, `${diffCommand(names)}${sameHost ? "" : " --across-hosts"}`), "; the pages of changes have its answer ready."),
    both.length ? tableOf(["backend", "quantity", "first", "second", "second ÷ first, medians", "intervals of 95 %, first above second"], both.map(pairRow), "Two runs") : html("p", {}, "They have no backend and quantity in common."),
    html("h3", {}, "What was recorded differently"),
    facts.length ? tableOf(["fact", "first", "second"], facts.map((name) => [name, told[0].facts[name] ?? "not recorded", told[1].facts[name] ?? "not recorded"]), "Facts that differ") : html("p", {}, "Nothing."),
  );
}

function pairRow([one, other]) {
  const ends = [one, other].flatMap(({ median, low, high }) => [median, low, high]).filter((value) => value !== null);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const x = (value) => 4 + (most > least ? (value - least) / (most - least) : 0.5) * 192;
  const marks = [one, other].flatMap(({ median, low, high }, index) => {
    const y = 7 + 10 * index;
    if (median === null) return [];
    return [...(low === null || high === null ? [] : [svg("line", { x1: x(low), x2: x(high), y1: y, y2: y, stroke: "currentColor", "stroke-width": 2 })]), svg("circle", { cx: x(median), cy: y, r: 3.5, fill: index ? "currentColor" : "var(--paper)", stroke: "currentColor" })];
  });
  const said = `${intervalOf(one.low, one.high, one.unit)}, then ${intervalOf(other.low, other.high, other.unit)}`;
  const ratio = one.median > 0 && other.median !== null ? `${(other.median / one.median).toLocaleString("en", { maximumSignificantDigits: 3 })} ×` : "–";
  return [one.arm, one.title, worded(one.median, one.unit), worded(other.median, other.unit), ratio, html("div", { class: "pair" }, svg("svg", { viewBox: "0 0 200 24", role: "img", "aria-label": said }, ...marks))];
}

// ---- time lines

const LINES_A_PAGE = 6;

function showLines(id = asked()[0] === "lines" ? asked()[1] : "") {
  const wanted = filterOf("lines");
  const found = lines.filter((line) => (id ? line.id === id : ["scenario", "host", "backend", "accelerator", "title"].every((key) => !wanted[key] || line[key] === wanted[key]) && (!wanted.changed || line.changes.length)));
  count("lines", found.length, lines.length, "lines");
  const [first, last] = pager("lines", LINES_A_PAGE, found.length, () => showLines());
  const back = id ? [html("p", { class: "bar" }, html("a", { href: "#lines" }, "All time lines"))] : [];
  const none = found.length ? [] : [html("p", {}, "No line fits.")];
  $("#charts").replaceChildren(...back, ...none, ...found.slice(first, last).map(figureOf));
}

function figureOf(line) {
  const place = html("figure", { class: "line", "data-line": line.id });
  const conditions = Object.entries(line.conditions).filter(([name]) => name === "limits" || name === "factors" || name === "host set to").map(([name, value]) => `${name}: ${value}`).join("; ");
  place.append(html("p", { class: "title" }, html("b", {}, `${line.title}, ${line.arm}`), html("small", {}, `${line.scenario} on host ${line.host}, ${line.accelerator}; ${conditions}`)), html("p", { class: "note" }, "loading…"));
  load(`line/${line.id}`, line.file).then((points) => draw(place, line, points)).catch(complain);
  return place;
}

function draw(place, line, points) {
  const length = points.run.length;
  const last = Number(filterOf("lines").last);
  const first = last ? Math.max(0, length - last) : 0;
  const width = Math.max(320, Math.round(place.clientWidth - 32));
  const drawn = drawHistory(line, points, runs.started, first, width, 256);
  drawn.picture.style.color = about.colours[line.backend] ?? about.colours[""];
  const slider = html("input", { type: "range", min: first, max: length - 1, value: length - 1, "aria-label": `run in ${line.title} of ${line.arm}` });
  const said = html("output", {});
  const add = html("button", { type: "button" }, "compare");
  const chosenHere = html("span", { class: "chosen" });
  const tell = () => {
    const index = Number(slider.value);
    const run = points.run[index];
    drawn.point(index);
    const change = line.changes.find(({ place: at }) => at === index);
    said.replaceChildren(nameOf(run), ` ${worded(points.median[index], line.unit)} (${intervalOf(points.low[index], points.high[index], line.unit)}), n = ${points.n[index]}${points.failed[index] ? `, ${points.failed[index]} failed` : ""}`, ...(change ? [" – ", html("a", { href: `#change-${change.event}` }, `${change.direction} from here on`)] : []));
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  slider.addEventListener("input", tell);
  add.addEventListener("click", () => {
    choose(runs.id[points.run[Number(slider.value)]], true);
    if (chosen.length === 2) location.hash = `compare=${chosen.join(",")}`;
  });
  drawn.picture.addEventListener("pointermove", (event) => {
    slider.value = drawn.at(event.clientX - drawn.picture.getBoundingClientRect().left);
    tell();
  });
  drawn.picture.addEventListener("click", () => add.click());
  const words = line.changes.map((change) => `${dateOf(runs.started[points.run[change.place]])}: ${change.direction}, ${worded(change.before, line.unit)} → ${worded(change.after, line.unit)}`);
  place.lastChild.replaceWith(drawn.picture, ...(words.length ? [html("p", { class: "note" }, words.join("; "))] : []),
    ...(line.dependence === null ? [] : [html("p", { class: "note" }, `A night here resembles the one before it (correlation ${line.dependence.toFixed(2)}): changes are found too easily.`)]),
    html("div", { class: "pick" }, slider, said, add, chosenHere));
  tell();
  if (chosen.length) tellChosen();
}

// ---- begin

function begin() {
  offerEvents();
  listen("events", filterEvents);
  listen("runs", listRuns);
  listen("lines", () => {
    if (asked()[1]) location.hash = "lines";
    else showLines();
  });
  ready().then(() => {
    for (const key of ["scenario", "kind", "host", "lab"]) offer("runs", key, runs[key].known);
    for (const key of ["backend", "accelerator"]) offer("runs", key, runs[key].known.flat());
    for (const key of ["scenario", "host", "backend", "accelerator", "title"]) offer("lines", key, lines.map((line) => line[key]));
    addEventListener("hashchange", show);
    root.dataset.ready = "";
    return show();
  }).catch(complain);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width && asked()[0] === "lines" && lines) showLines();
    width = innerWidth;
  });
}

begin();
