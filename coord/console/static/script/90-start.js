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
