// The console's own script: what HTML and htmx do not do. Every page works
// without it. No markup is made here, only text, so there is nothing to escape.
// All files here make one script, in the order of their names.
"use strict";

let toastTimer;

// say shows a note for a moment, or until the next one; undo is what takes back what it says,
// for 10 seconds.
function say(text, stay, undo) {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  if (undo) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "undo";
    button.textContent = "Undo";
    button.onclick = () => {
      toast.classList.remove("shown");
      undo();
    };
    toast.append(" ", button);
  }
  toast.classList.add("shown");
  clearTimeout(toastTimer);
  if (!stay) toastTimer = setTimeout(() => toast.classList.remove("shown"), undo ? 10_000 : 2400);
}
