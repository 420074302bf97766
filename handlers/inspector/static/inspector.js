"use strict";
// Shows what reaches a bin. The key stands behind the # of the page's URL, which browsers do not send.
const bin = location.pathname.split("/").pop();
const key = location.hash.slice(1);
const address = location.origin + location.pathname;
const list = document.getElementById("requests");
const state = document.getElementById("state");
let last = "0";

document.getElementById("url").textContent = address;
document.getElementById("try").textContent = `curl -d '{"hello":"world"}' -H 'Content-Type: application/json' ${address}`;
document.title = "Inspector " + bin.slice(0, 6);

function body(request) {
  const bytes = Uint8Array.from(atob(request.body || ""), (c) => c.charCodeAt(0));
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return `${bytes.length} bytes that are no text, in base64:\n${request.body}`;
  }
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function show(request) {
  const entry = document.getElementById("request").content.cloneNode(true);
  entry.querySelector(".method").textContent = request.method || "";
  entry.querySelector(".target").textContent = request.url || "";
  const meta = [`#${request.number}`, new Date(request.received_at).toISOString()];
  if (request.erased) {
    meta.push("about somebody who has been erased");
  } else {
    meta.push(request.from, request.protocol, `${request.body_bytes} bytes${request.truncated ? ", the first 256 KiB kept" : ""}`);
  }
  entry.querySelector(".meta").textContent = meta.join(" · ");
  const rows = entry.querySelector("tbody");
  for (const name of Object.keys(request.headers || {}).sort()) {
    for (const value of request.headers[name]) {
      const row = rows.insertRow();
      row.insertCell().textContent = name;
      row.insertCell().textContent = value;
    }
  }
  entry.querySelector("pre").textContent = body(request);
  list.prepend(entry);
  document.getElementById("empty").hidden = true;
}

function take(message) {
  let kind = "message", data = "";
  for (const line of message.split("\n")) {
    if (line.startsWith("id: ")) last = line.slice(4);
    if (line.startsWith("event: ")) kind = line.slice(7);
    if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (kind === "request") show(JSON.parse(data));
}

async function listen() {
  const answer = await fetch(`/inspector/-/live/${bin}`, { headers: { Authorization: "Bearer " + key, "Last-Event-ID": last } });
  if (answer.status === 401) throw new Error("The key behind the # of this page's address is missing or is not this bin's.");
  if (answer.status === 404) throw new Error("The bin has expired.");
  if (!answer.ok) return;
  state.textContent = "Live.";
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    messages.forEach(take);
  }
}

(async () => {
  for (;;) {
    try {
      await listen();
    } catch (problem) {
      if (!(problem instanceof TypeError)) {
        state.textContent = problem.message;
        return;
      }
    }
    state.textContent = "Connecting…";
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
})();
