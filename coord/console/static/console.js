// The console's own script: what HTML and htmx do not do. Every page works
// without it. No markup is made here, only text, so there is nothing to escape.
"use strict";

// Buttons that only make sense with this script are hidden until it is there.
function wake(root) {
  for (const b of root.querySelectorAll("button[data-copy], button[data-reveal]")) b.hidden = false;
  for (const i of root.querySelectorAll("input[data-must-be]")) checkName(i);
}

async function copy(button) {
  const text = button.dataset.copy;
  let ok = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain HTTP on an address other than loopback has no clipboard: select
    // the text, so that the keyboard can copy it.
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    ok = document.execCommand("copy");
  }
  say(ok ? "Copied" : "Selected, press Ctrl+C");
  button.textContent = ok ? "Copied" : "Selected";
  button.classList.add("done");
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = "Copy";
    button.classList.remove("done");
  }, 1600);
}

function reveal(button) {
  const input = document.getElementById(button.dataset.reveal);
  const show = input.type === "password";
  input.type = show ? "text" : "password";
  button.textContent = show ? "Hide" : "Show";
  button.setAttribute("aria-pressed", String(show));
  input.focus();
}

// What is wrong with a line of the policy leads to it.
function goTo(button) {
  const area = document.getElementById("policy");
  const lines = area.value.split("\n");
  const line = Math.min(Number(button.dataset.line), lines.length);
  const start = lines.slice(0, line - 1).reduce((n, l) => n + l.length + 1, 0);
  const column = [...lines[line - 1]].slice(0, Number(button.dataset.column) - 1).join("").length;
  area.focus();
  area.setSelectionRange(start + column, start + lines[line - 1].length);
  area.scrollTop = (area.scrollHeight / lines.length) * Math.max(0, line - 4);
}

// A device is deleted only with its name typed; the server checks it again.
function checkName(input) {
  input.form.querySelector("button").disabled = input.value.trim().toLowerCase() !== input.dataset.mustBe.toLowerCase();
}

let toastTimer;
function say(text, stay) {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(toastTimer);
  if (!stay) toastTimer = setTimeout(() => toast.classList.remove("shown"), 2400);
}

function live(state, text) {
  const el = document.getElementById("live-state");
  if (!el) return;
  el.hidden = false;
  el.dataset.state = state;
  el.lastElementChild.textContent = text;
}

function signedOut() {
  keepTyped();
  // The server shows the sign-in page at this address, and leads back here.
  location.reload();
}

// What is shown is old once nothing was received for this long, whatever the connection
// looks like: the server sends a pulse every 3 seconds. After twice the time the
// connection is given up for a new one.
const silence = 10_000;
let received = performance.now();
let connection;

function hear() {
  received = performance.now();
  const note = document.getElementById("silent");
  if (!note || note.hidden) return;
  note.hidden = true;
  delete document.body.dataset.old;
  live("on", "Live");
  htmx.trigger(document.body, "resync");
}

function listen() {
  const note = document.getElementById("silent");
  if (!note || document.hidden) return;
  const silent = performance.now() - received;
  if (silent < silence) return;
  if (note.hidden) {
    const since = new Date(Date.now() - silent).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    note.textContent = `The server has not answered since ${since}. What is shown here may be out of date.`;
    note.hidden = false;
    document.body.dataset.old = "";
    live("lost", "No answer");
  }
  if (silent > 2 * silence) connection?.reader?.cancel();
}

// A request that failed says so where its answer would be, and can be tried again. The
// note is inside what the answer replaces.
function failed(ctx, why) {
  const at = ctx?.target instanceof Element && ctx.target.isConnected ? ctx.target : null;
  if (!at || at.id === "live") return;
  let note = at.querySelector(":scope > .failed");
  if (!note) {
    note = document.createElement("p");
    note.className = "problem failed";
    note.setAttribute("role", "alert");
    const again = document.createElement("button");
    again.type = "button";
    again.className = "retry";
    again.textContent = "Try again";
    note.append(document.createElement("span"), again);
    at.prepend(note);
  }
  note.firstChild.textContent = why;
  note.lastChild.onclick = () => {
    note.remove();
    htmx.ajax(ctx.request.method, ctx.request.action, { source: ctx.sourceElement, target: at });
  };
}

// A search that failed is made again when the list is next fetched for another reason, which
// says that the server is back.
let lost = false;

function askAgain() {
  const [q, list] = [document.getElementById("q"), document.getElementById("devices")];
  if (!lost || !q || !list) return;
  lost = false;
  htmx.ajax("GET", q.getAttribute("hx-get"), { source: q, target: list });
}

// What was typed into a form survives a session that ends meanwhile: it is kept in this
// tab while somebody signs in again, and filled in for the same user. Passwords and codes
// are not kept.
const draftTime = 15 * 60_000;

function typedIn(form) {
  return [...form.elements].filter((el) => el.name && !["password", "hidden", "file", "submit", "button"].includes(el.type) && el.autocomplete !== "one-time-code");
}

function keepTyped(form) {
  if (!document.body.dataset.user) return;
  const changed = (el) => (["checkbox", "radio"].includes(el.type) ? el.checked !== el.defaultChecked : el.options ? [...el.options].some((o) => o.selected !== o.defaultSelected) : el.value !== el.defaultValue);
  form ??= [...document.forms].find((f) => f.method === "post" && typedIn(f).some(changed));
  if (!form) return;
  const values = typedIn(form).map((el) => [el.name, el.value, el.checked ?? null]);
  const draft = { page: location.pathname, action: form.getAttribute("action"), user: document.body.dataset.user, at: Date.now(), values };
  sessionStorage.setItem("draft", JSON.stringify(draft));
}

function fillIn() {
  const draft = JSON.parse(sessionStorage.getItem("draft") ?? "null");
  if (!draft) return;
  if (!document.body.dataset.user) {
    // A page on the way back in.
    if (document.querySelector("form[action='/sign-in']")) sessionStorage.setItem("draft", JSON.stringify({ ...draft, signedOut: true }));
    return;
  }
  if (draft.signedOut && draft.user === document.body.dataset.user && location.pathname !== draft.page && Date.now() - draft.at < draftTime) return;
  sessionStorage.removeItem("draft");
  if (!draft.signedOut || draft.user !== document.body.dataset.user || Date.now() - draft.at >= draftTime) return;
  const form = [...document.forms].find((f) => f.getAttribute("action") === draft.action);
  if (!form) return;
  for (let d = form.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
  const rest = [...draft.values];
  for (const el of typedIn(form)) {
    const i = rest.findIndex(([name, value]) => name === el.name && (!["checkbox", "radio"].includes(el.type) || value === el.value));
    if (i < 0) continue;
    const [[, value, checked]] = rest.splice(i, 1);
    if (["checkbox", "radio"].includes(el.type)) el.checked = checked;
    else el.value = value;
  }
  say("You were signed out before this was saved. It is filled in again.", true);
  form.querySelector("button:not([type=button])")?.focus();
}

document.addEventListener("click", (e) => {
  const button = e.target.closest("button");
  if (button?.dataset.copy) copy(button);
  else if (button?.dataset.reveal) reveal(button);
  else if (button?.dataset.line) goTo(button);
});
document.addEventListener("input", (e) => {
  if (e.target.dataset.mustBe) checkName(e.target);
});
document.addEventListener("keydown", (e) => {
  // "/" goes to the search field, as in many lists.
  const search = document.getElementById("q");
  if (e.key === "/" && search && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    e.preventDefault();
    search.focus();
    search.select();
  }
  // Escape closes a confirmation.
  if (e.key === "Escape") {
    const open = document.activeElement.closest("details.confirm[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  }
});

document.addEventListener("submit", (e) => {
  if (e.target.method === "post" && !e.target.hasAttribute("hx-post")) keepTyped(e.target);
});

document.addEventListener("htmx:sse:after:connection", (e) => {
  connection = e.detail?.connection;
  live("on", "Live");
  hear();
});
document.addEventListener("htmx:sse:before:message", hear);
document.addEventListener("visibilitychange", () => (received = performance.now()));
setInterval(listen, 1000);
document.addEventListener("htmx:sse:error", (e) => {
  if (e.detail?.status === 401) signedOut();
  else live("lost", "Reconnecting");
});
document.addEventListener("htmx:sse:before:connection", (e) => {
  if (e.detail?.connection?.attempt > 0) live("lost", "Reconnecting");
});
document.addEventListener("signed-out", signedOut);
document.addEventListener("htmx:response:error", (e) => {
  const status = e.detail?.ctx?.response?.raw?.status;
  if (!status || status === 401) return;
  if (status === 404) say("This is not there any more.");
  else failed(e.detail.ctx, "The server could not do that.");
});
document.addEventListener("htmx:error", (e) => {
  if (e.detail?.ctx?.sourceElement?.id === "q") lost = true;
  failed(e.detail?.ctx, "The server did not answer. What is shown is from before.");
});
// Old rows do not pass for the answer to a new question.
document.addEventListener("htmx:before:request", (e) => {
  const { sourceElement: from, target } = e.detail?.ctx ?? {};
  if (from?.id === "q" && target instanceof Element) target.dataset.waiting = "";
});
document.addEventListener("htmx:finally:request", (e) => {
  const { sourceElement: from, target, status } = e.detail?.ctx ?? {};
  if (from?.id === "q" && target instanceof Element && !String(status).startsWith("error")) {
    delete target.dataset.waiting;
    lost = false;
  }
});
document.addEventListener("htmx:after:swap", () => {
  wake(document);
  askAgain();
});
// A page kept by the browser may be of a session that has ended since.
addEventListener("pageshow", (e) => {
  if (e.persisted) location.reload();
});
// The answer to a form with a mistake in it: reloading must not send it again.
if (document.body.dataset.here) history.replaceState(null, "", document.body.dataset.here);
wake(document);
fillIn();
