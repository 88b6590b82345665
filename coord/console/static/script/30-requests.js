// Requests that fail, and answers that come late.

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
    // A page may have several.
    const part = (at.closest("section") ?? document).querySelector("h1, h2");
    if (part) again.setAttribute("aria-label", `Try again: ${part.textContent.trim()}`);
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
const searches = "#q, #palette-q";

document.addEventListener("htmx:before:request", (e) => {
  const { sourceElement: from, target } = e.detail?.ctx ?? {};
  if (from?.matches?.(searches) && target instanceof Element) target.dataset.waiting = "";
});
document.addEventListener("htmx:finally:request", (e) => {
  const { sourceElement: from, target, status } = e.detail?.ctx ?? {};
  if (from?.matches?.(searches) && target instanceof Element && !String(status).startsWith("error")) {
    delete target.dataset.waiting;
    lost = false;
  }
});
