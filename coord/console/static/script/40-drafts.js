// What was typed, kept over a session that ends.

let leaving = false; // for another page
addEventListener("beforeunload", () => (leaving = true));

function signedOut() {
  keepTyped();
  // The server shows the sign-in page at this address, and leads back here.
  // A form that begins another session, such as that of signing in again, ends the one of
  // this page before its answer is here: going there is not to be cut off.
  if (leaving) setTimeout(() => location.reload(), 5000);
  else location.reload();
}

// What was typed into a form survives a session that ends meanwhile: it is kept in this
// tab while somebody signs in again, and filled in for the same user. Passwords and codes
// are not kept.
const draftTime = 15 * 60_000;

function typedIn(form) {
  return [...form.elements].filter((el) => el.name && !["password", "hidden", "file", "submit", "button"].includes(el.type) && el.autocomplete !== "one-time-code");
}

// edited says whether somebody has changed a field since the page was drawn. A choice of
// which none was drawn as chosen stands on its first.
function edited(el) {
  if (["checkbox", "radio"].includes(el.type)) return el.checked !== el.defaultChecked;
  if (!el.options) return el.value !== el.defaultValue;
  const drawn = [...el.options].findIndex((o) => o.defaultSelected);
  return el.selectedIndex !== Math.max(drawn, 0);
}

function keepTyped(form) {
  if (!document.body.dataset.user) return;
  form ??= [...document.forms].find((f) => f.method === "post" && typedIn(f).some(edited));
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

document.addEventListener("submit", (e) => {
  if (e.target.method === "post" && !e.target.hasAttribute("hx-post")) keepTyped(e.target);
});

document.addEventListener("signed-out", signedOut);
