// Keeps the figures fresh without a flicker: a section is replaced only when it changed, and what the
// reader opened stays open. Without this script the page is complete, and shows UTC.
"use strict";
const root = document.documentElement;
const every = 1000 * Number(root.dataset.every);
const shown = new Map();
const figures = document.getElementById("figures");
const pause = document.getElementById("pause");
const state = document.getElementById("state");
let timer = 0;
let paused = false;

function localTimes(within) {
  for (const mark of within.querySelectorAll("time[data-epoch]")) {
    const moment = new Date(1000 * Number(mark.dataset.epoch));
    const form = mark.dataset.form === "day" ? { day: "2-digit", month: "short" }
      : mark.dataset.form === "minute" ? { hour: "2-digit", minute: "2-digit" }
      : { hour: "2-digit", minute: "2-digit", second: "2-digit" };
    mark.title = moment.toLocaleString();
    mark.textContent = mark.dataset.form === "day"
      ? moment.toLocaleDateString(undefined, form) : moment.toLocaleTimeString(undefined, { ...form, hour12: false });
  }
  for (const word of within.querySelectorAll("[data-zone]")) word.textContent = "local time";
}

function swap(fresh) {
  const old = document.getElementById(fresh.id);
  const source = fresh.outerHTML;
  if (!old || shown.get(fresh.id) === source) return;
  shown.set(fresh.id, source);
  const open = [...old.querySelectorAll("details[open]")].map((one) => one.dataset.key);
  const focused = old.contains(document.activeElement) ? document.activeElement.closest("[data-key]") : null;
  const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  for (const one of fresh.querySelectorAll("details")) one.open = open.includes(one.dataset.key);
  localTimes(fresh);
  old.replaceWith(fresh);
  fresh.querySelectorAll(".scroll").forEach((one, number) => { one.scrollLeft = scrolled[number] || 0; });
  if (focused) {
    const again = [...fresh.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused.dataset.key);
    (again?.querySelector("summary") ?? again)?.focus({ preventScroll: true });
  }
}

async function refresh() {
  clearTimeout(timer);
  try {
    const answer = await fetch(`dashboard/data?range=${root.dataset.range}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const data = await answer.json();
    const made = document.createElement("template");
    made.innerHTML = data.html;
    const fresh = [...made.content.children];
    const names = (sections) => [...sections].map((one) => one.id).join();
    if (names(fresh) === names(figures.children)) fresh.forEach(swap);
    else {  // the first traffic, or the first books: other sections than before
      for (const one of fresh) {
        shown.set(one.id, one.outerHTML);
        localTimes(one);
      }
      figures.replaceChildren(...fresh);
    }
    state.textContent = `Updated ${new Date(1000 * data.at).toLocaleTimeString(undefined, { hour12: false })}`;
    state.classList.remove("stale");
    root.dataset.refreshed = String(Number(root.dataset.refreshed || 0) + 1);
  } catch (error) {
    state.textContent = `Not updated: ${error.message}`;
    state.classList.add("stale");
  }
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, every);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Go on" : "Pause";
  if (paused) clearTimeout(timer); else refresh();
});
document.addEventListener("visibilitychange", () => { if (!paused && !document.hidden) refresh(); });
for (const section of figures.children) shown.set(section.id, section.outerHTML);
localTimes(document);
schedule();
