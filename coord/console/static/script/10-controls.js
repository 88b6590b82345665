// Buttons, fields and keys.

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
  label(button, ok ? "Copied" : "Selected");
  button.classList.add("done");
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    label(button, "Copy");
    button.classList.remove("done");
  }, 1600);
}

// The name of such a button is its text, and what it copies.
function label(button, text) {
  const name = button.getAttribute("aria-label");
  if (name) button.setAttribute("aria-label", text + name.slice(button.textContent.length));
  button.textContent = text;
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
  // "/" goes to the search field of a page, and where there is none to the palette.
  if (e.key === "/" && document.body.dataset.user && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    e.preventDefault();
    const search = document.getElementById("q");
    if (search) {
      search.focus();
      search.select();
    } else openPalette();
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
