// What a page gains with a script: it keeps itself up to date, previews while you type, and spares some clicks. Without one,
// everything works by reloading.
"use strict";

// refresh puts the server's newest word into the parts of the page that say they are live.
let refreshing = false, again = false;
async function refresh(address = location.href) {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const answer = await fetch(address, { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
    if (answer.status === 401) { location.reload(); return; }
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.body.dataset.head = next.body.dataset.head;
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = next.getElementById(part.id);
      // What somebody is at is left alone: an open menu, a focused control, a selection.
      if (!fresh || part.contains(document.activeElement) || part.innerHTML === fresh.innerHTML) continue;
      const selected = getSelection();
      if (selected && !selected.isCollapsed && part.contains(selected.anchorNode)) continue;
      const open = new Set([...part.querySelectorAll("details[open] > summary")].map(s => s.textContent));
      part.replaceChildren(...[...fresh.childNodes].map(n => document.importNode(n, true)));
      for (const s of part.querySelectorAll("details > summary")) if (open.has(s.textContent)) s.parentElement.open = true;
      part.toggleAttribute("data-busy", fresh.hasAttribute("data-busy"));
    }
  } catch (error) {
    // The service is away; the stream comes back when it does.
  } finally {
    refreshing = false;
    if (again) { again = false; setTimeout(refresh, 1000); }
  }
}

if (document.querySelector("[data-live]") && !new URLSearchParams(location.search).get("cursor")) {
  let stream, soon, later, last = 0;
  // What was recorded is in the tables some milliseconds later; what takes longer is caught by a second look. A busy ledger is
  // looked at every two seconds.
  const look = () => { soon = null; last = Date.now(); refresh(); };
  const moved = () => { soon ??= setTimeout(look, Math.max(300, last + 2000 - Date.now())); clearTimeout(later); later = setTimeout(refresh, 2500); };
  const listen = () => { stream = new EventSource("/live?after=" + document.body.dataset.head); stream.addEventListener("moved", moved); };
  // A page that nobody sees asks for nothing.
  const watch = () => { if (document.hidden) { stream?.close(); stream = null; } else if (!stream) { listen(); refresh(); } };
  if (!document.hidden) listen();
  document.addEventListener("visibilitychange", watch);
  setInterval(() => { if (document.querySelector("[data-live][data-busy]")) refresh(); }, 1000);
}

for (const link of document.querySelectorAll("[data-copy]")) link.addEventListener("click", event => {
  event.preventDefault();
  navigator.clipboard?.writeText(link.href).then(() => { link.textContent = "Link copied"; });
});

for (const input of document.querySelectorAll("[data-submit]")) input.addEventListener("change", () => input.form.requestSubmit());

// take puts a part of another answer in the place of ours.
function take(html, id) {
  const next = new DOMParser().parseFromString(html, "text/html").getElementById(id), part = document.getElementById(id);
  if (next && part) part.replaceChildren(...[...next.childNodes].map(n => document.importNode(n, true)));
  return Boolean(next && part);
}

// partsOf takes a template apart as highlight.go does: [class, text] after [class, text].
const twigs = [["{#", "#}", "t-comment"], ["{%", "%}", "t-tag"], ["{{", "}}", "t-var"]];
const key = /"(?:[^"\\{\n]|\\.|\{[^{%#\n])*"\s*:|[\w$.-]+:(?=\s)/y, literal = /(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\b/y;
function partsOf(source) {
  const parts = [];
  let plain = "", quoted = false, word = true, first = true; // first: nothing but blanks stood on the line so far
  const flush = () => { if (plain) parts.push([quoted ? "t-text" : "", plain]); plain = ""; };
  for (let i = 0; i < source.length;) {
    const twig = twigs.find(t => source.startsWith(t[0], i));
    if (twig) {
      const end = source.indexOf(twig[1], i + 2), to = end < 0 ? source.length : end + 2;
      flush();
      parts.push([twig[2], source.slice(i, to)]);
      i = to; word = true; first = false;
      continue;
    }
    const c = source[i];
    if (quoted && c === "\\" && i + 1 < source.length) { plain += source.slice(i, i + 2); i += 2; continue; }
    if (c === '"' && quoted) { plain += c; flush(); quoted = false; } else if (c === "\n" && quoted) { flush(); quoted = false; plain = c; } else if (!quoted) {
      key.lastIndex = literal.lastIndex = i;
      let m;
      if ((c === '"' || first) && (m = key.exec(source))) { flush(); parts.push(["t-key", m[0]]); i += m[0].length; first = word = false; continue; }
      if (word && (m = literal.exec(source))) { flush(); parts.push(["t-lit", m[0]]); i += m[0].length; first = word = false; continue; }
      if (c === '"') { flush(); quoted = true; }
      plain += c;
    } else plain += c;
    word = " \t\n:,[({".includes(c);
    first = c === "\n" || first && (c === " " || c === "\t");
    i++;
  }
  flush();
  return parts;
}

const editor = document.getElementById("editor");
if (editor) {
  document.documentElement.classList.add("js");
  const file = document.getElementById("file"), paint = editor.querySelector(".paint"), area = file.parentElement;

  // lineOf is the line of the file, from 0, that a line of one of its templates is; -1 when it cannot be told.
  const lineOf = (part, line) => {
    const name = part.replace(/^(headers|form)\//, ""), inside = name !== part, lines = file.value.split("\n");
    const at = lines.findIndex(l => inside ? l.trimStart() !== l && l.trimStart().replace(/["']/g, "").toLowerCase().startsWith(name.toLowerCase() + ":") : l.startsWith(name + ":"));
    if (at < 0) return -1;
    return /:\s*[|>][-+\d]*\s*$/.test(lines[at]) ? at + line : at;
  };
  const missing = () => [...document.querySelectorAll("#preview [data-unresolved]")].map(a => ({ name: a.dataset.unresolved, line: lineOf(a.dataset.part, Number(a.dataset.line)) }));
  const repaint = () => {
    const lacks = missing(), spans = [];
    let line = 0;
    for (const [kind, text] of partsOf(file.value)) {
      const last = line + text.split("\n").length - 1;
      if (!kind) { spans.push(text); line = last; continue; }
      const span = document.createElement("span");
      const lack = (kind === "t-var" || kind === "t-tag") && lacks.find(u => line <= u.line && u.line <= last && text.includes(u.name));
      span.className = lack ? kind + " missing" : kind;
      span.textContent = text;
      spans.push(span);
      line = last;
    }
    paint.replaceChildren(...spans, "\n");
    follow();
  };
  const follow = () => { paint.scrollTop = file.scrollTop; paint.scrollLeft = file.scrollLeft; };
  area.classList.add("painted");
  new ResizeObserver(() => { paint.style.height = file.offsetHeight + "px"; }).observe(file);
  file.addEventListener("scroll", follow);
  file.addEventListener("keydown", event => {
    if (event.key === "Escape") { editor.dataset.tab = "off"; return; } // then Tab moves on, as everywhere
    if (event.key !== "Tab" || event.shiftKey || event.altKey || event.ctrlKey || editor.dataset.tab === "off") return;
    event.preventDefault();
    file.setRangeText("  ", file.selectionStart, file.selectionEnd, "end");
    file.dispatchEvent(new Event("input", { bubbles: true }));
  });
  file.addEventListener("focus", () => { delete editor.dataset.tab; });

  // ask sends the form to one of its addresses and takes one part of the answer. Only the newest answer for a part counts.
  const newest = {};
  const ask = async (address, into) => {
    const mine = newest[into] = Symbol(), part = document.getElementById(into);
    part.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, { method: "POST", body: new URLSearchParams(new FormData(editor)), headers: { "X-Fragment": "1" } });
      if (answer.status === 401) location.reload();
      const html = await answer.text();
      if (mine === newest[into]) take(html, into);
    } catch (error) {
      // The service is away; the next stroke asks again.
    } finally {
      if (mine === newest[into]) part.removeAttribute("aria-busy");
      repaint();
    }
  };
  let timer;
  const changed = () => { clearTimeout(timer); timer = setTimeout(() => ask(editor.dataset.preview, "preview"), 350); };
  editor.addEventListener("input", event => {
    if (event.target === file) repaint();
    if (event.target === file || event.target.id === "context") changed();
  });
  editor.addEventListener("click", async event => {
    const button = event.target.closest("button[data-into]"), lack = event.target.closest("[data-unresolved]");
    if (button) {
      event.preventDefault();
      await ask(button.formAction, button.dataset.into);
      if (button.dataset.into === "contexts") changed();
    }
    if (lack) {
      event.preventDefault();
      const line = lineOf(lack.dataset.part, Number(lack.dataset.line)), lines = file.value.split("\n");
      const start = lines.slice(0, Math.max(0, line)).join("\n").length + (line > 0 ? 1 : 0), at = file.value.indexOf(lack.dataset.unresolved, start);
      file.focus();
      if (at >= 0) file.setSelectionRange(at, at + lack.dataset.unresolved.length);
      file.scrollTop = Math.max(0, line - 5) * parseFloat(getComputedStyle(file).lineHeight);
    }
  });
  repaint();
  if (!document.querySelector("#preview > *")) ask(editor.dataset.preview, "preview");
  let dirty = false;
  file.addEventListener("input", () => { dirty = true; });
  editor.addEventListener("submit", () => { dirty = false; });
  addEventListener("beforeunload", event => { if (dirty) event.preventDefault(); });
}
