// A small JSON service: one thread, an event loop, a just-in-time compiler that has to warm up.
"use strict";
const http = require("http");

const words = "a virtual machine is a computer in a computer and a container is a process behind borders".split(" ");

function count(text) {
  const seen = {};
  for (const word of text.split(" ")) seen[word] = (seen[word] || 0) + 1;
  return seen;
}

function answer(response, status, value) {
  const body = JSON.stringify(value);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/health") return answer(response, 200, { status: "ok" });
  if (url.pathname === "/api/words") {
    const times = Math.min(Number(url.searchParams.get("times")) || 1, 1000);
    return answer(response, 200, count(Array(times).fill(words.join(" ")).join(" ")));
  }
  return answer(response, 404, { error: "no such path" });
});

server.listen(3000, "0.0.0.0");
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
