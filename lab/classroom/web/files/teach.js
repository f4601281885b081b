import { answer, chart, el, fill, legend, listen, measuring, post, written } from "./common.js";

const main = document.querySelector("main"), steps = document.getElementById("steps"), people = document.getElementById("people");
const status = document.getElementById("status");
const STEPS = {
  lobby: [["start", "Ask the first question"]],
  vote: [["close", "Close the vote: let them talk"], ["reveal", "Reveal"]],
  talk: [["again", "Second vote"], ["reveal", "Reveal"], ["reopen", "Open the first vote again"]],
  again: [["close", "Close the second vote"], ["reveal", "Reveal"]],
  done: [["reveal", "Reveal"], ["reopen", "Open the second vote again"]],
  reveal: [["next", "Next question"]],
  over: [],
};
let opened = -1;  // the question whose solution the teacher has opened: the next one's is nobody's to see yet

async function begin() {
  const key = location.hash.slice(1);
  if (key) {
    try { await post("/teach/enter", { key }); } catch (error) { return fail(error.message); }
    history.replaceState(null, "", "/teach");  // the key stays neither in the address nor in the history
  }
  const answered = await fetch("/teach/qr.svg");
  if (!answered.ok) return fail("This page is the teacher’s. Open the link that lab class serve printed.");
  listen("/teach/events", draw);
}

function fail(text) {
  status.textContent = text;
  status.className = "wrong";
}

function draw(told) {
  document.getElementById("title").textContent = told.title;
  fill(document.getElementById("where"), "Phones: ", el("b", {}, told.address.replace("http://", "")), " code ", el("b", {}, told.code));
  const act = async (action) => {
    try { await post("/teach/act", { action, phase: told.phase, question: told.question }); status.textContent = ""; } catch (error) { fail(error.message); }
  };
  const last = told.question + 1 === told.of;
  const waits = (action) => action === "reveal" && told.ready === false;
  const buttons = STEPS[told.phase].map(([action, text], place) =>
    el("button", { type: "button", class: place ? "" : "large", disabled: waits(action), onclick: () => act(action) },
      action === "next" && last ? "End the lesson" : waits(action) ? "Reveal: waits for the run" : text));
  if (told.phase === "talk" || told.phase === "done") buttons.push(toggle(told.shown, "Show guesses on the projector", "Hide guesses", () => act(told.shown ? "hide" : "show")));
  for (const view of told.showable) buttons.push(toggle(told.view === view, `Show the ${view}`, "Show the answer again", () => act(told.view === view ? "answer" : view)));
  buttons.push(toggle(told.locked, "Let nobody else join", "Let others join", () => act(told.locked ? "unlock" : "lock")));
  const focused = document.activeElement && document.activeElement.closest("#steps") ? document.activeElement.textContent : "";
  fill(steps, ...buttons);
  for (const button of buttons) if (button.textContent === focused) button.focus();
  fill(main, measuring(told.live), ...page(told));
  crowd(told);
}

const toggle = (on, yes, no, act) => el("button", { type: "button", "aria-pressed": String(on), onclick: act }, on ? no : yes);

function page(told) {
  if (!told.asked) {
    return [el("h2", {}, told.phase === "lobby" ? "They are joining" : "The lesson is over"), told.intro ? written(told.intro) : null,
      told.phase === "over" ? el("p", {}, "Marks, and what was believed before and after: ", el("code", {}, "lab class results")) : null];
  }
  const solution = el("details", {}, el("summary", { onclick: () => { opened = solution.open ? -1 : told.question; } }, "What was measured, and why (not for the projector)"),
    answer(told.asked), el("h3", {}, "Explanation"), written(told.asked.explanation), el("h3", {}, "Mechanism"), written(told.asked.mechanism));
  solution.open = opened === told.question || told.phase === "reveal";
  const count = told.vote ? `${told.guessed} of ${told.joined} have guessed.` : "";
  return [el("h2", {}, `Question ${told.question + 1} of ${told.of}: ${told.phase}`), written(told.asked.text, "written asked"),
    el("p", { class: "now", role: "status" }, count), el("div", { class: "wide" }, chart(told.chart, told.asked), legend(told.chart)),
    told.waiting.length && told.vote ? el("p", { class: "note" }, `Not yet: ${told.waiting.slice(0, 20).join(", ")}${told.waiting.length > 20 ? ` and ${told.waiting.length - 20} more` : ""}`) : null,
    solution, told.report ? el("p", {}, el("a", { href: "/teach/report", target: "_blank", rel: "noopener" }, "The run’s whole report")) : null];
}

function crowd(told) {
  const here = new Set(told.here);
  document.getElementById("crowd").textContent = `${told.joined} in the class, ${here.size} connected`;
  const remove = (student) => async () => {
    if (!confirm(`Remove ${student.nickname} and all their guesses?`)) return;
    try { await post("/teach/remove", { student: student.id }); } catch (error) { fail(error.message); }
  };
  fill(people, ...told.students.map((student) => el("li", { class: here.has(student.id) ? "" : "away" }, student.nickname, here.has(student.id) ? "" : " (away)", " ",
    el("button", { type: "button", class: "small", "aria-label": `Remove ${student.nickname}`, onclick: remove(student) }, "remove"))));
}

begin();
