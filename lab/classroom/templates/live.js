// A race that happens: the server tells what is known of it, and whoever has its link starts a round.
// It stands behind race.js, in one module with it.

let mine = false, listening = null;

async function send(path, sent) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) }).catch(() => null);
  if (answer?.ok) return true;
  byId("connection").textContent = answer === null ? "No connection. Trying again …" : (await answer.json().catch(() => ({}))).error ?? `refused (${answer.status})`;
  return false;
}

function listen() {
  const stream = new EventSource("/events");
  stream.onmessage = (event) => {
    const told = JSON.parse(event.data);
    byId("connection").textContent = "";
    if (told.race !== null) heard(told, mine || told.mine);
    if (told.state === "done") stream.close();
  };
  stream.onerror = () => {
    byId("connection").textContent = "No connection. Trying again …";
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

addEventListener("start", (event) => send("/start", { round: event.detail }));
if (location.hash.length > 1) {
  const key = location.hash.slice(1);
  history.replaceState(null, "", "/"); // the key stays neither in the address nor in the history
  mine = await send("/enter", { key });
}
listen();
