// The script that stands in the page. The stream of events begins while the other scripts
// are on their way; ../script/20-live.js hands it to htmx.
const firstStream = new AbortController();
firstStream.answer = fetch(document.getElementById("live").getAttribute("hx-sse:connect"), { headers: { Accept: "text/event-stream" }, signal: firstStream.signal });
firstStream.answer.catch(() => {}); // whoever waits for it is told
