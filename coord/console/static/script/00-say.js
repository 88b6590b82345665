// The console's own script: what HTML and htmx do not do. Every page works
// without it. No markup is made here, only text, so there is nothing to escape.
// All files here make one script, in the order of their names.
"use strict";

let toastTimer;
function say(text, stay) {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(toastTimer);
  if (!stay) toastTimer = setTimeout(() => toast.classList.remove("shown"), 2400);
}
