// A page that follows a change leaves alone what somebody is doing on it: an extension of
// htmx, whose hooks say no to a change by returning false. htmx is loaded after this, and
// starts once the page is parsed.

function mayMorph(form, { newNode: then }) {
  if (!(form instanceof HTMLFormElement) || form.method !== "post" || !typedIn(form).some(edited)) return true;
  // What was typed stays, and the form says so if what it shows has changed.
  const [is, will, note] = [form.elements.match, then.querySelector("[name=match]"), form.querySelector(".changed")];
  if (is && will && note) note.hidden = is.value === will.value;
  return false;
}

// What somebody has opened stays open.
function mayMorphAttribute(el, { attrName }) {
  return !(attrName === "open" && el instanceof HTMLDetailsElement);
}

document.addEventListener("DOMContentLoaded", () => {
  window.htmx?.registerExtension("keep", { htmx_before_morph_node: mayMorph, htmx_before_morph_attr: mayMorphAttribute });
});
