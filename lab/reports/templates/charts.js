// The panels of a chart, each an SVG: what lab.reports.charts prepared, drawn at the width that the page has.
// A mark is a group that can be focused and that says its numbers; report.js shows them and moves between marks.

const SVG = (() => {
  const template = document.createElement("template");
  template.innerHTML = "<svg></svg>";
  return template.content.firstChild.namespaceURI;
})();
const [BIG, SMALL] = [15, 12.5];
const pen = document.createElement("canvas").getContext("2d");

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function measure(text, size, weight = 400) {
  pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

const write = (text, x, y, kind, more = {}) => svg("text", { x, y, class: kind, ...more }, text);
const line = (x1, y1, x2, y2, kind, more = {}) => svg("line", { x1, y1, x2, y2, class: kind, ...more });
const box = (x, y, width, height, more = {}) => svg("rect", { x, y, width: Math.max(0, width), height, ...more });

function mark(tip, arm, ...shapes) {
  const words = tip.join(". ");
  const group = svg("g", { class: "mark", role: "img", "aria-label": words, tabindex: -1, "data-of": arm }, ...shapes);
  group.tip = tip;
  return group;
}

// The shapes that the pictures give the backends, around (x, y).
function shape(kind, x, y, r, look) {
  const polygon = (...points) =>
    svg("polygon", { points: points.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join(" "), ...look });
  switch (kind) {
    case "s": return box(x - 0.85 * r, y - 0.85 * r, 1.7 * r, 1.7 * r, look);
    case "^": return polygon([0, -1.1], [1.05, 0.85], [-1.05, 0.85]);
    case "v": return polygon([0, 1.1], [1.05, -0.85], [-1.05, -0.85]);
    case "D": return polygon([0, -1.15], [1.15, 0], [0, 1.15], [-1.15, 0]);
    case "P": return polygon([-0.4, -1], [0.4, -1], [0.4, -0.4], [1, -0.4], [1, 0.4], [0.4, 0.4], [0.4, 1], [-0.4, 1],
      [-0.4, 0.4], [-1, 0.4], [-1, -0.4], [-0.4, -0.4]);
    case "X": return polygon([-1, -0.45], [-0.45, -1], [0, -0.5], [0.45, -1], [1, -0.45], [0.5, 0], [1, 0.45], [0.45, 1],
      [0, 0.5], [-0.45, 1], [-1, 0.45], [-0.5, 0]);
    default: return svg("circle", { cx: x, cy: y, r, ...look });
  }
}

function whisker(low, high, y, size = 5) {
  if (!(high > low)) return [];
  const ends = [low, high].map((x) => line(x, y - size, x, y + size, "whisker"));
  return [line(low, y, high, y, "whisker"), ...ends];
}

// The bar's end, or its interval's; one that is longer than the bar and half of it again runs out of the panel.
const edgeOf = (row) => row.value + Math.min((row.high ?? row.value) - row.value, 1.5 * Math.abs(row.value));

// What all panels of rows share: the rows' names on the left, or above where the panel is narrow.
class Rows {
  constructor(panel, arms, width, height) {
    Object.assign(this, { panel, arms, width, height });
    this.rows = panel.rows;
    const names = Math.max(0, ...this.rows.map((row) => measure(row.name ?? row.label, BIG, 700)));
    const stamps = Math.max(0, ...this.rows.map((row) => measure(this.stamp(row), SMALL)));
    const gutter = Math.max(names, stamps) + 14;
    this.above = gutter > 0.34 * width;
    this.start = this.above ? 4 : gutter;
    this.tops = [];
    this.bottom = 6;
    this.rows.forEach((row, index) => {
      const isFirst = row.label !== this.rows[index - 1]?.label;
      if (isFirst && index) this.bottom += 4;
      if (isFirst && this.above) this.bottom += 22;
      this.tops.push(this.bottom);
      this.bottom += height(row);
    });
    this.picture = svg("svg", { width });
  }

  arm(row) {
    return this.arms.get(row.arm);
  }

  stamp(row) {
    return row.stamp ?? this.arm(row).stamp;
  }

  names() {
    this.rows.forEach((row, index) => {
      if (row.label === this.rows[index - 1]?.label) return;
      const [{ ink }, stamp] = [this.arm(row), this.stamp(row)];
      const same = this.rows.filter((each) => each.label === row.label);
      const middle = this.tops[index] + same.reduce((sum, each) => sum + this.height(each), 0) / 2;
      if (this.above) {
        const name = write(row.name ?? row.label, this.start, this.tops[index] - 5, "name", { fill: ink });
        name.append(svg("tspan", { class: "stamp", dx: 8 }, stamp));
        this.picture.append(name);
      } else {
        this.picture.append(
          write(row.name ?? row.label, this.start - 12, middle - 3, "name", { fill: ink, "text-anchor": "end" }),
          write(stamp, this.start - 12, middle + 13, "stamp", { "text-anchor": "end" }),
        );
      }
    });
  }

  // Grid and labels of the axis between `start` and `end`.
  axis(scale, end) {
    const { unit, axis } = this.panel;
    for (const value of scale.ticks(Math.max(2, Math.floor((end - this.start) / 68)))) {
      const x = this.start + scale.share(value) * (end - this.start);
      this.picture.append(
        line(x, 2, x, this.bottom, "grid"),
        write(format(value, unit), x, this.bottom + 17, "tick", { "text-anchor": "middle" }),
      );
    }
    this.bottom += 24;
    const words = axis || (UNITS[unit] || unit === "1" ? "" : unit);
    if (words) {
      this.bottom += 16;
      this.picture.append(write(words, this.start, this.bottom - 4, "tick"));
    }
  }

  finish() {
    this.picture.setAttribute("height", this.bottom + 4);
    return this.picture;
  }
}

function besides(row, x, y) {
  return [
    write(row.text, x + 9, y - 2, "value"),
    write(row.note ?? "", x + 9, y + 14, "stamp"),
  ];
}

const roomOf = (row) => 18 + Math.max(measure(row.text ?? "", BIG + 1, 700), measure(row.note ?? "", SMALL));

function scaleFor(rows, isLogarithmic, unit) {
  const found = rows.filter((row) => row.value !== null);
  const inner = found.flatMap((row) => (row.points ?? []).map((point) => point.value));
  const high = Math.max(...found.map(edgeOf), ...inner);
  if (!isLogarithmic) return linear(high > 0 ? high : 1, unit);
  const low = Math.min(...found.flatMap((row) => [row.value, row.low ?? row.value]).concat(inner).filter((v) => v > 0));
  return Number.isFinite(low) ? logarithmic(low / 1.35, high * 1.1, unit) : linear(1, unit);
}

// On a logarithmic axis lengths mean nothing, so that a marker takes the bar's place.
function bars(panel, arms, width, isLogarithmic) {
  const rows = new Rows(panel, arms, width, () => 48);
  const scale = scaleFor(panel.rows, isLogarithmic, panel.unit);
  const found = panel.rows.filter((row) => row.value !== null);
  const end = fit(rows.start, width, found.map((row) => ({ share: scale.share(edgeOf(row)), room: roomOf(row) })));
  const at = (value) => rows.start + scale.share(value) * (end - rows.start);
  const axis = () => rows.axis(scale, end);
  const { picture } = rows;
  const marks = panel.rows.map((row, index) => {
    const [top, middle] = [rows.tops[index], rows.tops[index] + 24];
    if (row.value === null) return write("not measured", rows.start + 9, middle + 5, "stamp");
    const { fill, ink, marker, pattern } = rows.arm(row);
    const body = isLogarithmic
      ? shape(marker, at(row.value), middle, 8, { fill, stroke: ink, class: "shape" })
      : box(rows.start, middle - 13, at(row.value) - rows.start, 26, { fill: pattern, class: "shape" });
    const reach = row.high === null ? [] : whisker(at(row.low), Math.min(at(row.high), at(edgeOf(row))), middle);
    const hit = box(rows.start, top, width - rows.start, 48, { class: "hit" });
    return mark(row.tip, row.arm, hit, body, ...reach, ...besides(row, Math.max(at(edgeOf(row)), at(row.value) + (isLogarithmic ? 8 : 0)), middle));
  });
  axis();
  rows.names();
  picture.append(...marks);
  return rows.finish();
}

function dots(panel, arms, width, isLogarithmic) {
  const rows = new Rows(panel, arms, width, () => 58);
  const scale = scaleFor(panel.rows, isLogarithmic, panel.unit);
  const edge = (row) => Math.max(edgeOf(row), ...row.points.map((point) => point.value));
  const end = fit(rows.start, width, panel.rows.map((row) => ({ share: scale.share(edge(row)), room: roomOf(row) + 8 })));
  const at = (value) => rows.start + scale.share(value) * (end - rows.start);
  rows.axis(scale, end);
  rows.names();
  panel.rows.forEach((row, index) => {
    const middle = rows.tops[index] + 29;
    const { fill, ink, marker } = rows.arm(row);
    const [low, high] = [at(row.low ?? row.value), at(row.high ?? row.value)];
    rows.picture.append(
      mark(row.tip, row.arm,
        box(low - 3, middle - 22, high - low + 6, 44, { fill, opacity: 0.22 }),
        line(at(row.value), middle - 22, at(row.value), middle + 22, "median shape"),
        ...besides(row, at(edge(row)) + 8, middle)),
      ...row.points.map((point) => {
        const y = middle + 6 * (((7 * point.block) % 5) - 2);
        const look = { fill: row.twin ? "var(--card)" : fill, stroke: ink, class: "shape" };
        return mark(point.tip, row.arm, shape(marker, at(point.value), y, 6, look));
      }),
    );
  });
  return rows.finish();
}

function parts(panel, arms, width) {
  const rows = new Rows(panel, arms, width, () => 46);
  const whole = (row) => row.parts.reduce((sum, part) => sum + part.value, 0);
  const edge = (row) => Math.max(whole(row), row.whole ? edgeOf(row.whole) : 0, row.diamond?.value ?? 0);
  const words = (row) => ({ text: row.text, note: [row.note, row.beside].filter(Boolean).join(" · ") });
  const scale = linear(Math.max(...panel.rows.map(edge)), panel.unit);
  const end = fit(rows.start, width, panel.rows.map((row) => ({ share: scale.share(edge(row)), room: roomOf(words(row)) + 8 })));
  const at = (value) => rows.start + scale.share(value) * (end - rows.start);
  rows.axis(scale, end);
  rows.names();
  panel.rows.forEach((row, index) => {
    const middle = rows.tops[index] + 23;
    let left = 0;
    for (const part of row.parts) {
      const look = { fill: part.fill, class: "shape part" };
      rows.picture.append(mark(part.tip, row.arm, box(at(left), middle - 14, at(left + part.value) - at(left), 28, look)));
      left += part.value;
    }
    if (row.whole) {
      const { value, low, high, tip } = row.whole;
      const reach = high === null ? [] : whisker(at(low), Math.min(at(high), at(edgeOf(row.whole))), middle);
      rows.picture.append(mark(tip, row.arm, ...reach, shape("o", at(value), middle, 4, { class: "dot shape" })));
    }
    if (row.diamond) {
      const look = { class: "diamond shape" };
      rows.picture.append(mark(row.diamond.tip, row.arm, shape("D", at(row.diamond.value), middle, 8, look)));
    }
    rows.picture.append(...besides(words(row), at(edge(row)) + 6, middle));
  });
  return rows.finish();
}

// Each row stretched to the same length: only the proportions within a row can be read.
function shares(panel, arms, width) {
  const rows = new Rows(panel, arms, width, () => 46);
  rows.names();
  panel.rows.forEach((row, index) => {
    const middle = rows.tops[index] + 23;
    const whole = row.parts.reduce((sum, part) => sum + part.value, 0);
    let left = rows.start;
    for (const part of row.parts) {
      const length = (part.value / whole) * (width - rows.start - 4);
      const body = box(left, middle - 16, length, 32, { fill: part.fill, class: "shape part" });
      const centred = { fill: part.ink, "text-anchor": "middle" };
      const text = measure(part.text, SMALL + 1, 700) + 8 < length
        ? [write(part.text, left + length / 2, middle + 5, "inside", centred)] : [];
      rows.picture.append(mark(part.tip, row.arm, body, ...text));
      left += length;
    }
  });
  return rows.finish();
}

function squares(panel, arms, width) {
  const size = 23;
  const most = Math.max(1, ...panel.rows.map((row) => row.squares.length));
  const across = (start) => Math.max(1, Math.min(most, Math.floor((width - start - 4) / size)));
  let perLine = across(0);
  const rows = new Rows(panel, arms, width, (row) => Math.max(40, 12 + size * Math.ceil(row.squares.length / perLine)));
  perLine = across(rows.start);
  const again = new Rows(panel, arms, width, rows.height);
  again.names();
  panel.rows.forEach((row, index) => {
    row.squares.forEach((each, number) => {
      const x = again.start + size * (number % perLine);
      const y = again.tops[index] + 6 + size * Math.floor(number / perLine);
      const look = { fill: each.fill, stroke: each.ink, rx: 4, class: each.framed ? "shape framed" : "shape" };
      const symbol = write(each.symbol, x + size / 2 - 1.5, y + size / 2 + 3.5, "symbol", { fill: each.ink, "text-anchor": "middle" });
      again.picture.append(mark(each.tip, row.arm, box(x, y, size - 3, size - 3, look), symbol));
    });
  });
  return again.finish();
}

function lines(panel, arms, width, isLogarithmic) {
  const height = 330;
  const found = panel.rows.flatMap((row) => row.points);
  const scale = scaleFor(found.length ? found : [{ value: null }], isLogarithmic, panel.unit);
  const labels = Math.max(0, ...panel.rows.map((row) => measure(row.text, BIG - 1, 700))) + 16;
  const ticks = scale.ticks(7);
  const start = Math.max(0, ...ticks.map((value) => measure(format(value, panel.unit), SMALL))) + 12;
  const x = (position) => start + 16 + (position / (panel.ticks.length - 1)) * Math.max(60, width - start - labels - 28);
  const y = (value) => height - 44 - scale.share(value) * (height - 60);
  const picture = svg("svg", { width, height });
  for (const value of ticks) {
    picture.append(
      line(start, y(value), x(panel.ticks.length - 1) + 6, y(value), "grid"),
      write(format(value, panel.unit), start - 8, y(value) + 4, "tick", { "text-anchor": "end" }),
    );
  }
  panel.ticks.forEach((name, index) =>
    picture.append(write(name, x(index), height - 24, "tick", { "text-anchor": "middle" })));
  picture.append(write(panel.axis, start, height - 5, "tick"));
  let below = Infinity;
  const ends = panel.rows.map((row) => ({ row, last: row.points.at(-1) }));
  for (const { row, last } of ends.sort((one, other) => one.last.value - other.last.value)) {
    const { fill, ink, marker, striped } = row.look ?? arms.get(row.arm);
    const path = row.points.map((point) => `${x(point.at)},${y(point.value)}`).join(" ");
    picture.append(svg("polyline", { points: path, class: striped ? "line striped" : "line", stroke: fill }));
    for (const point of row.points) {
      const [low, high] = [y(point.low ?? point.value), y(point.high ?? point.value)];
      const reach = high < low ? [line(x(point.at), low, x(point.at), high, "whisker", { stroke: ink })] : [];
      const body = shape(marker, x(point.at), y(point.value), 6.5, { fill, stroke: ink, class: "shape" });
      picture.append(mark(point.tip, row.arm, ...reach, body));
    }
    below = Math.min(y(last.value) + 5, below - 18);
    picture.append(write(row.text, x(last.at) + 13, below, "end", { fill: ink }));
  }
  return picture;
}

// Ratios around 1, on an axis that is as long to both sides; how they differ from it is what is to be seen.
function effects(panel, arms, width) {
  const rows = new Rows(panel, arms, width, () => 46);
  const far = panel.reach ** 1.25;
  const scale = logarithmic(1 / far, far, "1");
  const end = width - Math.max(...panel.rows.map(roomOf));
  const at = (value) => rows.start + 8 + scale.share(value) * (end - rows.start - 8);
  const height = rows.bottom;
  rows.picture.append(
    box(at(1 / panel.band), 2, at(panel.band) - at(1 / panel.band), height, { class: "band" }),
    ...panel.ticks.map(Number).filter((value) => value >= 1 / far && value <= far).flatMap((value) => [
      line(at(value), 2, at(value), height, value === 1 ? "one" : "grid"),
      write(format(value, "1"), at(value), height + 17, "tick", { "text-anchor": "middle" }),
    ]),
    write(panel.axis, rows.start, height + 36, "tick"),
  );
  rows.names();
  panel.rows.forEach((row, index) => {
    const [top, middle] = [rows.tops[index], rows.tops[index] + 23];
    const { fill, ink, marker } = rows.arm(row);
    if (row.value === null) {
      rows.picture.append(write("not measured", at(1), middle + 5, "stamp"));
      return;
    }
    const look = { fill: row.claim ? fill : "var(--card)", stroke: row.claim ? ink : fill, "stroke-width": 2, class: "shape" };
    const reach = row.low === null || row.high === null ? [] : whisker(at(row.low), at(row.high), middle);
    const hit = box(rows.start, top, width - rows.start, 46, { class: "hit" });
    const value = write(row.text, end + 9, middle - 2, row.claim ? "value" : "value unsure");
    const note = write(row.note, end + 9, middle + 14, "stamp");
    rows.picture.append(mark(row.tip, row.arm, hit, ...reach, shape(marker, at(row.value), middle, 7.5, look), value, note));
  });
  rows.bottom = height + 40;
  return rows.finish();
}

const KINDS = { effects, bars, dots, parts, shares, squares, lines };
