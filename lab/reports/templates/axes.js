// Numbers to places along an axis, and the words of its ticks. Nothing here knows the page.

const UNITS = {
  "seconds": [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]],
  "seconds/s": [[1, "s/s"], [1e-3, "ms/s"], [1e-6, "µs/s"], [1e-9, "ns/s"]],
  "bytes": [[1024 ** 3, "GiB"], [1024 ** 2, "MiB"], [1024, "KiB"], [1, "B"]],
  "bytes/s": [[1024 ** 3, "GiB/s"], [1024 ** 2, "MiB/s"], [1024, "KiB/s"], [1, "B/s"]],
};

// The prefix in which `value` reads best, as [factor, name]; a unit without prefixes is named below its axis.
function prefixOf(value, unit) {
  const known = UNITS[unit] ?? [[1, ""]];
  return known.find(([factor]) => Math.abs(value) >= factor * 0.9995) ?? known.at(-1);
}

function format(value, unit, prefix) {
  if (value === 0) return "0";
  const [factor, name] = prefix ?? prefixOf(value, unit);
  const number = (value / factor).toLocaleString("en", { maximumSignificantDigits: 4 });
  return name ? `${number} ${name}` : number;
}

// From zero to `top`: `share` gives a value's place between 0 and 1, `ticks(most)` round values of the shown prefix.
function linear(top, unit, prefix) {
  const [factor] = prefix ?? prefixOf(top, unit);
  return {
    share: (value) => Math.min(1, Math.max(0, value / top)),
    ticks(most) {
      const rough = top / factor / Math.max(1, most);
      const decade = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 2.5, 5, 10].find((each) => each * decade >= rough * 0.999) * decade;
      const count = Math.floor(top / factor / step + 1e-9);
      return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)) * factor);
    },
  };
}

// From `low` to `high`, both above zero; ticks at 1, 2 and 5 of each decade, or fewer when they would be too many;
// of bytes, at powers of two.
function logarithmic(low, high, unit) {
  const [first, span] = [Math.log(low), Math.log(high / low)];
  return {
    share: (value) => Math.min(1, Math.max(0, (Math.log(Math.max(value, low)) - first) / span)),
    ticks(most) {
      if (unit.startsWith("bytes")) {
        const [lowest, last] = [Math.ceil(Math.log2(low)), Math.floor(Math.log2(high))];
        const step = Math.max(1, Math.ceil((last - lowest + 1) / most));
        const start = Math.ceil(lowest / step) * step;
        return Array.from({ length: Math.max(0, Math.floor((last - start) / step) + 1) }, (_, index) => 2 ** (start + index * step));
      }
      let inside = [];
      for (const steps of [[1, 2, 5], [1, 3], [1]]) {
        const found = [];
        for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
          found.push(...steps.map((step) => Number((step * 10 ** power).toPrecision(12))));
        }
        inside = found.filter((value) => value >= low && value <= high);
        if (inside.length <= most) return inside;
      }
      return inside;
    },
  };
}
