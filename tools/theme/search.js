// Looks for all the words that were typed, in the sections of all pages (words.js); headings weigh more than text.
"use strict";
const field = document.getElementById("search");
const list = document.getElementById("found");
const base = document.body.dataset.base;
const MOST = 12;

if (matchMedia("(max-width: 50rem)").matches) document.querySelector(".menu details").open = false;

const menu = document.querySelector(".menu"), here = menu.querySelector("[aria-current]");
if (here) menu.scrollTop = Math.max(0, here.offsetTop - menu.clientHeight / 2);

function ranked(words) {
  const hits = [];
  for (const section of WORDS) {
    const title = `${section.page} ${section.title}`.toLowerCase(), text = section.text.toLowerCase();
    const each = words.map(word => (title.includes(word) ? 5 : 0) + Math.min(3, text.split(word).length - 1));
    if (each.every(weight => weight > 0)) hits.push([each.reduce((sum, weight) => sum + weight), section]);
  }
  for (const hit of hits) if (hit[1].at.startsWith("CHANGELOG")) hit[0] /= 4;
  return hits.sort((one, other) => other[0] - one[0]).slice(0, MOST).map(([, section]) => section);
}

function excerpt(text, words) {
  const at = Math.max(0, text.toLowerCase().indexOf(words[0]) - 50);
  const line = document.createElement("small");
  let rest = (at ? "… " : "") + text.slice(at, at + 160);
  for (let place; (place = rest.toLowerCase().indexOf(words[0])) >= 0;) {
    const mark = document.createElement("mark");
    mark.textContent = rest.slice(place, place + words[0].length);
    line.append(rest.slice(0, place), mark);
    rest = rest.slice(place + words[0].length);
  }
  line.append(rest);
  return line;
}

function show() {
  const words = field.value.toLowerCase().split(/\s+/).filter(word => word.length > 1);
  list.hidden = words.length === 0;
  if (list.hidden) return;
  const rows = ranked(words).map(section => {
    const row = document.createElement("li"), link = document.createElement("a"), title = document.createElement("b");
    link.href = `${base}/${section.at}`;
    title.textContent = section.title && section.title !== section.page ? `${section.page}: ${section.title}` : section.page;
    link.append(title, excerpt(section.text, words));
    row.append(link);
    return row;
  });
  if (!rows.length) {
    const row = document.createElement("li");
    row.textContent = "Nothing found.";
    rows.push(row);
  }
  list.replaceChildren(...rows);
}

field.addEventListener("input", show);
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== field) {
    event.preventDefault();
    field.focus();
  }
  if (event.key === "Escape") list.hidden = true;
});
document.addEventListener("click", event => { if (!event.target.closest(".search")) list.hidden = true; });
