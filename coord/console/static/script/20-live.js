// The stream of events, and what is shown while it is silent.

function live(state, text) {
  const el = document.getElementById("live-state");
  if (!el) return;
  el.hidden = false;
  el.dataset.state = state;
  el.lastElementChild.textContent = text;
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
// The first connection has begun with the page (../early); if it failed, once more.
document.addEventListener("htmx:before:request", (e) => {
  const { ctx } = e.detail;
  if (ctx.sourceElement.id !== "live") return;
  ctx.fetch = (action, request) => {
    request.signal.addEventListener("abort", () => firstStream.abort());
    return firstStream.answer.catch(() => fetch(action, request));
  };
});
