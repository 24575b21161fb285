"use strict";
// The page is whole without this: it adds the search, and arrows to move in the tree.

const search = document.getElementById("search");
const field = document.getElementById("query");
const found = document.getElementById("found");
const tree = document.querySelector(".tree");
/** More rows than these are counted and not opened: nobody reads them, and browsers are slow at it. */
const SHOWN = 300;

search.hidden = false;

/** Every session: where it stands in the page, what can be searched of it, which ports it has. */
let sessions;
function index() {
  sessions ??= [...tree.querySelectorAll("[data-ports]")].map((element) => {
    const own = element.matches("li")
      ? [...element.querySelectorAll(":scope > details > summary, :scope > details > .body > :not(.members)")]
      : [element];
    const text = own.map((part) => part.textContent).join(" ").toLowerCase();
    const ports = (element.dataset.ports.match(/\d+-\d+/g) ?? []).map((block) => block.split("-").map(Number));
    return { element, text, ports };
  });
  return sessions;
}

function matches(session, words) {
  return words.every((word) => {
    if (session.text.includes(word)) return true;
    if (!/^\d+$/.test(word)) return false;
    const port = Number(word);
    return session.ports.some(([start, end]) => start <= port && port <= end);
  });
}

/** Which parts were open before anything was searched for. */
let before = null;

function filter() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = index();
  if (words.length === 0) {
    for (const element of tree.querySelectorAll("[hidden]")) element.hidden = false;
    before?.forEach((open, details) => { details.open = open; });
    before = null;
    found.value = "";
    return;
  }
  before ??= new Map([...tree.querySelectorAll("details")].map((details) => [details, details.open]));
  const hits = all.filter((session) => matches(session, words));
  const visible = new Set();
  const show = (element) => {
    for (let above = element; above && above !== tree; above = above.parentElement) visible.add(above);
  };
  for (const { element } of hits) show(element);
  // An entry that stands for many counts by its rows: those that match, or where only the entry does, all of them.
  let count = 0;
  for (const { element } of hits) {
    const members = element.querySelector(":scope > details > .body > .members");
    if (!members) {
      count += 1;
    } else if (!visible.has(members)) {
      for (const row of members.querySelectorAll("tr[data-ports]")) visible.add(row);
      count += Number(element.dataset.count);
    }
  }
  for (const element of tree.querySelectorAll("li, [data-ports]")) element.hidden = !visible.has(element);
  const few = count <= SHOWN;
  const says = (texts) => words.some((word) => texts.textContent.toLowerCase().includes(word));
  before.forEach((open, details) => {
    if (details.matches(".texts")) {
      details.open = few && visible.has(details.parentElement.closest("li")) && says(details);
    } else {
      details.open = visible.has(details) && (few || (open && !details.matches(".members")));
    }
  });
  found.value = `${count.toLocaleString("en")} ${count === 1 ? "session" : "sessions"}`;
}

let pending = 0;
field.addEventListener("input", () => {
  clearTimeout(pending);
  pending = setTimeout(filter, 80);
});
search.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(pending);
  filter();
  stops()[0]?.focus();
});

/** What arrows move between: everything in the tree that opens and can be seen. */
function stops() {
  return [...tree.querySelectorAll("summary")].filter((summary) => summary.checkVisibility({ contentVisibilityAuto: true }));
}

tree.addEventListener("keydown", (event) => {
  const summary = event.target.closest("summary");
  if (!summary || event.ctrlKey || event.altKey || event.metaKey) return;
  const details = summary.parentElement;
  const all = stops();
  const at = all.indexOf(summary);
  let next;
  switch (event.key) {
    case "ArrowDown": next = all[at + 1]; break;
    case "ArrowUp": next = all[at - 1]; break;
    case "Home": next = all[0]; break;
    case "End": next = all.at(-1); break;
    case "ArrowRight":
      if (!details.open) details.open = true;
      else next = details.contains(all[at + 1]) ? all[at + 1] : undefined;
      break;
    case "ArrowLeft":
      if (details.open) details.open = false;
      else next = details.parentElement.closest("details")?.querySelector(":scope > summary");
      break;
    default: return;
  }
  event.preventDefault();
  next?.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "/" && event.target !== field) {
    event.preventDefault();
    field.focus();
    field.select();
  } else if (event.key === "Escape" && field.value !== "") {
    field.value = "";
    filter();
    field.focus();
  } else if (event.key === "ArrowDown" && event.target === field) {
    event.preventDefault();
    stops()[0]?.focus();
  }
});

/** A link to a session opens what it stands in. */
function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target || !tree.contains(target)) return;
  for (let above = target; above !== tree; above = above.parentElement) {
    if (above.matches("details")) above.open = true;
  }
  const details = target.querySelector(":scope > details");
  if (details) {
    details.open = true;
    details.querySelector("summary").focus({ preventScroll: true });
  }
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
if (location.hash) reveal();
