// The palette: a dialog that finds devices, people, pages and actions. It asks the server
// only while it is open.

const palette = document.getElementById("palette");
const paletteField = document.getElementById("palette-q");
const mac = /^Mac|^iP/.test(navigator.platform);
let entered = false; // before there was an answer

function openPalette() {
  if (!palette || palette.open) return;
  closeMenus();
  entered = false;
  answered = undefined;
  paletteField.value = "";
  palette.showModal();
  window.htmx?.trigger(paletteField, "ask");
}

const foundOptions = () => [...palette.querySelectorAll("[role=option]")];

function choose(option) {
  for (const o of foundOptions()) o.setAttribute("aria-selected", String(o === option));
  paletteField.setAttribute("aria-expanded", String(Boolean(option)));
  if (option) paletteField.setAttribute("aria-activedescendant", option.id);
  else paletteField.removeAttribute("aria-activedescendant");
  option?.scrollIntoView({ block: "nearest" });
}

// An answer to another question than what is in the field does not count. One that has
// arrived is shown even when the next question is on its way: each knows what it answers.
const asked = new WeakMap(); // by request
let answered;

function enter() {
  entered = answered !== paletteField.value;
  if (!entered) document.getElementById(paletteField.getAttribute("aria-activedescendant"))?.click();
}

if (palette) {
  palette.addEventListener("click", (e) => {
    if (e.target === palette || e.target.closest(".close")) palette.close();
  });
  palette.addEventListener("pointermove", (e) => {
    const option = e.target.closest("[role=option]");
    if (option?.getAttribute("aria-selected") === "false") choose(option);
  });
  // It may be open before htmx has begun.
  paletteField.addEventListener("htmx:after:init", () => {
    if (palette.open) htmx.trigger(paletteField, "ask");
  });
  palette.addEventListener("close", () => (entered = false));
  paletteField.addEventListener("input", () => (entered = false));
  paletteField.form.addEventListener("submit", (e) => {
    e.preventDefault();
    enter();
  });
  paletteField.addEventListener("keydown", (e) => {
    const options = foundOptions();
    const at = options.findIndex((o) => o.getAttribute("aria-selected") === "true");
    if (e.isComposing || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "Escape") palette.close(); // not only what is in the field
    else if (e.key === "ArrowDown") choose(options[(at + 1) % options.length]);
    else if (e.key === "ArrowUp") choose(options.at(Math.max(at, 0) - 1));
    else return;
    e.preventDefault();
  });
  document.addEventListener("htmx:config:request", (e) => {
    const { sourceElement, request } = e.detail.ctx;
    if (sourceElement === paletteField) asked.set(e.detail.ctx, request.body.get("q"));
  });
  document.addEventListener("htmx:after:swap", (e) => {
    if (e.detail?.ctx?.sourceElement !== paletteField) return;
    answered = asked.get(e.detail.ctx);
    choose(foundOptions()[0]);
    if (entered) enter();
  });
  document.addEventListener("click", (e) => {
    if (!e.target.closest("a.find") || e.ctrlKey || e.metaKey || e.shiftKey) return;
    e.preventDefault();
    openPalette();
  });
  for (const key of document.querySelectorAll(".find kbd")) {
    if (mac) key.textContent = "⌘K";
    key.hidden = false;
  }
}

document.addEventListener("keydown", (e) => {
  if (!(mac ? e.metaKey && !e.ctrlKey : e.ctrlKey && !e.metaKey) || e.altKey || e.shiftKey || e.key.toLowerCase() !== "k" || !palette) return;
  e.preventDefault();
  if (palette.open) palette.close();
  else openPalette();
});
