import { LETTERS, answer, el, fill, listen, post, written } from "./common.js";

const main = document.querySelector("main"), status = document.getElementById("status");
let shown = "", stop = () => {};

const say = (text, wrong = false) => { status.textContent = text; status.className = wrong ? "wrong" : ""; };

async function begin() {
  const me = await (await fetch("/me")).json();
  document.getElementById("title").textContent = me.title;
  if (me.nickname) return play();
  joining();
}

function joining() {
  shown = "";
  say("");
  document.getElementById("who").textContent = "";
  const code = el("input", { id: "code", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", maxlength: 8, required: true });
  code.value = location.hash.replace(/[^0-9A-Za-z]/g, "").slice(0, 8);
  const nickname = el("input", { id: "nickname", autocomplete: "nickname", maxlength: 24, required: true });
  const send = async (event) => {
    event.preventDefault();
    try {
      await post("/join", { code: code.value, nickname: nickname.value });
      history.replaceState(null, "", "/");
      play();
    } catch (error) { say(error.message, true); }
  };
  fill(main, el("form", { class: "join", onsubmit: send }, el("h2", {}, "Join"),
    el("label", { for: "code" }, "The code on the screen"), code, el("label", { for: "nickname" }, "A nickname"), nickname,
    el("button", { class: "large" }, "Join"),
    el("p", { class: "note" }, "Kept are the nickname, your guesses and when you made them: no account, no address. You can delete them now and at the end, your teacher at any time.")));
  (code.value ? nickname : code).focus();
}

function play() {
  stop();
  stop = listen("/events", draw, () => { say("You are no longer in this class.", true); joining(); });
}

function draw(told) {
  document.getElementById("who").textContent = told.nickname;
  const key = `${told.phase} ${told.question}`;
  if (key !== shown) {
    shown = key;
    say("");
    fill(main, ...page(told));
    window.scrollTo(0, 0);
  }
  mark(told);
}

function page(told) {
  if (told.phase === "lobby") return [el("h2", {}, "You are in."), written(told.intro), el("p", { class: "quiet" }, "Look at the screen: it begins soon."), leave()];
  if (told.phase === "over") {
    return [el("h2", {}, "That was all."), el("p", { class: "says" }, `${told.score} of ${told.score_of}`),
      el("p", {}, "of your last guesses agreed with what was measured. The others are the ones worth thinking about."), leave()];
  }
  const head = [el("p", { class: "step" }, `Question ${told.question + 1} of ${told.of}`), written(told.asked.text, "written asked")];
  if (told.vote) return [...head, told.vote === 2 ? el("p", { class: "step" }, "Second vote: keep your guess, or change it.") : null, form(told)];
  if (told.phase === "reveal") return [...head, mine(told), answer(told.asked), el("h2", {}, "Why"), written(told.asked.explanation), el("h2", {}, "How it works"), written(told.asked.mechanism)];
  const talk = told.phase === "talk" ? "The vote is closed. Talk to your neighbour: convince each other." : "The vote is closed.";
  return [...head, el("p", { class: "talk" }, talk), mine(told)];
}

function form(told) {
  const asked = told.asked;
  const send = async (guess) => {
    try {
      await post("/guess", { question: told.question, vote: told.vote, guess });
    } catch (error) { say(error.message, true); }
  };
  if (asked.choices.length) {
    return el("div", { class: "pick", role: "group", "aria-label": "Choices" }, ...asked.choices.map((text, place) =>
      el("button", { type: "button", "data-place": place, "aria-pressed": "false", onclick: () => send(place) }, el("span", { class: "letter" }, LETTERS[place]), el("span", {}, text))));
  }
  const number = el("input", { id: "number", inputmode: "decimal", autocomplete: "off", required: true });
  const before = told.guesses[told.vote];
  if (before !== null) number.value = before;
  const submit = (event) => {
    event.preventDefault();
    const guess = Number(number.value.trim().replace(",", "."));
    if (number.value.trim() === "" || !Number.isFinite(guess) || guess < 0) return say("A number, please: 0 or more, like 2.5", true);
    send(guess);
  };
  return el("form", { class: "type", onsubmit: submit }, el("label", { for: "number" }, `Your guess, in ${asked.unit}`),
    el("div", { class: "beside" }, number, el("span", { class: "unit", "aria-hidden": "true" }, asked.unit)), el("button", { class: "large" }, "Send"));
}

function worded(told, vote) {
  const guess = told.guesses[vote];
  return told.asked.choices.length ? `${LETTERS[guess]}: ${told.asked.choices[guess]}` : `${guess} ${told.asked.unit}`;
}

function mine(told) {
  const lines = [1, 2].filter((vote) => told.guesses[vote] !== null).map((vote) => {
    const right = told.right ? told.right[vote] : null;
    const mark = right === null ? "" : right ? "✓ " : "✗ ";
    return el("p", { class: right === null ? "" : right ? "fits" : "fits-not" }, `${mark}${vote === 1 ? "Your guess" : "Your second guess"}: ${worded(told, vote)}`);
  });
  const near = told.right && lines.length && !told.asked.choices.length && !told.asked.answer.reason;
  return el("div", { class: "mine" }, ...(lines.length ? lines : [el("p", {}, "You made no guess.")]),
    near ? el("small", {}, `✓: within a factor of ${told.asked.within} of what was measured, or in its interval`) : null);
}

function mark(told) {
  if (!told.vote) return;
  const guess = told.guesses[told.vote];
  for (const button of main.querySelectorAll("button[data-place]")) button.setAttribute("aria-pressed", String(Number(button.dataset.place) === guess));
  if (guess !== null) say(`Sent: ${worded(told, told.vote)}. You may change it until the vote is closed.`);
}

function leave() {
  const forget = async () => {
    if (!confirm("Delete your nickname and all your guesses?")) return;
    stop();
    await post("/forget", {});
    joining();
  };
  return el("p", {}, el("button", { type: "button", class: "small", onclick: forget }, "Delete what is kept of me"));
}

begin();
