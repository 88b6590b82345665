// The text of the policy: numbers beside its lines, and the line that the address asks for.

function numbered(area) {
  const lines = area.parentElement.querySelector(".lines");
  const n = area.value.split("\n").length;
  if (lines.hidden) lines.hidden = false;
  if (lines.dataset.n !== String(n)) {
    lines.dataset.n = String(n);
    lines.textContent = Array.from({ length: n }, (_, i) => i + 1).join("\n");
  }
  lines.scrollTop = area.scrollTop;
}

const policyText = document.getElementById("policy");
if (policyText) {
  numbered(policyText);
  policyText.addEventListener("input", () => numbered(policyText));
  policyText.addEventListener("scroll", () => numbered(policyText));
  document.addEventListener("DOMContentLoaded", () => numbered(policyText)); // a draft may be filled in
  if (policyText.dataset.line) goTo(policyText);
}
