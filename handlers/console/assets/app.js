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
  let stream, timer;
  const listen = () => {
    stream = new EventSource("/live");
    let first = true;
    stream.addEventListener("moved", () => {
      if (first) { first = false; return; } // the page itself is as new
      clearTimeout(timer);
      timer = setTimeout(refresh, 300);
    });
  };
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

const editor = document.getElementById("editor");
if (editor) {
  const file = document.getElementById("file"), context = document.getElementById("context"), paint = editor.querySelector(".paint"), area = file.parentElement;
  const token = /(\{#[^]*?#\})|(\{%[^]*?%\})|(\{\{[^]*?\}\})|(^[ \t]*[\w$.-]+:|"(?:[^"\\{\n]|\\.)*"\s*:)|("(?:[^"\\{\n]|\\.)*")|(\b(?:true|false|null|-?\d+(?:\.\d+)?)\b)|(^[ \t]*#.*$)/gm;
  const classes = ["", "t-comment", "t-tag", "t-var", "t-key", "t-text", "t-lit", "t-comment"];
  const repaint = () => {
    const text = file.value, parts = [];
    let at = 0;
    for (const m of text.matchAll(token)) {
      parts.push(text.slice(at, m.index));
      const span = document.createElement("span");
      span.className = classes[m.slice(1).findIndex(g => g !== undefined) + 1];
      span.textContent = m[0];
      parts.push(span);
      at = m.index + m[0].length;
    }
    parts.push(text.slice(at) + "\n");
    paint.replaceChildren(...parts);
    follow();
  };
  const follow = () => { paint.scrollTop = file.scrollTop; paint.scrollLeft = file.scrollLeft; };
  area.classList.add("painted");
  new ResizeObserver(() => { paint.style.height = file.offsetHeight + "px"; }).observe(file);
  file.addEventListener("scroll", follow);
  file.addEventListener("keydown", event => {
    if (event.key !== "Tab" || event.shiftKey || event.altKey || event.ctrlKey || editor.dataset.tab === "off") return;
    event.preventDefault();
    file.setRangeText("  ", file.selectionStart, file.selectionEnd, "end");
    file.dispatchEvent(new Event("input", { bubbles: true }));
  });
  file.addEventListener("keyup", event => { if (event.key === "Escape") editor.dataset.tab = "off"; }); // then Tab moves on, as everywhere

  let timer, last;
  const preview = async () => {
    const form = new FormData(editor), mine = (last = Symbol());
    try {
      const answer = await fetch(editor.dataset.preview, { method: "POST", body: new URLSearchParams(form), headers: { "X-Fragment": "1" } });
      const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("preview");
      if (mine === last && next) document.getElementById("preview").replaceChildren(...[...next.childNodes].map(n => document.importNode(n, true)));
    } catch (error) {
      // The service is away; the next stroke asks again.
    }
  };
  const changed = () => { clearTimeout(timer); timer = setTimeout(preview, 350); };
  file.addEventListener("input", () => { repaint(); changed(); });
  context.addEventListener("input", changed);
  repaint();
  if (!document.querySelector("#preview > *")) preview();
  let dirty = false;
  editor.addEventListener("input", () => { dirty = true; });
  editor.addEventListener("submit", () => { dirty = false; });
  addEventListener("beforeunload", event => { if (dirty) event.preventDefault(); });
}
