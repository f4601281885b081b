// Arrow keys, Page Up and Down, Space, Home and End go from slide to slide.

const all = [...document.querySelectorAll(".slide")];
addEventListener("keydown", (event) => {
  const here = Math.round(scrollY / innerHeight);
  const steps = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 };
  const next = { Home: 0, End: all.length - 1 }[event.key] ?? here + steps[event.key];
  if (Number.isNaN(next)) return;
  event.preventDefault();
  all[Math.max(0, Math.min(all.length - 1, next))].scrollIntoView();
});
