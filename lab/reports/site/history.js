// One quantity over many runs, drawn: medians, intervals, levels between changes. Sharp at any size, and as quick with ten
// thousand points as with ten: beyond what fits side by side, a column of pixels shows the range of what lies in it.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 74, right: 14, top: 12, bottom: 26 };

function make(space, name, attributes, children) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const html = (name, attributes = {}, ...children) => make(null, name, attributes, children);
const svg = (name, attributes = {}, ...children) => make(SVG, name, attributes, children);

const dateOf = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
const momentOf = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");

// As lab writes a value: three digits, in the prefix that reads best; an exact unit behind a number without one.
function worded(value, unit) {
  if (value === null || value === undefined) return "–";
  const [factor, name] = prefixOf(value, unit);
  const number = (value / factor).toLocaleString("en", { minimumSignificantDigits: value ? 3 : 1, maximumSignificantDigits: 3 });
  const words = name || (unit === "1" ? "" : unit);
  return words ? `${number} ${words}` : number;
}

const intervalOf = (low, high, unit) => (low === null || high === null ? "no interval" : `${worded(low, unit)} – ${worded(high, unit)}`);

// Round values between two others, at most so many.
function ticksBetween(low, high, most, unit) {
  const [factor] = prefixOf(Math.max(Math.abs(low), Math.abs(high)), unit);
  const rough = (high - low) / factor / most;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * decade >= rough * 0.999) * decade;
  const first = Math.ceil(low / factor / step - 1e-9);
  const count = Math.floor(high / factor / step + 1e-9) - first;
  return Array.from({ length: Math.max(0, count + 1) }, (_, index) => Number(((first + index) * step).toPrecision(12)) * factor);
}

// The SVG of a line's points from index `first` on, `width` pixels wide, and how to find a point again.
function drawHistory(line, points, started, first, width, height) {
  const length = points.run.length;
  const times = points.run.map((run) => started[run]);
  const [begin, end] = [times[first], times[length - 1]];
  let [low, high] = [Infinity, -Infinity];
  for (let index = first; index < length; index += 1) {
    low = Math.min(low, points.low[index] ?? points.median[index], points.median[index]);
    high = Math.max(high, points.high[index] ?? points.median[index], points.median[index]);
  }
  const spare = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low >= 0 ? Math.max(0, low - spare) : low - spare, high + spare];
  const [inner, tall] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
  const x = (time) => MARGIN.left + (end > begin ? (time - begin) / (end - begin) : 0.5) * inner;
  const y = (value) => MARGIN.top + (1 - (value - low) / (high - low)) * tall;
  const parts = [];
  for (const value of ticksBetween(low, high, 5, line.unit)) {
    parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    const words = svg("text", { class: "words", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" });
    words.textContent = format(value, line.unit);
    parts.push(words);
  }
  const dates = Math.max(2, Math.min(6, Math.floor(inner / 150)));
  for (let index = 0; index < dates; index += 1) {
    const time = begin + ((end - begin) * index) / (dates - 1);
    const anchor = index === 0 ? "start" : index === dates - 1 ? "end" : "middle";
    const words = svg("text", { class: "words", x: x(time), y: height - 8, "text-anchor": anchor });
    words.textContent = end - begin < dates * 86400 ? momentOf(time) : dateOf(time);
    parts.push(words);
  }
  const shown = length - first;
  parts.push(...(shown * 4 <= inner ? single(points, times, first, x, y) : columns(points, times, first, x, y)));
  const edges = [0, ...line.changes.map(({ place }) => place), length];
  edges.slice(0, -1).forEach((edge, index) => {
    const [from, to] = [Math.max(edge, first), edges[index + 1] - 1];
    if (to < first || line.changes.length === 0) return;
    const level = index === 0 ? line.changes[0].before : line.changes[index - 1].after;
    parts.push(svg("line", { class: "level", x1: x(times[from]), x2: x(times[to]), y1: y(level), y2: y(level) }));
  });
  for (const { place } of line.changes) {
    if (place <= first) continue;
    const middle = (x(times[place - 1]) + x(times[place])) / 2;
    parts.push(svg("line", { class: "break", x1: middle, x2: middle, y1: MARGIN.top, y2: height - MARGIN.bottom }));
  }
  const cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: height - MARGIN.bottom, x1: -9, x2: -9 });
  const said = `${line.title} of ${line.arm}, ${shown} runs from ${dateOf(begin)} to ${dateOf(end)}; ${line.changes.length} changes`;
  const picture = svg("svg", { class: "history", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said }, ...parts, cursor);
  return {
    picture,
    point(index) {
      const place = x(times[index]);
      cursor.setAttribute("x1", place);
      cursor.setAttribute("x2", place);
    },
    // The point nearest to a place from the left, in pixels of the page.
    at(pixels) {
      const time = begin + ((pixels * width) / picture.getBoundingClientRect().width - MARGIN.left) / inner * (end - begin);
      let [one, other] = [first, length - 1];
      while (other - one > 1) {
        const middle = (one + other) >> 1;
        if (times[middle] <= time) one = middle;
        else other = middle;
      }
      return Math.abs(times[one] - time) <= Math.abs(times[other] - time) ? one : other;
    },
  };
}

function single(points, times, first, x, y) {
  const parts = [];
  for (let index = first; index < times.length; index += 1) {
    const [place, low, high] = [x(times[index]), points.low[index], points.high[index]];
    if (low !== null && high !== null) parts.push(svg("line", { class: "interval", x1: place, x2: place, y1: y(low), y2: y(high), "stroke-width": 2 }));
    parts.push(svg("circle", { class: "dot", cx: place, cy: y(points.median[index]), r: 2.6 }));
  }
  return parts;
}

// Per column of pixels: the range of the intervals as a band, and the middle of the medians as a path.
function columns(points, times, first, x, y) {
  const found = new Map();
  for (let index = first; index < times.length; index += 1) {
    const column = Math.round(x(times[index]));
    const [low, high] = [points.low[index] ?? points.median[index], points.high[index] ?? points.median[index]];
    const known = found.get(column);
    if (known) {
      known.low = Math.min(known.low, low);
      known.high = Math.max(known.high, high);
      known.medians.push(points.median[index]);
    } else found.set(column, { low, high, medians: [points.median[index]] });
  }
  const places = [...found.entries()];
  const middle = (values) => values.sort((one, other) => one - other)[values.length >> 1];
  const up = places.map(([column, { high }]) => `${column} ${y(high).toFixed(1)}`);
  const down = places.map(([column, { low }]) => `${column} ${y(low).toFixed(1)}`).reverse();
  const path = places.map(([column, { medians }]) => `${column} ${y(middle(medians)).toFixed(1)}`);
  return [svg("path", { class: "band", d: `M${[...up, ...down].join("L")}Z` }), svg("path", { class: "path", d: `M${path.join("L")}` })];
}
