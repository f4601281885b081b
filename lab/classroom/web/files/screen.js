import { LETTERS, answer, chart, el, fill, legend, listen, measuring, written } from "./common.js";

const main = document.querySelector("main"), head = document.querySelector("header"), foot = document.querySelector("footer");

let looked = "";

listen("/screen/events", draw);

function draw(told) {
  document.body.className = told.view ? `${told.phase} ${told.view}` : told.phase;
  const joining = el("p", { class: "code" }, told.address.replace("http://", ""), " ", el("b", {}, told.code), ` · ${told.joined} here`);
  fill(head, el("h1", {}, told.asked ? `${told.title}: ${told.question + 1} of ${told.of}` : told.title), told.phase === "lobby" ? null : joining);
  const key = told.view ? `${told.question} ${told.view}` : "";
  if (!key || key !== looked) fill(main, ...page(told));  // a race that runs is not begun again because somebody joins
  looked = key;
  fill(foot, told.phase === "reveal" && told.run ? `Measured ${told.day} on ${told.where}: run ${told.run}` : "", measuring(told.live));
}

function page(told) {
  if (told.phase === "lobby") {
    return [el("div", { class: "lobby" },
      el("img", { src: "/teach/qr.svg", alt: `A QR code of ${told.address}, with the code ${told.code}` }),
      el("div", {}, el("p", {}, "Open"), el("p", { class: "address" }, told.address.replace("http://", "")), el("p", {}, "and type"), el("p", { class: "huge" }, told.code),
        el("p", { role: "status" }, told.joined === 1 ? "1 is here" : `${told.joined} are here`)))];
  }
  if (told.phase === "over") return [el("div", { class: "middle" }, el("p", { class: "huge" }, "That was all."), el("p", {}, "What did you believe before, and what now?"))];
  if (told.view === "race") {
    const race = el("iframe", { src: "/screen/race#go", title: "The recorded starts of this run, as a race" });
    race.addEventListener("load", () => race.focus());
    return [race];
  }
  if (told.view === "figure") {
    const found = told.asked.answer;
    return [el("figure", {}, el("img", { src: `/screen/figure/${told.question}`, alt: told.alt }),
      found.reason ? null : el("figcaption", {}, "Measured: ", el("b", {}, found.says), `; ${found.sure}`))];
  }
  const asked = written(told.asked.text, "written asked");
  if (told.phase === "reveal") {
    const mechanism = written(told.asked.mechanism), below = told.asked.choices.length > 0;  // where there is room
    return [asked, el("div", { class: "reveal" },
      el("section", { "aria-label": "Guesses" }, chart(told.chart, told.asked), legend(told.chart), below ? null : mechanism),
      el("section", { "aria-label": "What was measured" }, answer(told.asked), written(told.asked.explanation), below ? mechanism : null))];
  }
  const list = told.asked.choices.length && !told.chart
    ? el("ol", { class: "choices" }, ...told.asked.choices.map((text, place) => el("li", {}, el("span", { class: "letter" }, LETTERS[place]), el("span", {}, text))))
    : told.asked.choices.length ? null : el("p", { class: "number" }, `A number, in ${told.asked.unit}`);
  const status = {
    vote: `Guess. ${told.guessed} of ${told.joined} have.`,
    again: `Guess again. ${told.guessed} of ${told.joined} have.`,
    talk: "Talk to your neighbour: convince each other.",
    done: "The vote is closed.",
  }[told.phase];
  return [asked, told.chart ? el("div", { class: "wide" }, chart(told.chart, told.asked), legend(told.chart)) : list, el("p", { class: "now", role: "status" }, status)];
}
