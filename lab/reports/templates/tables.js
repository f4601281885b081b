// Tables that are sorted by the column whose heading is pressed: upwards, downwards, and back to the order they came in.

const WORTH = new Map([...Object.values(UNITS).flat().map(([factor, name]) => [name, factor]), ["min", 60], ["h", 3600]]);

const words = (cell) => (cell.querySelector("b") ?? cell.firstChild)?.textContent.trim() ?? "";

// The first number of a cell, in its unit's base; null where there is none.
function number(cell) {
  const [, digits, unit] = /(-?\d[\d,]*(?:\.\d+)?)\s*([^\s\d]*)/.exec(words(cell)) ?? [];
  return digits === undefined ? null : Number(digits.replaceAll(",", "")) * (WORTH.get(unit) ?? 1);
}

// Pairs of a row and what it is sorted by: numbers where a column has any, and else words.
function worths(rows, column) {
  const cells = rows.map((row) => row.cells[column]);
  const isNumeric = cells.some((cell) => cell.tagName === "TD" && number(cell) !== null);
  return cells.map((cell, index) => ({ row: rows[index], worth: isNumeric ? number(cell) : words(cell) }));
}

const compare = (one, other) =>
  typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;

function makeSortable(table) {
  const [body] = table.tBodies;
  const original = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];

  function sort(heading, column) {
    const next = { "": "ascending", ascending: "descending", descending: "" }[heading.getAttribute("aria-sort") ?? ""];
    for (const each of headings) each.removeAttribute("aria-sort");
    if (next) heading.setAttribute("aria-sort", next);
    const rows = worths(original, column);
    const known = rows.filter(({ worth }) => worth !== null);
    const last = rows.filter(({ worth }) => worth === null);  // what was not measured is neither large nor small
    known.sort((one, other) => compare(one.worth, other.worth) * (next === "ascending" ? 1 : -1));
    body.append(...(next ? [...known, ...last].map(({ row }) => row) : original));
  }

  headings.forEach((heading, column) => {
    const button = html("button", { type: "button", class: "sort" }, ...heading.childNodes);
    button.addEventListener("click", () => sort(heading, column));
    heading.replaceChildren(button);
  });
}
