// Menus are details: they open and close without this. Here they also close by Escape, by a
// click elsewhere, and when the keyboard goes on.

const menus = "details.menu, details.me";

function closeMenus(but) {
  for (const open of document.querySelectorAll(":is(details.menu, details.me)[open]")) {
    if (!open.contains(but)) open.open = false;
  }
}

document.addEventListener("click", (e) => closeMenus(e.target));
document.addEventListener("focusin", (e) => closeMenus(e.target));
document.addEventListener("keydown", (e) => {
  const menu = e.target.closest?.(menus);
  if (!menu) return;
  if (e.key === "Escape" && menu.open) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (e.key === "ArrowDown" || e.key === "ArrowUp") {
    e.preventDefault();
    menu.open = true;
    const items = [...menu.querySelectorAll("summary, :scope > div :is(a, button)")].filter((i) => i.checkVisibility());
    const at = items.indexOf(document.activeElement);
    items.at((at + (e.key === "ArrowDown" ? 1 : -1)) % items.length).focus();
  }
});
