// The list of devices. Without this it is pages of 50 with boxes to tick. With it, the rows
// around what is in view are fetched as one scrolls, what was ticked stays so while rows come
// and go, and a bar at the foot says how many there are.

const rowsWanted = () => document.getElementById("rows");
const boxes = () => [...(rowsWanted()?.querySelectorAll("input[name=id]") ?? [])];

// What is ticked, by id, whether or not its row is here.
const ticked = new Set();
const mostTicked = 1000;
let anchor = null; // the place in the list of the box that was last clicked
let listed = ""; // the list, with its filter and order, that ticked and anchor are of

const number = (el, name) => Number(el.dataset[name]);

// Every row is as high as the others, so that one of them is measured once for each size of
// the window: measuring has the browser lay out all rows at once.
let height = 0;
function rowHeight() {
  const row = rowsWanted()?.firstElementChild;
  if (!row) return 0;
  return (height ||= row.getBoundingClientRect().height);
}
addEventListener("resize", () => (height = 0));
document.fonts?.addEventListener("loadingdone", () => (height = 0));

function gap(id, height) {
  const body = document.getElementById(id);
  if (!body) return;
  body.hidden = height <= 0;
  body.firstElementChild.style.height = `${height}px`;
}

// The list is as high as if all its rows were here.
function stretch() {
  const rows = rowsWanted();
  const height = rowHeight();
  if (!rows || !height) return;
  const [from, total, here] = [number(rows, "from"), number(rows, "total"), rows.children.length];
  gap("gap-before", from * height);
  gap("gap-after", Math.max(0, total - from - here) * height);
  document.getElementById("list").classList.add("stretched");
}

// Rows that were fetched and are not in view wait here until they nearly are, or until nobody
// scrolls: while one scrolls fast they are gone before anybody sees them. They are put in some
// at a time, since to style, lay out and draw all of them takes longer than a frame lasts.
const ahead = 4; // rows that are put in before they are in view
const perFrame = 12;
let early = []; // before the first row of the list
let late = []; // after the last one
function putMore(up) {
  const rows = rowsWanted();
  if (!rows) return;
  const below = late.splice(0, up ? 0 : perFrame);
  const above = early.splice(Math.max(0, early.length - (perFrame - below.length)));
  rows.append(...below);
  rows.prepend(...above);
  rows.dataset.from = number(rows, "from") - above.length;
  showBoxes([...below, ...above]);
  stretch();
}
let resting = 0;
function putRest(wait = 100) {
  clearTimeout(resting);
  if (!early.length && !late.length) return;
  resting = setTimeout(requestAnimationFrame, wait, () => {
    putMore(!late.length);
    putRest(0);
  });
}

// keep brings a row up to date cell by cell, so that one that is the same is not drawn again
// and what has the focus keeps it.
function keep(row, then) {
  if (row.isEqualNode(then)) return;
  if (row.cells.length !== then.cells.length) return row.replaceWith(then);
  row.setAttribute("aria-rowindex", then.getAttribute("aria-rowindex"));
  [...then.cells].forEach((cell, i) => {
    const was = row.cells[i];
    if (was.isEqualNode(cell)) return;
    const focused = was.contains(document.activeElement) && document.activeElement.tagName;
    was.replaceWith(cell);
    if (focused) cell.querySelector(focused)?.focus({ preventScroll: true });
  });
}

// place puts the rows of an answer in place of those that are here. Those in view come now,
// and those beside them that are here already stay. htmx leaves the rows alone (hx-morph-skip): to
// compare each with the others takes it longer than to draw them.
function place(rows, then) {
  const had = new Map([...rows.children].map((row) => [row.id, row]));
  const wanted = [...then.children];
  const from = number(then, "from");
  const [first, last] = rowHeight() ? inView() : [0, Infinity];
  const within = (i) => Math.min(Math.max(i - from, 0), wanted.length);
  let [begin, end] = [within(first - ahead), within(last + ahead)];
  if (begin === end) [begin, end] = [0, Math.min(perFrame, wanted.length)];
  // With a place between them for a row that is new.
  const stays = (...places) => places.some((i) => had.has(wanted[i]?.id));
  while (stays(begin - 1, begin - 2)) begin--;
  while (stays(end, end + 1)) end++;
  early = wanted.slice(0, begin);
  late = wanted.slice(end);
  const ids = new Set(wanted.slice(begin, end).map((row) => row.id));
  for (const [id, row] of had) if (!ids.has(id)) row.remove();
  let at = rows.firstElementChild;
  for (const row of wanted.slice(begin, end)) {
    const here = had.get(row.id);
    if (here && here === at) at = at.nextElementSibling;
    else if (here && rows.moveBefore) rows.moveBefore(here, at);
    else rows.insertBefore(here ?? row, at);
    if (here) keep(here, row);
  }
  Object.assign(rows.dataset, then.dataset, { from: from + begin });
  then.replaceChildren();
  putRest();
}

// Around the rows one answer differs from the next by little, which is brought up to date
// here. surround reports whether that was all; else htmx has to compare everything.
const varies = ".result, .pages, #bulk > [name=back]";
let surroundings = "";
function surround(list, then) {
  const bare = then.cloneNode(true);
  const parts = [...bare.querySelectorAll(varies)];
  for (const part of parts) part.remove();
  bare.removeAttribute("hx-get");
  for (const name of ["at", "from", "total"]) delete bare.querySelector("#rows").dataset[name];
  const here = list ? [...list.querySelectorAll(varies)] : [];
  const same = bare.outerHTML === surroundings && here.length === parts.length && !list.querySelector(":scope > .failed");
  surroundings = bare.outerHTML;
  if (!same) return false;
  list.setAttribute("hx-get", then.getAttribute("hx-get"));
  here.forEach((part, i) => {
    if (part.isEqualNode(parts[i])) return;
    if (!part.matches(".result")) return part.replaceWith(parts[i]);
    // These stay themselves: a screen reader says what changes in them.
    [...part.children].forEach((el, n) => el.isEqualNode(parts[i].children[n]) || el.replaceChildren(...parts[i].children[n].childNodes));
  });
  return true;
}

// inView is the range of places that are in view, whether or not their rows are here.
function inView() {
  const [rows, height] = [rowsWanted(), rowHeight()];
  const top = rows.getBoundingClientRect().top - number(rows, "from") * height;
  const total = number(rows, "total");
  const first = Math.min(total, Math.max(0, Math.floor(-top / height)));
  return [first, Math.min(total, Math.max(first, Math.ceil((innerHeight - top) / height)))];
}

// Rows are fetched for two screens, in steps: half of one before and after what is in view,
// so that a little scrolling asks for nothing. More rows would take longer to draw than they
// last where one scrolls fast.
function windowWanted() {
  const [first, last] = inView();
  const margin = Math.max(10, Math.ceil((last - first) / 2));
  const from = Math.max(0, Math.floor((first - margin) / 10) * 10);
  return [from, Math.min(300, Math.ceil((last + margin - from) / 10) * 10)];
}

// fill asks before what is in view has come to the end of what is here. While one scrolls so
// fast that each answer would replace all rows it asks four times a second: each such answer
// holds the page up.
let jumped = -Infinity;
let jumping = 0;
function fill() {
  const rows = rowsWanted();
  if (!rows || !rowHeight() || typeof htmx === "undefined") return;
  const [first, last] = inView();
  const before = Math.max(0, first - ahead);
  const after = Math.min(number(rows, "total"), last + ahead);
  const from = number(rows, "from");
  const end = from + rows.children.length;
  if (before >= from && after <= end) return;
  const [earliest, latest] = [from - early.length, end + late.length];
  if (before >= earliest && after <= latest) {
    putMore(before < from);
    scrolled(); // it may need more than that
    return;
  }
  const wait = first >= latest || last <= earliest ? jumped + 250 - performance.now() : 0;
  if (wait > 0) {
    jumping ||= setTimeout(() => {
      jumping = 0;
      fill();
    }, wait);
    return;
  }
  jumped = performance.now();
  htmx.trigger("#list", "window");
}

let filling = 0;
function scrolled() {
  putRest();
  filling ||= requestAnimationFrame(() => {
    filling = 0;
    fill();
  });
}
// htmx hears of the list once it has looked at it, which may be after the page has loaded and
// been scrolled to where it was.
document.addEventListener("htmx:after:process", scrolled);
addEventListener("scroll", scrolled, { passive: true });
addEventListener("resize", () => {
  stretch();
  scrolled();
});

function showBoxes(rows) {
  for (const row of rows) {
    const box = row.querySelector("input[name=id]");
    if (box) box.checked = ticked.has(box.value);
  }
}

// The bar.
function showTicked() {
  const [rows, bar] = [rowsWanted(), document.getElementById("bar")];
  if (!rows || !bar) return;
  showBoxes(rows.children);
  bar.classList.add("floating");
  bar.hidden = !ticked.size;
  const total = number(rows, "total");
  document.getElementById("chosen").textContent = `${ticked.size.toLocaleString("en")} selected`;
  const all = document.getElementById("choose-all");
  all.hidden = ticked.size >= Math.min(total, mostTicked);
  all.textContent = total > mostTicked ? `Select the first ${mostTicked.toLocaleString("en")}` : `Select all ${total.toLocaleString("en")} that match`;
  document.getElementById("choose-none").hidden = false;
  const everything = bar.querySelector(".everything");
  everything.hidden = true;
  everything.firstElementChild.checked = false;
}

function tick(ids, on) {
  for (const id of ids) {
    if (!on) ticked.delete(id);
    else if (ticked.size < mostTicked) ticked.add(id);
    else {
      say(`At most ${mostTicked.toLocaleString("en")} devices can be changed at once.`);
      break;
    }
  }
  showTicked();
}

// idsOf fetches ids of the list from a place on.
async function idsOf(from, n) {
  const at = new URL(rowsWanted().dataset.at, location.href);
  at.pathname = "/devices/ids";
  at.searchParams.set("from", from);
  at.searchParams.set("n", n);
  const res = await fetch(at);
  if (!res.ok) throw new Error(res.status);
  return (await res.json()).ids;
}

async function tickRange(from, n, on) {
  try {
    tick(await idsOf(from, n), on);
  } catch {
    say("The server did not answer. Nothing more was selected.");
    showTicked();
  }
}

document.addEventListener("click", (e) => {
  const box = e.target.closest?.("#rows input[name=id]");
  if (box) {
    const rows = rowsWanted();
    const place = number(rows, "from") + [...rows.children].indexOf(box.closest("tr"));
    const [start, end] = [Math.min(anchor ?? place, place), Math.max(anchor ?? place, place)];
    if (e.shiftKey && anchor !== null && end > start) {
      const from = number(rows, "from");
      const here = boxes();
      if (start >= from && end < from + here.length) tick(here.slice(start - from, end - from + 1).map((b) => b.value), box.checked);
      else tickRange(start, end - start + 1, box.checked);
    } else tick([box.value], box.checked);
    anchor = place;
  }
  if (e.target.id === "choose-all") tickRange(0, mostTicked, true);
  if (e.target.id === "choose-none") {
    tick([...ticked], false);
    boxes()[0]?.focus();
  }
});

// What is sent is what is ticked, also where the row is not here.
document.addEventListener("formdata", (e) => {
  if (e.target.getAttribute("id") !== "bulk") return; // its id is a field of it
  e.formData.delete("id");
  for (const id of ticked) e.formData.append("id", id);
});

// Enter in a field of the bar does what the button beside it does.
document.addEventListener("keydown", (e) => {
  const field = e.key === "Enter" && e.target.closest?.("#bar input:not([type=checkbox])");
  if (!field) return;
  e.preventDefault();
  field.parentElement.querySelector("button").click();
});

let unseen = false;
document.addEventListener("visibilitychange", () => {
  if (unseen && !document.hidden) refresh();
  unseen &&= document.hidden;
});

// Requests of the list ask for the rows that are wanted now; an answer to an older question
// is not shown.
document.addEventListener("htmx:config:request", (e) => {
  const { sourceElement, request } = e.detail.ctx;
  if (sourceElement.id !== "list") return;
  if (document.hidden) { // fetched once somebody looks
    unseen = true;
    return e.preventDefault();
  }
  if (!rowsWanted() || !rowHeight()) return;
  const at = new URL(rowsWanted().dataset.at, location.href);
  const [from, n] = windowWanted();
  at.searchParams.set("from", from);
  at.searchParams.set("n", n);
  request.action = at.pathname + at.search;
  request.asked = rowsWanted().dataset.at;
});
// An answer that is what is shown changes nothing.
let shown = "";
document.addEventListener("htmx:after:request", (e) => {
  const { sourceElement, target, text } = e.detail.ctx;
  if (sourceElement?.id === "list" && text === shown && !lost && !target.querySelector(":scope > .failed")) e.preventDefault();
});
document.addEventListener("htmx:after:swap", (e) => {
  const { sourceElement, text } = e.detail.ctx;
  if (document.getElementById("list")) shown = sourceElement?.id === "list" ? text : "";
});

const listOf = (at) => {
  const url = new URL(at, location.href);
  url.searchParams.delete("from");
  return url.search;
};
document.addEventListener("htmx:before:swap", (e) => {
  const { sourceElement, request } = e.detail.ctx;
  if (sourceElement?.id === "list" && request.asked && rowsWanted() && listOf(request.asked) !== listOf(rowsWanted().dataset.at)) return e.preventDefault();
  for (const task of [...e.detail.tasks]) {
    const list = task.fragment?.querySelector("#list");
    if (!list) continue;
    early = late = [];
    const rows = list.querySelector("#rows");
    if (!rows || !rowsWanted()) continue;
    wake(rows); // rows that did not change are the same as those that are here
    place(rowsWanted(), rows);
    if (surround(document.getElementById("list"), list) && sourceElement.id === "list") e.detail.tasks.splice(e.detail.tasks.indexOf(task), 1);
  }
});

// However much changes, the list is fetched at most once a second (listTick in events.go).
let due = 0;
let fetched = -Infinity;
function refresh() {
  due ||= setTimeout(() => {
    due = 0;
    fetched = performance.now();
    if (document.getElementById("list")) htmx.trigger("#list", "fresh");
  }, Math.max(0, fetched + 1000 - performance.now()));
}
document.addEventListener("devices", refresh);
document.addEventListener("resync", refresh);

function settle() {
  const rows = rowsWanted();
  if (!rows) return;
  const now = listOf(rows.dataset.at);
  if (now !== listed) {
    ticked.clear();
    anchor = null;
    listed = now;
  }
  stretch();
  showTicked();
  scrolled();
}
document.addEventListener("htmx:after:swap", settle);
// What a page kept by the browser had ticked is not known here.
settle();
